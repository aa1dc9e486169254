//! What stands in an address after the question mark, and answers in JSON that may be wrapped for it.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::Value as Json;
use tepui_api::http::{Body, full};

/// The parameters of a request.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

// === impl Query ===

impl Query {
    pub(super) fn parse(text: Option<&str>) -> Self {
        let text = text.unwrap_or_default();
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The last value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `200 OK` with JSON, within a call of the function that `jsonp` names.
    pub(super) fn json(&self, json: &Json) -> Response<Body> {
        let text = json.to_string();
        match self.get("jsonp") {
            None => tepui_api::http::json(text),
            Some(function) => {
                let mut answer = Response::new(full(format!("{function}({text});")));
                *answer.status_mut() = StatusCode::OK;
                answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript"));
                answer
            }
        }
    }
}
