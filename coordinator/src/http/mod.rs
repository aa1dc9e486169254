//! The coordinator's HTTP server: HTTP/1.1 and, with prior knowledge, HTTP/2 on one port.
//!
//! [`Server`] accepts connections; [`route`] finds the handler by the path. Calls of frameworks go through
//! [`scheduler`] and those of operators through [`operator`] to the core, agents' links through
//! [`link`]. Reads take a snapshot from the core and write it on a thread of their own, in the v1 form
//! ([`operator`]) or the older one that tools and web pages read ([`v0`]). As in Mesos, most paths are
//! there with and without `/master` before them. What is served changes with every term ([`Site`]).

mod link;
mod metrics;
mod operator;
mod page;
mod query;
mod roles;
mod scheduler;
mod server;
mod v0;
mod validate;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use tepui_api::Wire;
use tepui_api::http::{Body, Refusal, read_body};
use tepui_api::v1::MasterInfo;
use tepui_zookeeper::Lease;
use tokio::sync::watch;

pub(crate) use server::Server;

use crate::core::Reply;
use crate::election::Leadership;
use crate::flags::Settings;
use crate::shell::{CoreGone, CoreHandle, RegistryStats};

/// What requests are answered with at the moment: the context of the present term or, between terms, the idle one, which has
/// no core.
#[derive(Debug)]
pub(crate) struct Site {
    idle: Arc<Context>,
    present: RwLock<Arc<Context>>,
}

/// What all handlers share for one term.
#[derive(Debug)]
pub(crate) struct Context {
    /// The way to the core.
    pub(crate) core: CoreHandle,
    /// What the coordinator was told.
    pub(crate) settings: Arc<Settings>,
    /// How it shows itself.
    pub(crate) info: Arc<MasterInfo>,
    /// Who leads.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// How long this term may act.
    pub(crate) lease: Lease,
    /// When the process started to be a coordinator, since 1970.
    pub(crate) started: Duration,
    /// When it was elected, since 1970.
    pub(crate) elected: Duration,
    /// Subscribers of the operator stream.
    pub(crate) operator_streams: AtomicUsize,
    /// How the registry is.
    pub(crate) registry: Arc<RegistryStats>,
}

/// How long a call waits for a leader that still reads its registry. Clients that are refused come back only after seconds
/// (pymesos after two and more), and reading takes less.
const RECOVERY: Duration = Duration::from_secs(10);

/// Answers one request.
pub(crate) async fn route(site: &Site, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let own = path.strip_prefix("/master").filter(|rest| rest.starts_with('/')).unwrap_or(&path);
    let waits = matches!(own, "/api/v1/scheduler" | "/api/v1" | "/tepui/v1/link");
    let context = if waits { site.settled().await } else { site.context() };
    match own {
        "/api/v1/scheduler" => context.still_leading(scheduler::handle(&context, request).await),
        "/api/v1" => context.still_leading(operator::handle(&context, request).await),
        "/tepui/v1/link" => link::handle(&context, request).await,
        _ => v0::handle(&context, own, &path, request).await,
    }
}

// === impl Site ===

impl Site {
    /// Begins between terms.
    pub(crate) fn new(idle: Context) -> Self {
        let idle = Arc::new(idle);
        Self { present: RwLock::new(Arc::clone(&idle)), idle }
    }

    /// A term begins.
    pub(crate) fn enter(&self, term: Arc<Context>) {
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = term;
    }

    /// A term ends.
    pub(crate) fn leave(&self) {
        self.enter(Arc::clone(&self.idle));
    }

    /// What to answer a call with that would rather wait for a while than be refused because the registry is being read.
    async fn settled(&self) -> Arc<Context> {
        let mut leadership = self.idle.leadership.clone();
        let settled = leadership.wait_for(|leadership| *leadership != Leadership::Recovering);
        // Whether it came or not: the call is answered by what is the case then.
        let _ = tokio::time::timeout(RECOVERY, settled).await;
        self.context()
    }

    /// What to answer a request with.
    pub(crate) fn context(&self) -> Arc<Context> {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Context ===

impl Context {
    /// Whether this coordinator may answer; otherwise what to answer instead: where the leader is, or
    /// that nobody leads.
    fn check_leading(&self, path_and_query: &str) -> Result<(), Box<Response<Body>>> {
        match &*self.leadership.borrow() {
            Leadership::Own if self.lease.holds() => Ok(()),
            Leadership::Other(leader) => Err(Box::new(redirect(leader, path_and_query))),
            Leadership::Recovering => Err(Box::new(recovering())),
            Leadership::Own | Leadership::Vacant => Err(Box::new(nobody_leads())),
        }
    }

    /// The answer, unless leadership was lost while it was made: an answer is an act, too.
    fn still_leading(&self, answer: Response<Body>) -> Response<Body> {
        let own = *self.leadership.borrow() == Leadership::Own;
        if own && !self.lease.holds() { nobody_leads() } else { answer }
    }

    /// Who leads.
    fn leader(&self) -> Option<Arc<MasterInfo>> {
        match &*self.leadership.borrow() {
            Leadership::Own | Leadership::Recovering => Some(Arc::clone(&self.info)),
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

fn recovering() -> Response<Body> {
    tepui_api::http::error(StatusCode::SERVICE_UNAVAILABLE, "Master has not finished recovery")
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
            settings: Arc::new(settings),
            leadership: watch::Sender::new(leadership).subscribe(),
            lease: Lease::endless(),
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

    #[test]
    fn who_is_elected_first_reads_the_registry() {
        let context = context(Leadership::Recovering);
        let answer = context.check_leading("/state").unwrap_err();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(context.leader().unwrap().hostname(), "own.example");
    }

    #[test]
    fn nothing_is_served_nor_answered_after_the_lease() {
        let context = context(Leadership::Own);
        let answer = || tepui_api::http::empty(StatusCode::ACCEPTED);
        assert_eq!(context.still_leading(answer()).status(), StatusCode::ACCEPTED);
        context.lease.end();
        assert_eq!(context.check_leading("/state").unwrap_err().status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(context.still_leading(answer()).status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn between_terms_there_is_no_core() {
        let site = Site::new(context(Leadership::Vacant));
        let term = Arc::new(context(Leadership::Own));
        site.enter(Arc::clone(&term));
        assert!(Arc::ptr_eq(&site.context(), &term));
        site.leave();
        assert!(!Arc::ptr_eq(&site.context(), &term));
    }

    #[tokio::test]
    async fn a_core_that_is_gone_is_told() {
        let context = context(Leadership::Own);
        let answer = answer(context.core.operator(crate::core::OperatorCall::Teardown("f".into())).await);
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
