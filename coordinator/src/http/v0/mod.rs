//! The endpoints of before the v1 API: JSON that tools, scripts and web pages read.
//!
//! [`handle`] finds the endpoint by its path, without `/master` or `.json` where Mesos takes them. What
//! Mesos has and Tepui has not answers `501` with its name, anything else `404`.

mod change;
mod state;
mod summary;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tepui_api::codec::encode_json;
use tepui_api::http::{self as api, Body, Refusal};

use super::query::Query;
use super::{Context, metrics, operator, page, redirect, stopping, write_apart};
use crate::core::Snapshot;
use change::Endpoint;
use state::{Agents, Flags, Frameworks, Roles, State, TaskQuery, Tasks};
use summary::Summary;

/// Endpoints of Mesos that are not built.
const NOT_IMPLEMENTED: &[&str] = &[
    "/create-volumes",
    "/destroy-volumes",
    "/files/browse",
    "/files/browse.json",
    "/files/debug",
    "/files/debug.json",
    "/files/download",
    "/files/download.json",
    "/files/read",
    "/files/read.json",
    "/help",
    "/logging/toggle",
    "/memory-profiler/download/graph",
    "/memory-profiler/download/raw",
    "/memory-profiler/download/text",
    "/memory-profiler/start",
    "/memory-profiler/state",
    "/memory-profiler/statistics",
    "/memory-profiler/stop",
    "/profiler/start",
    "/profiler/stop",
    "/quota",
    "/reserve",
    "/unreserve",
    "/__processes__",
];

/// `TASK_LIMIT` of Mesos: tasks on a page of `/tasks`.
const TASKS: usize = 100;

/// What is written from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Report {
    State,
    Summary,
    Agents(Option<String>),
    Frameworks(Option<String>),
    Tasks(TaskQuery),
    Roles,
    Metrics,
}

/// Answers one request. `path` is what follows `/master`, `whole` all of it.
pub(super) async fn handle(
    context: &Arc<Context>,
    path: &str,
    whole: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let target = request.uri().path_and_query().map_or("", |p| p.as_str());
    match path {
        "/" if page::is_wanted(request.headers()) => return page::show(context),
        "/health" => return api::empty(StatusCode::OK),
        "/redirect" => {
            return match context.leader() {
                Some(leader) => redirect(&leader, ""),
                None => super::nobody_leads(),
            };
        }
        "/version" => return json(&query, encode_json(&operator::version())),
        "/flags" => return json(&query, encode_json(&BTreeMap::from([("flags", Flags(context))]))),
        "/system/stats.json" => return json(&query, encode_json(&system())),
        _ => {}
    }
    if let Some(report) = Report::find(path, &query) {
        // The metrics tell of the process, whether it leads or not.
        if report != Report::Metrics
            && let Err(elsewhere) = context.check_leading(target)
        {
            return *elsewhere;
        }
        return match report.answer(context).await {
            Ok(Ok(bytes)) => json(&query, bytes),
            Ok(Err(gone)) => stopping(gone),
            Err(refusal) => refusal.into(),
        };
    }
    if let Some(endpoint) = Endpoint::find(path) {
        if let Err(elsewhere) = context.check_leading(target) {
            return *elsewhere;
        }
        return endpoint.answer(context, &query, request).await.unwrap_or_else(Into::into);
    }
    if NOT_IMPLEMENTED.contains(&path) {
        return Refusal::not_implemented(format_args!("the endpoint {whole}")).into();
    }
    api::not_found()
}

// === impl Report ===

impl Report {
    fn find(path: &str, query: &Query) -> Option<Self> {
        let text = |name: &str| query.get(name).map(str::to_owned);
        Some(match path {
            "/state" | "/state.json" => Self::State,
            "/state-summary" => Self::Summary,
            "/slaves" => Self::Agents(text("slave_id")),
            "/frameworks" => Self::Frameworks(text("framework_id")),
            "/tasks" | "/tasks.json" => Self::Tasks(TaskQuery {
                framework: text("framework_id"),
                task: text("task_id"),
                limit: query.number("limit").unwrap_or(TASKS),
                offset: query.number("offset").unwrap_or(0),
                ascending: query.get("order") == Some("asc"),
            }),
            "/roles" | "/roles.json" => Self::Roles,
            "/metrics/snapshot" => Self::Metrics,
            _ => return None,
        })
    }

    async fn answer(
        self,
        context: &Arc<Context>,
    ) -> Result<Result<Vec<u8>, crate::shell::CoreGone>, Refusal> {
        let state = match context.core.read().await {
            Ok(state) => state,
            // The process has metrics also when it does not lead.
            Err(_) if self == Self::Metrics => metrics::without_a_core(context),
            Err(gone) => return Ok(Err(gone)),
        };
        let context = Arc::clone(context);
        write_apart(move || self.write(&context, &state)).await.map(Ok)
    }

    fn write(&self, context: &Context, state: &Snapshot) -> Vec<u8> {
        match self {
            Self::State => encode_json(&State(context, state)),
            Self::Summary => encode_json(&Summary(context, state)),
            Self::Agents(id) => encode_json(&Agents(state, id.as_deref())),
            Self::Frameworks(id) => encode_json(&Frameworks(state, id.as_deref())),
            Self::Tasks(query) => encode_json(&Tasks(state, query)),
            Self::Roles => encode_json(&Roles(context, state)),
            Self::Metrics => encode_json(&metrics::collect(context, state)),
        }
    }
}

/// JSON, or JavaScript that hands it to the function named by `jsonp`.
fn json(query: &Query, bytes: Vec<u8>) -> Response<Body> {
    let Some(function) = query.get("jsonp") else { return api::json(bytes) };
    let mut script = Vec::with_capacity(function.len() + bytes.len() + 3);
    script.extend_from_slice(function.as_bytes());
    script.push(b'(');
    script.extend_from_slice(&bytes);
    script.extend_from_slice(b");");
    let mut answer = api::json(script);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/javascript"));
    answer
}

fn system() -> serde_json::Map<String, serde_json::Value> {
    let system = metrics::System::read();
    let known = [
        ("avg_load_1min", system.load.map(|load| load[0].into())),
        ("avg_load_5min", system.load.map(|load| load[1].into())),
        ("avg_load_15min", system.load.map(|load| load[2].into())),
        ("cpus_total", system.cpus.map(Into::into)),
        ("mem_total_bytes", system.mem_total_bytes.map(Into::into)),
        ("mem_free_bytes", system.mem_free_bytes.map(Into::into)),
    ];
    known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
