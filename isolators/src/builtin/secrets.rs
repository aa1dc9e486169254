//! From a `Secret` to its value, for the isolators that give secrets to containers.
//!
//! As Mesos' resolver without `--secret_resolver`: a secret of type VALUE is its own value; one of type REFERENCE names a thing in
//! a store of secrets, of which this agent has none.

use tepui_api::v1::{Secret, secret};

use crate::isolator::IsolatorError;
use crate::volume::SecretBytes;

/// The value of a secret. `whose` says for what, in an error.
///
/// # Errors
/// When it is a reference, or has no value.
pub fn resolve(secret: &Secret, whose: &str) -> Result<SecretBytes, IsolatorError> {
    let refused = |text: &str| Err(IsolatorError::Refused(format!("the secret {whose} {text}")));
    match (secret.r#type(), &secret.reference, &secret.value) {
        (secret::Type::Reference, ..) | (_, Some(_), None) => {
            refused("is of type REFERENCE, which this agent cannot resolve: it has no store of secrets")
        }
        (secret::Type::Value, Some(_), Some(_)) => {
            refused("is of type VALUE, and must not have a 'reference'")
        }
        (_, None, Some(value)) => Ok(SecretBytes::new(value.data.clone())),
        _ => refused("has no value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_known_and_references_are_not() {
        let value = || Some(secret::Value { data: b"s3cret".to_vec() });
        let reference = || Some(secret::Reference { name: "vault/key".to_owned(), key: None });
        let make =
            |r#type: secret::Type, reference, value| Secret { r#type: Some(r#type.into()), reference, value };
        let good = resolve(&make(secret::Type::Value, None, value()), "of a test").unwrap();
        assert_eq!(good.expose(), b"s3cret");
        assert!(!format!("{good:?}").contains("115"), "not even as numbers");
        let error =
            resolve(&make(secret::Type::Reference, reference(), None), "of a test").unwrap_err().to_string();
        assert!(error.contains("of a test") && error.contains("REFERENCE"), "{error}");
        for bad in [
            make(secret::Type::Value, None, None),
            make(secret::Type::Value, reference(), value()),
            make(secret::Type::Unknown, None, None),
        ] {
            assert!(resolve(&bad, "of a test").is_err());
        }
    }
}
