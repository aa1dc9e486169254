//! The agent's HTTP server: HTTP/1.1 and HTTP/2 on one port.
//!
//! [`Server`] accepts connections; [`route`] finds the handler by the path. Executors call at [`executor`]. Operators' calls ([`calls`]) and the older JSON endpoints
//! ([`v0`]) read a snapshot of the core; what both show of containers and metrics comes from [`containers`] and [`metrics`];
//! [`files`] reads sandboxes; [`attach`] streams what containers read and write. As in Mesos, most paths are there with and without `/slave(1)` before them.

mod attach;
mod calls;
mod containers;
mod executor;
mod executors;
mod files;
mod metrics;
mod nested;
mod query;
mod server;
mod together;
mod v0;

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use tepui_api::http::{Body, Refusal};

use crate::by_call::ByCalls;
use crate::fetcher::Fetcher;
use crate::flags::Settings;
use crate::sandbox::files::Files;
use crate::sandbox::gc::Gc;
use crate::shell::Handle;
use crate::shell::backend::Backend;
pub(crate) use server::Server;

/// What the handlers work with.
pub(crate) struct Context {
    /// Asks the core what there is.
    pub(crate) handle: Handle,
    /// Asks containers how they are.
    pub(crate) backend: Arc<dyn Backend>,
    /// Containers that were asked for by calls.
    pub(crate) by_calls: ByCalls,
    /// The sandboxes.
    pub(crate) files: Arc<Files>,
    /// The agent's flags.
    pub(crate) settings: Settings,
    /// Where this server is reached, as Mesos writes it: `slave(1)@ip:port`.
    pub(crate) pid: String,
    /// When the process began, since 1970.
    pub(crate) started: Duration,
    /// How long recovery took.
    pub(crate) recovery: Duration,
    /// How many records of the earlier run could not be read.
    pub(crate) recovery_errors: u64,
    /// Removes old sandboxes.
    pub(crate) sandboxes: Arc<Gc>,
    /// Fetches what tasks name.
    pub(crate) fetcher: Fetcher,
    /// Looks at all containers.
    pub(crate) containers: containers::All,
    /// Commands that run beside tasks.
    pub(crate) sessions: attach::Sessions,
    /// Where containers are looked at.
    pub(crate) workers: tokio::runtime::Handle,
}

/// What a handler answers, or why it cannot.
pub(crate) type Answer = Result<Response<Body>, Refusal>;

/// Answers a request.
pub(crate) async fn route<B>(context: Arc<Context>, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = bytes::Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let path = request.uri().path().to_owned();
    // Clients may encode the parentheses.
    let path = path.replace("%28", "(").replace("%29", ")");
    let path = path.strip_prefix("/slave(1)").unwrap_or(&path);
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let answer = match path {
        "/api/v1" if request.method() == Method::POST => calls::answer(&context, request).await,
        "/api/v1" => return tepui_api::http::method_not_allowed("POST", request.method()),
        "/api/v1/executor" if request.method() == Method::POST => executor::answer(&context, request).await,
        "/api/v1/executor" => return tepui_api::http::method_not_allowed("POST", request.method()),
        "/api/v1/resource_provider" => Err(Refusal::not_implemented("the resource provider API")),
        _ if !matches!(*request.method(), Method::GET | Method::HEAD) && v0::knows(path) => {
            return tepui_api::http::method_not_allowed("GET", request.method());
        }
        _ => v0::answer(&context, path, request.uri().query()).await,
    };
    answer.unwrap_or_else(Response::from)
}

/// The refusal of an agent that is going away.
fn stopping(error: crate::shell::Stopping) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
