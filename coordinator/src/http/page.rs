//! `GET /`: what a person who opens a coordinator in a browser sees: which one this is, and who leads.
//!
//! Programs that do not ask for HTML get the `404` of a Mesos master without a web page.

use std::fmt::Write as _;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response};
use tepui_api::http::{self as api, Body};
use tepui_api::v1::MasterInfo;

use super::Context;
use crate::election::Leadership;

/// Whether HTML is asked for by name.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let names_it = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains("text/html"));
    headers.get_all(ACCEPT).iter().any(names_it)
}

/// The page. Any coordinator answers it.
pub(super) fn show(context: &Context) -> Response<Body> {
    let leadership = context.leadership.borrow().clone();
    let leads = match &leadership {
        Leadership::Own if context.lease.holds() => "It leads.".to_owned(),
        Leadership::Recovering => "It is elected, and reads its registry.".to_owned(),
        Leadership::Other(leader) => format!("{} leads.", link(leader)),
        Leadership::Own | Leadership::Vacant => "Nobody leads, as far as it knows.".to_owned(),
    };
    let cluster = context.settings.cluster.as_deref().unwrap_or("Tepui");
    let html = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<h1>{title}</h1>\n\
         <p>This is the coordinator {own}. {leads}</p>\n\
         <p><a href=\"/state\">state</a> <a href=\"/metrics/snapshot\">metrics</a> <a href=\"/flags\">flags</a></p>\n",
        title = escape(cluster),
        own = escape(&format!("{}:{}", context.info.hostname(), context.info.port)),
    );
    let mut answer = api::json(html);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    answer
}

fn link(leader: &MasterInfo) -> String {
    let authority = escape(&format!("{}:{}", leader.hostname(), leader.port));
    format!("<a href=\"//{authority}/\">{authority}</a>")
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '<' | '>' | '&' | '"' | '\'') {
            // Writing to a string cannot fail.
            let _ = write!(safe, "&#{};", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_a_link_and_its_name_only_text() {
        let leader =
            MasterInfo { hostname: Some("h\"><script>".to_owned()), port: 5050, ..MasterInfo::default() };
        assert_eq!(
            link(&leader),
            "<a href=\"//h&#34;&#62;&#60;script&#62;:5050/\">h&#34;&#62;&#60;script&#62;:5050</a>"
        );
    }
}
