//! The query of a URI, and bodies in the same form.

use std::collections::HashMap;

/// The parameters of a query, decoded; the last of a name counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    /// Reads `name=value&name=value`.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split(['&', ';']).filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(value))
                })
                .collect(),
        )
    }

    /// The value of a parameter.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a parameter that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<usize> {
        self.get(name)?.parse().ok()
    }
}

/// Undoes percent encoding, and takes "+" for a space. What is no encoding stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = if byte == b'%' { after.get(..2).and_then(hex) } else { None };
        rest = if escaped.is_some() { &after[2..] } else { after };
        out.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (high, low) = (digit(*digits.first()?)?, digit(*digits.get(1)?)?);
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("jsonp=cb&task_id=a%2Fb+c&limit=7&empty&bad=%zz%2&limit=8");
        assert_eq!(query.get("jsonp"), Some("cb"));
        assert_eq!(query.get("task_id"), Some("a/b c"));
        assert_eq!(query.number("limit"), Some(8));
        assert_eq!(query.get("empty"), Some(""));
        assert_eq!(query.get("bad"), Some("%zz%2"));
        assert_eq!(query.get("other"), None);
        assert_eq!(query.number("jsonp"), None);
    }

    proptest! {
        #[test]
        fn no_query_makes_it_panic(text in "\\PC{0,40}") {
            Query::parse(&text);
        }

        #[test]
        fn encoded_text_comes_back(text in "\\PC{0,20}") {
            let encoded: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
            let query = Query::parse(&format!("name={encoded}"));
            prop_assert_eq!(query.get("name"), Some(text.as_str()));
        }
    }
}
