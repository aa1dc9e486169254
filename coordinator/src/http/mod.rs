//! The coordinator's HTTP server: HTTP/1.1 and, with prior knowledge, HTTP/2 on one port.
//!
//! [`Server`] accepts connections; [`route`] finds the handler by the path. Calls of frameworks go through
//! [`scheduler`] and those of operators through [`operator`] to the core, agents' links through
//! [`link`]. Reads take a snapshot from the core and write it on a thread of their own, in the v1 form
//! ([`operator`]) or the older one that tools and web pages read ([`v0`]). As in Mesos, most paths are
//! there with and without `/master` before them.

mod link;
mod metrics;
mod operator;
mod query;
mod roles;
mod scheduler;
mod server;
mod v0;
mod validate;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tepui_api::Wire;
use tepui_api::http::{Body, Refusal, read_body};
use tepui_api::v1::MasterInfo;
use tokio::sync::watch;

pub(crate) use server::Server;

use crate::core::Reply;
use crate::election::Leadership;
use crate::flags::Settings;
use crate::shell::{CoreGone, CoreHandle, RegistryStats};

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct Context {
    /// The way to the core.
    pub(crate) core: CoreHandle,
    /// What the coordinator was told.
    pub(crate) settings: Settings,
    /// How it shows itself.
    pub(crate) info: Arc<MasterInfo>,
    /// Who leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// When the process started to be a coordinator, since 1970.
    pub(crate) started: Duration,
    /// When it was elected, since 1970.
    pub(crate) elected: Duration,
    /// Subscribers of the operator stream.
    pub(crate) operator_streams: AtomicUsize,
    /// How the registry is.
    pub(crate) registry: Arc<RegistryStats>,
}

/// Answers one request.
pub(crate) async fn route(context: Arc<Context>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let own = path.strip_prefix("/master").filter(|rest| rest.starts_with('/')).unwrap_or(&path);
    match own {
        "/api/v1/scheduler" => scheduler::handle(&context, request).await,
        "/api/v1" => operator::handle(&context, request).await,
        "/tepui/v1/link" => link::handle(&context, request).await,
        _ => v0::handle(&context, own, &path, request).await,
    }
}

// === impl Context ===

impl Context {
    /// Whether this coordinator may answer; otherwise what to answer instead: where the leader is, or
    /// that nobody leads.
    fn check_leading(&self, path_and_query: &str) -> Result<(), Box<Response<Body>>> {
        match &*self.leadership.borrow() {
            Leadership::Own => Ok(()),
            Leadership::Other(leader) => Err(Box::new(redirect(leader, path_and_query))),
            Leadership::Vacant => Err(Box::new(nobody_leads())),
        }
    }

    /// Who leads.
    fn leader(&self) -> Option<Arc<MasterInfo>> {
        match &*self.leadership.borrow() {
            Leadership::Own => Some(Arc::clone(&self.info)),
            Leadership::Other(leader) => Some(Arc::clone(leader)),
            Leadership::Vacant => None,
        }
    }
}

/// `307` to this path of the leader, without a scheme, so that the client keeps its own.
fn redirect(leader: &MasterInfo, path_and_query: &str) -> Response<Body> {
    let location = format!("//{}:{}{path_and_query}", leader.hostname(), leader.port);
    let mut answer = tepui_api::http::empty(StatusCode::TEMPORARY_REDIRECT);
    match HeaderValue::from_str(&location) {
        Ok(location) => {
            answer.headers_mut().insert(LOCATION, location);
            answer
        }
        Err(error) => tepui_api::http::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("the leader's name {location:?} cannot stand in a header: {error}"),
        ),
    }
}

fn nobody_leads() -> Response<Body> {
    tepui_api::http::error(StatusCode::SERVICE_UNAVAILABLE, "No leader elected")
}

/// The answer of the core to a call without a body.
fn answer(reply: Result<Reply, CoreGone>) -> Response<Body> {
    match reply {
        Ok(Reply::Accepted) => tepui_api::http::empty(StatusCode::ACCEPTED),
        Ok(Reply::Ok) => tepui_api::http::empty(StatusCode::OK),
        Ok(Reply::Refused { status, message }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            tepui_api::http::error(status, &message)
        }
        Ok(Reply::Subscribed | Reply::Response(_)) => {
            tepui_api::http::error(StatusCode::INTERNAL_SERVER_ERROR, "an answer of another call came")
        }
        Err(gone) => stopping(gone),
    }
}

fn stopping(gone: CoreGone) -> Response<Body> {
    tepui_api::http::error(StatusCode::SERVICE_UNAVAILABLE, &gone.to_string())
}

/// Reads the call in a request's body. A large one is decoded on a thread that may take its time.
async fn read_call<C: Wire + 'static>(head: &http::request::Parts, body: Incoming) -> Result<C, Refusal> {
    /// Decoding this much takes about a millisecond.
    const SMALL: usize = 128 << 10;
    let media = tepui_api::http::content_type(&head.headers)?;
    let body = read_body(body).await?;
    let decoded = if body.len() <= SMALL {
        tepui_api::decode(media, &body)
    } else {
        let decode = move || tepui_api::decode(media, &body);
        tokio::task::spawn_blocking(decode).await.map_err(|error| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the body could not be read: {error}"))
        })?
    };
    decoded.map_err(|error| Refusal::bad_request(error.to_string()))
}

/// Writes a large answer on a thread that may take its time.
async fn write_apart(write: impl FnOnce() -> Vec<u8> + Send + 'static) -> Result<Vec<u8>, Refusal> {
    tokio::task::spawn_blocking(write).await.map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer could not be written: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;
    use crate::identity::master_info;

    fn context(leadership: Leadership) -> Context {
        let settings = Settings { hostname: Some("own.example".to_owned()), ..Settings::default() };
        Context {
            core: CoreHandle::new().0,
            info: Arc::new(master_info(&settings, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 5050))),
            settings,
            leadership: watch::Sender::new(leadership).subscribe(),
            started: Duration::ZERO,
            elected: Duration::ZERO,
            operator_streams: AtomicUsize::new(0),
            registry: Arc::default(),
        }
    }

    #[test]
    fn who_does_not_lead_shows_the_way() {
        let leader =
            MasterInfo { hostname: Some("leader.example".to_owned()), port: 5051, ..MasterInfo::default() };
        let context = context(Leadership::Other(Arc::new(leader)));
        let answer = context.check_leading("/state?jsonp=f").unwrap_err();
        assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(answer.headers()[LOCATION], "//leader.example:5051/state?jsonp=f");
        assert_eq!(context.leader().unwrap().hostname(), "leader.example");
    }

    #[test]
    fn without_a_leader_nothing_is_served() {
        let context = context(Leadership::Vacant);
        assert_eq!(context.check_leading("/state").unwrap_err().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(context.leader(), None);
    }

    #[test]
    fn the_leader_serves() {
        let context = context(Leadership::Own);
        assert!(context.check_leading("/state").is_ok());
        assert_eq!(context.leader().unwrap().hostname(), "own.example");
    }

    #[tokio::test]
    async fn a_core_that_is_gone_is_told() {
        let context = context(Leadership::Own);
        let answer = answer(context.core.operator(crate::core::OperatorCall::Teardown("f".into())).await);
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
