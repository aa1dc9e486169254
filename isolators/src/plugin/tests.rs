//! The host's part against a real server of the protocol, in this process, behind a real socket.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::Stream;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tepui_api::resources::Resources;
use tepui_api::v1::{ContainerStatus, ResourceStatistics};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::codegen::Service as _;
use tonic::{Request, Response, Status};

use super::proto::isolator_server::IsolatorServer;
use super::proto::{self, Call};
use super::{Plugin, PluginSettings, Target, Timeouts};
use crate::builtin::tests::{context, empty_spec};
use crate::custom::{Host, Places};
use crate::isolator::{ContainerContext, ContainerId, Contribution, Isolator, Limitation, Limits, Recovered};

const PATIENCE: Duration = Duration::from_secs(60);
/// A time-out for calls that are to exceed it.
const SHORT: Duration = Duration::from_millis(150);

/// What a plugin does when it is called.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Refuse,
    Hang,
}

/// A plugin that notes what it is told, and does as it is bid.
#[derive(Default)]
struct Fake {
    told: Mutex<Vec<String>>,
    acts: Mutex<HashMap<&'static str, Act>>,
    handshake: Mutex<Option<proto::HandshakeResponse>>,
    contribution: Mutex<proto::PrepareResponse>,
    exited: Mutex<Option<proto::Limitation>>,
    limitations: Mutex<Option<mpsc::UnboundedReceiver<Result<proto::Limitation, Status>>>>,
}

impl Fake {
    async fn act<T>(&self, call: &'static str, about: String, answer: T) -> Result<Response<T>, Status> {
        self.told.lock().unwrap().push(format!("{call} {about}").trim_end().to_owned());
        let act = self.acts.lock().unwrap().get(call).copied();
        match act {
            None => Ok(Response::new(answer)),
            Some(Act::Refuse) => Err(Status::failed_precondition("not today")),
            Some(Act::Hang) => std::future::pending().await,
        }
    }

    fn bid(&self, call: &'static str, act: Option<Act>) {
        let mut acts = self.acts.lock().unwrap();
        match act {
            Some(act) => drop(acts.insert(call, act)),
            None => drop(acts.remove(call)),
        }
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }

    async fn wait_told(&self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.told().iter().any(|told| told == what) {
            assert!(Instant::now() < deadline, "'{what}' was not told in time: {:?}", self.told());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn text(id: &Option<ContainerId>) -> String {
    id.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[tonic::async_trait]
impl proto::isolator_server::Isolator for Arc<Fake> {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::Limitation, Status>> + Send>>;

    async fn handshake(
        &self,
        request: Request<proto::HandshakeRequest>,
    ) -> Result<Response<proto::HandshakeResponse>, Status> {
        let request = request.into_inner();
        let given = self.handshake.lock().unwrap().clone();
        let answer = given.unwrap_or_else(|| handshake(&request.name, request.protocol_version));
        self.act("handshake", String::new(), answer).await
    }

    async fn recover(
        &self,
        request: Request<proto::RecoverRequest>,
    ) -> Result<Response<proto::RecoverResponse>, Status> {
        let request = request.into_inner();
        let known = request.containers.iter().map(|one| {
            let container = one.container.as_ref().unwrap();
            format!("{}:{}", text(&container.container_id), one.pid.unwrap_or_default())
        });
        let orphans = request.orphans.iter().map(|id| format!("-{id}"));
        let mut about: Vec<String> = known.chain(orphans).collect();
        about.sort();
        self.act("recover", about.join(" "), proto::RecoverResponse {}).await
    }

    async fn prepare(
        &self,
        request: Request<proto::PrepareRequest>,
    ) -> Result<Response<proto::PrepareResponse>, Status> {
        let container = request.into_inner().container.unwrap();
        let about = format!("{} in {}", text(&container.container_id), container.sandbox_in_container);
        let answer = self.contribution.lock().unwrap().clone();
        self.act("prepare", about, answer).await
    }

    async fn isolate(
        &self,
        request: Request<proto::IsolateRequest>,
    ) -> Result<Response<proto::IsolateResponse>, Status> {
        let request = request.into_inner();
        let about = format!("{} {}", text(&request.container_id), request.pid);
        self.act("isolate", about, proto::IsolateResponse {}).await
    }

    async fn update(
        &self,
        request: Request<proto::UpdateRequest>,
    ) -> Result<Response<proto::UpdateResponse>, Status> {
        let request = request.into_inner();
        let about = format!("{} {:?}", text(&request.container_id), request.limits);
        self.act("update", about, proto::UpdateResponse {}).await
    }

    async fn usage(
        &self,
        request: Request<proto::UsageRequest>,
    ) -> Result<Response<proto::UsageResponse>, Status> {
        let statistics = ResourceStatistics { timestamp: 1.0, cpus_limit: Some(3.0), ..Default::default() };
        let answer = proto::UsageResponse { statistics: Some(statistics) };
        self.act("usage", text(&request.into_inner().container_id), answer).await
    }

    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        let status = ContainerStatus { executor_pid: Some(1), ..Default::default() };
        let answer = proto::StatusResponse { status: Some(status) };
        self.act("status", text(&request.into_inner().container_id), answer).await
    }

    async fn exited(
        &self,
        request: Request<proto::ExitedRequest>,
    ) -> Result<Response<proto::ExitedResponse>, Status> {
        let request = request.into_inner();
        let answer = proto::ExitedResponse { limitation: self.exited.lock().unwrap().clone() };
        self.act("exited", format!("{} {}", text(&request.container_id), request.wait_status), answer).await
    }

    async fn cleanup(
        &self,
        request: Request<proto::CleanupRequest>,
    ) -> Result<Response<proto::CleanupResponse>, Status> {
        self.act("cleanup", text(&request.into_inner().container_id), proto::CleanupResponse {}).await
    }

    async fn watch(&self, _: Request<proto::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let stream =
            futures_util::stream::unfold(self.limitations.lock().unwrap().take(), |receiver| async {
                let mut receiver = match receiver {
                    Some(receiver) => receiver,
                    None => std::future::pending().await,
                };
                match receiver.recv().await {
                    Some(next) => Some((next, Some(receiver))),
                    None => std::future::pending().await,
                }
            });
        Ok(Response::new(Box::pin(stream)))
    }
}

fn handshake(name: &str, protocol_version: u32) -> proto::HandshakeResponse {
    use Call::{Cleanup, Exited, Isolate, Prepare, Recover, Status, Update, Usage, Watch};
    let calls = [Recover, Prepare, Isolate, Update, Usage, Status, Exited, Cleanup, Watch];
    proto::HandshakeResponse {
        protocol_version,
        name: name.to_owned(),
        calls: calls.into_iter().map(Into::into).collect(),
    }
}

/// A server at a socket. Dropped, it is as dead as a process that was killed.
struct Server(#[expect(dead_code, reason = "dropped, it ends what is in it")] JoinSet<()>);

fn serve(socket: &Path, fake: &Arc<Fake>) -> Server {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).unwrap();
    let service = IsolatorServer::new(Arc::clone(fake));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service.clone();
            let service = service_fn(move |request| service.clone().call(request));
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            connections.spawn(async move { drop(connection.await) });
        }
    });
    Server(tasks)
}

/// An agent's part of one plugin.
struct World {
    dir: tempfile::TempDir,
    socket: PathBuf,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        Self { dir, socket }
    }

    /// The plugin, as an agent has it that has just started, and where it reports limitations.
    fn plugin(&self, timeouts: Timeouts) -> (Plugin, mpsc::UnboundedReceiver<Limitation>) {
        let (limitations, reported) = mpsc::unbounded_channel();
        let places = Places {
            runtime_dir: self.dir.path().join("run"),
            work_dir: self.dir.path().join("work"),
            sandbox_directory: "/mnt/mesos/sandbox".into(),
        };
        let host = Host { limitations, cgroups: None, places, name: "mine".to_owned() };
        let settings =
            PluginSettings { name: "mine".to_owned(), target: Target::Socket(self.socket.clone()) };
        (Plugin::start(settings, timeouts, &host).unwrap(), reported)
    }

    fn owed(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("work/isolators/mine/owed")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    async fn wait_nothing_owed(&self) {
        self.wait_owed(&[]).await;
    }

    /// What was told is forgotten a moment after it was heard.
    async fn wait_owed(&self, left: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        let owed = || {
            let mut owed = self.owed();
            owed.sort();
            owed
        };
        while owed() != left {
            assert!(Instant::now() < deadline, "still owed: {:?}", owed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn named(id: &str) -> ContainerContext {
    ContainerContext { container_id: ContainerId::new(id), sandbox: "/var".into(), ..context(None) }
}

async fn prepare(plugin: &Plugin, id: &str) -> Result<Contribution, String> {
    let mut contribution = Contribution { spec: empty_spec(), ..Contribution::default() };
    let prepared = Isolator::prepare(plugin, &named(id), &mut contribution).await;
    prepared.map(|()| contribution).map_err(|error| error.to_string())
}

async fn started(world: &World, timeouts: Timeouts) -> (Plugin, mpsc::UnboundedReceiver<Limitation>) {
    let (plugin, reported) = world.plugin(timeouts);
    plugin.recover(&[], &[]).await.unwrap();
    (plugin, reported)
}

#[tokio::test]
async fn a_plugin_takes_part_in_the_whole_life_of_a_container() {
    let (world, fake) = (World::new(), Arc::new(Fake::default()));
    let _server = serve(&world.socket, &fake);
    let (plugin, _reported) = started(&world, Timeouts::default()).await;
    let id = ContainerId::new("a");
    *fake.contribution.lock().unwrap() = proto::PrepareResponse {
        environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        mounts: vec![proto::BindMount {
            source: "/usr".into(),
            target: "data".into(),
            recursive: true,
            read_only: true,
        }],
        oom_score_adj: Some(7),
        ..Default::default()
    };
    let contribution = prepare(&plugin, "a").await.unwrap();
    assert_eq!(contribution.environment["A"], "b");
    assert_eq!(contribution.mounts[0].target, Path::new("/var/data"));
    assert_eq!(contribution.oom_score_adj, Some(7));
    assert_eq!(world.owed(), ["a"]);
    Isolator::isolate(&plugin, &id, 42).await.unwrap();
    let limits = Limits::from([("cpus".to_owned(), 2.0)]);
    Isolator::update(&plugin, &id, &Resources::new(), &limits).await.unwrap();
    let mut statistics = ResourceStatistics { timestamp: 9.0, ..Default::default() };
    Isolator::usage(&plugin, &id, &mut statistics).await.unwrap();
    assert_eq!((statistics.timestamp, statistics.cpus_limit), (9.0, Some(3.0)));
    let mut status = ContainerStatus { executor_pid: Some(42), ..Default::default() };
    Isolator::status(&plugin, &id, &mut status).await.unwrap();
    assert_eq!(status.executor_pid, Some(42));
    *fake.exited.lock().unwrap() = Some(proto::Limitation {
        container_id: Some(id.clone()),
        message: "too much".into(),
        ..Default::default()
    });
    let limitation = Isolator::exited(&plugin, &id, 9).await.unwrap().unwrap();
    assert_eq!(limitation.message, "too much");
    Isolator::cleanup(&plugin, &id).await.unwrap();
    assert!(world.owed().is_empty());
    let told = [
        "handshake",
        "recover",
        "prepare a in /var",
        "isolate a 42",
        "update a {\"cpus\": 2.0}",
        "usage a",
        "status a",
        "exited a 9",
        "cleanup a",
    ];
    assert_eq!(fake.told(), told);
}

#[tokio::test]
async fn launches_fail_with_the_step_when_the_plugin_does() {
    let (world, fake) = (World::new(), Arc::new(Fake::default()));
    let timeouts = Timeouts { prepare: SHORT, isolate: SHORT, ..Timeouts::default() };
    let mut server = Some(serve(&world.socket, &fake));
    let (plugin, _reported) = started(&world, Timeouts { prepare: PATIENCE, ..timeouts }).await;
    prepare(&plugin, "first").await.unwrap();
    for call in ["prepare", "isolate"] {
        for (act, words) in
            [(Act::Refuse, "the plugin refuses: not today"), (Act::Hang, "did not answer within 150ms")]
        {
            let world = World::new();
            let _server = serve(&world.socket, &fake);
            let (plugin, _reported) = started(&world, timeouts).await;
            fake.bid(call, Some(act));
            let error = match prepare(&plugin, "a").await {
                Err(error) => error,
                Ok(_) => Isolator::isolate(&plugin, &ContainerId::new("a"), 1).await.unwrap_err().to_string(),
            };
            fake.bid(call, None);
            assert!(error.starts_with(&format!("{call}: ")) && error.contains(words), "{error}");
        }
    }
    // It dies in the middle of a call.
    fake.bid("prepare", Some(Act::Hang));
    let dying = async {
        fake.wait_told("prepare last in /var").await;
        server.take();
    };
    let (failed, ()) = tokio::join!(prepare(&plugin, "last"), dying);
    let error = failed.unwrap_err();
    assert!(error.starts_with("prepare: the connection to the plugin broke"), "{error}");
}

#[tokio::test]
async fn a_launch_waits_a_while_for_a_plugin_that_is_away() {
    let (world, fake) = (World::new(), Arc::new(Fake::default()));
    let (plugin, _reported) = started(&world, Timeouts { prepare: SHORT, ..Timeouts::default() }).await;
    let error = prepare(&plugin, "a").await.unwrap_err();
    assert!(error.starts_with("prepare: the plugin is away: nobody listens at /"), "{error}");
    assert!(world.owed().is_empty(), "it was never told");
    drop(plugin);

    let (plugin, _reported) = started(&world, Timeouts::default()).await;
    let late = async {
        tokio::time::sleep(SHORT).await;
        serve(&world.socket, &fake)
    };
    let (prepared, _server) = tokio::join!(prepare(&plugin, "a"), late);
    prepared.unwrap();
}

#[tokio::test]
async fn one_that_hangs_delays_nothing_twice() {
    let (world, fake) = (World::new(), Arc::new(Fake::default()));
    let _server = serve(&world.socket, &fake);
    let timeouts = Timeouts { usage: SHORT, cleanup: SHORT, ..Timeouts::default() };
    let (plugin, _reported) = started(&world, timeouts).await;
    let id = ContainerId::new("a");
    prepare(&plugin, "a").await.unwrap();
    fake.bid("usage", Some(Act::Hang));
    fake.bid("cleanup", Some(Act::Hang));
    let mut statistics = ResourceStatistics::default();
    let error = Isolator::usage(&plugin, &id, &mut statistics).await.unwrap_err().to_string();
    assert_eq!(error, "usage: the plugin did not answer within 150ms");
    let asked = fake.told().len();
    Isolator::usage(&plugin, &id, &mut statistics).await.unwrap();
    assert_eq!(Isolator::exited(&plugin, &id, 0).await.unwrap(), None);
    assert_eq!(fake.told().len(), asked, "it is left alone");
    Isolator::cleanup(&plugin, &id).await.unwrap();
    assert_eq!(world.owed(), ["a"], "the caller goes on, and it is not forgotten");
    fake.bid("cleanup", None);
    world.wait_nothing_owed().await;
    Isolator::usage(&plugin, &id, &mut statistics).await.unwrap_err();
}

#[tokio::test]
async fn one_that_comes_back_is_told_of_what_is_there_and_cleans_up() {
    let (world, fake) = (World::new(), Arc::new(Fake::default()));
    let server = serve(&world.socket, &fake);
    let (plugin, _reported) = started(&world, Timeouts::default()).await;
    for id in ["goes", "stays"] {
        prepare(&plugin, id).await.unwrap();
        Isolator::isolate(&plugin, &ContainerId::new(id), 7).await.unwrap();
    }
    drop(server);
    // Nobody is harmed meanwhile.
    let (goes, stays) = (ContainerId::new("goes"), ContainerId::new("stays"));
    let deadline = Instant::now() + PATIENCE;
    while Isolator::usage(&plugin, &stays, &mut ResourceStatistics::default()).await.is_err() {
        assert!(Instant::now() < deadline, "the end of the connection is noticed");
    }
    Isolator::update(&plugin, &stays, &Resources::new(), &Limits::new()).await.unwrap();
    assert_eq!(Isolator::exited(&plugin, &goes, 0).await.unwrap(), None);
    Isolator::cleanup(&plugin, &goes).await.unwrap();
    let back = Arc::new(Fake::default());
    let _server = serve(&world.socket, &back);
    back.wait_told("cleanup goes").await;
    assert_eq!(back.told(), ["handshake", "recover -goes stays:7", "cleanup goes"]);
    Isolator::cleanup(&plugin, &stays).await.unwrap();
    world.wait_nothing_owed().await;
}

#[tokio::test]
async fn what_is_owed_is_owed_by_the_next_run_of_the_agent_too() {
    let (world, fake) = (World::new(), Arc::new(Fake::default()));
    let server = serve(&world.socket, &fake);
    let (plugin, _reported) = started(&world, Timeouts::default()).await;
    for id in ["ran", "runs", "was-killed-while-prepared"] {
        prepare(&plugin, id).await.unwrap();
    }
    drop(server);
    Isolator::cleanup(&plugin, &ContainerId::new("ran")).await.unwrap();
    drop(plugin);

    let back = Arc::new(Fake::default());
    let _server = serve(&world.socket, &back);
    let (plugin, _reported) = world.plugin(Timeouts::default());
    let known = [
        Recovered { context: named("runs"), pid: Some(5) },
        Recovered { context: named("older-than-the-plugin"), pid: None },
    ];
    assert!(back.told().is_empty(), "it is told nothing before the agent knows what there is");
    plugin.recover(&known, &[ContainerId::new("ran")]).await.unwrap();
    back.wait_told("cleanup ran").await;
    back.wait_told("cleanup was-killed-while-prepared").await;
    assert_eq!(back.told()[1], "recover -ran -was-killed-while-prepared older-than-the-plugin:0 runs:5");
    world.wait_owed(&["older-than-the-plugin", "runs"]).await;
}

#[tokio::test]
async fn limitations_are_passed_on_if_they_make_sense() {
    let (world, fake) = (World::new(), Arc::new(Fake::default()));
    let (send, receive) = mpsc::unbounded_channel();
    *fake.limitations.lock().unwrap() = Some(receive);
    let _server = serve(&world.socket, &fake);
    let (plugin, mut reported) = started(&world, Timeouts::default()).await;
    prepare(&plugin, "a").await.unwrap();
    let of = |id: &str, reason: &str| proto::Limitation {
        container_id: Some(ContainerId::new(id)),
        reason: reason.to_owned(),
        message: "too much".to_owned(),
        ..Default::default()
    };
    for lie in [of("unknown", ""), of("a", "REASON_AGENT_REMOVED"), proto::Limitation::default()] {
        send.send(Ok(lie)).unwrap();
    }
    send.send(Ok(of("a", "REASON_CONTAINER_LIMITATION_DISK"))).unwrap();
    let limitation = tokio::time::timeout(PATIENCE, reported.recv()).await.unwrap().unwrap();
    assert_eq!(limitation.container_id, ContainerId::new("a"));
    assert_eq!(limitation.reason.as_str_name(), "REASON_CONTAINER_LIMITATION_DISK");
    assert!(reported.try_recv().is_err(), "the lies are not");
    *fake.exited.lock().unwrap() = Some(of("b", ""));
    let error = Isolator::exited(&plugin, &ContainerId::new("a"), 0).await.unwrap_err().to_string();
    assert!(error.starts_with("exited: ") && error.contains("answers of b"), "{error}");
}

#[tokio::test]
async fn one_that_is_not_what_it_should_be_is_not_used() {
    let mut none = handshake("mine", 1);
    none.calls.clear();
    for (answer, words) in [
        (handshake("yours", 1), "it says that it is 'yours', and not 'mine'"),
        (handshake("mine", 2), "it speaks version 2 of the protocol"),
        (none, "it wants no call"),
    ] {
        let (world, fake) = (World::new(), Arc::new(Fake::default()));
        *fake.handshake.lock().unwrap() = Some(answer);
        let _server = serve(&world.socket, &fake);
        let (plugin, _reported) = started(&world, Timeouts { prepare: SHORT, ..Timeouts::default() }).await;
        let error = prepare(&plugin, "a").await.unwrap_err();
        assert!(error.contains(&format!("handshake: {words}")), "{error}");
    }
}

#[tokio::test]
async fn calls_that_are_not_wanted_are_not_made() {
    let (world, fake) = (World::new(), Arc::new(Fake::default()));
    let calls = vec![Call::Isolate.into(), 99];
    *fake.handshake.lock().unwrap() = Some(proto::HandshakeResponse { calls, ..handshake("mine", 1) });
    let _server = serve(&world.socket, &fake);
    let (plugin, _reported) = started(&world, Timeouts::default()).await;
    let id = ContainerId::new("a");
    prepare(&plugin, "a").await.unwrap();
    Isolator::isolate(&plugin, &id, 3).await.unwrap();
    Isolator::usage(&plugin, &id, &mut ResourceStatistics::default()).await.unwrap();
    Isolator::cleanup(&plugin, &id).await.unwrap();
    world.wait_nothing_owed().await;
    assert_eq!(fake.told(), ["handshake", "isolate a 3"]);
}

#[tokio::test]
async fn a_forbidden_contribution_fails_the_launch() {
    let (world, fake) = (World::new(), Arc::new(Fake::default()));
    let _server = serve(&world.socket, &fake);
    let (plugin, _reported) = started(&world, Timeouts::default()).await;
    let mount = proto::BindMount { source: "/usr".into(), target: "/proc".into(), ..Default::default() };
    *fake.contribution.lock().unwrap() = proto::PrepareResponse { mounts: vec![mount], ..Default::default() };
    let error = prepare(&plugin, "a").await.unwrap_err();
    assert!(
        error.starts_with(
            "prepare: the plugin's contribution is not allowed: nothing may be mounted on /proc"
        ),
        "{error}"
    );
    Isolator::cleanup(&plugin, &ContainerId::new("a")).await.unwrap();
    assert_eq!(fake.told().last().unwrap(), "cleanup a");
}

/// What talks at the socket but is no plugin.
#[tokio::test]
async fn garbage_is_noticed() {
    let unary_garbage = {
        // A well-formed answer of HTTP/2 that is no gRPC would need a server; these are bytes.
        let mut frame = vec![0, 0, 0, 0, 9];
        frame.extend(proto::HandshakeResponse::default().encode_to_vec());
        frame
    };
    for bytes in [b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), vec![0xff; 4096], unary_garbage, Vec::new()] {
        let world = World::new();
        let listener = UnixListener::bind(&world.socket).unwrap();
        let talk = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.write_all(&bytes).await;
                // Silence until the other side has had enough.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
            }
        });
        let timeouts = Timeouts { handshake: SHORT, prepare: 3 * SHORT, ..Timeouts::default() };
        let (plugin, _reported) = started(&world, timeouts).await;
        let error = prepare(&plugin, "a").await.unwrap_err();
        assert!(error.starts_with("prepare: the plugin is away: handshake: "), "{error}");
        talk.abort();
    }
}

#[tokio::test]
async fn an_answer_that_is_no_message_is_noticed() {
    let world = World::new();
    let listener = UnixListener::bind(&world.socket).unwrap();
    let talk = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                // Field 1 as a varint that never ends; and for the handshake, what it should be.
                let message = match request.uri().path().ends_with("Handshake") {
                    true => handshake("mine", 1).encode_to_vec(),
                    false => vec![0x0a, 0xff, 0xff],
                };
                let mut body = vec![0];
                body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
                body.extend(message);
                let body = tonic::body::Body::new(http_body_util::Full::new(prost::bytes::Bytes::from(body)));
                let answer = http::Response::builder().header("content-type", "application/grpc").body(body);
                Ok::<_, std::convert::Infallible>(answer.unwrap())
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    let (plugin, _reported) = started(&world, Timeouts { prepare: 3 * SHORT, ..Timeouts::default() }).await;
    let error = prepare(&plugin, "a").await.unwrap_err();
    assert!(error.contains("the plugin failed, or its answer is not understood"), "{error}");
    talk.abort();
}
