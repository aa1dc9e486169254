//! The pretended coordinator and containers, and an agent between them.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tepui_api::client::Client;
use tepui_api::link::{AgentFrame, CoordinatorFrame, Register, agent_frame, coordinator_frame};
use tepui_api::recordio::{self, Decoder};
use tepui_api::v1::{
    CommandInfo, ContainerId, ContainerStatus, NetworkInfo, Resource, ResourceStatistics, TaskState,
    TaskStatus, task_status::Reason,
};
use tepui_isolators::cgroups::{Pressure, Share, Stall};
use tepui_shim::WindowSize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::registered;
use crate::agent::threads::Workers;
use crate::agent::{Running, StartError, start_over};
use crate::core::{ContainerEvent, Found, Launch};
use crate::flags::Settings;
use crate::shell::backend::{Backend, BoxFuture, Inside, LaunchError};
use crate::shell::guest::{Guest, Input};

/// No condition takes longer to come true.
const DEADLINE: Duration = Duration::from_secs(60);

pub struct World {
    pub coordinator: Coordinator,
    pub containers: Arc<Pretended>,
    pub agent: Option<Running>,
    pub settings: Settings,
    _dir: tempfile::TempDir,
}

impl World {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let coordinator = Coordinator::start().await;
        let settings = Settings {
            ip: std::net::Ipv4Addr::LOCALHOST,
            port: 0,
            resources: Some("cpus:2;mem:512;disk:1024;ports:[31000-31009]".into()),
            attributes: Some("rack:a".into()),
            registration_backoff_factor: "100ms".parse().unwrap(),
            ..Settings::new(coordinator.authority.clone(), dir.path().join("work"))
        };
        let containers = Arc::new(Pretended::default());
        let mut world = Self { coordinator, containers, agent: None, settings, _dir: dir };
        world.restart().await;
        world
    }

    pub async fn restart(&mut self) {
        self.try_restart().await.unwrap();
    }

    pub async fn try_restart(&mut self) -> Result<(), StartError> {
        let ends = self.containers.listen();
        self.agent = Some(
            start_over(self.settings.clone(), self.containers.clone(), ends, Workers::start().unwrap())
                .await?,
        );
        Ok(())
    }

    /// Ends the agent without a word to anybody.
    pub async fn crash(&mut self) {
        self.agent.take().unwrap().stop().await;
        self.coordinator.hang_up().await;
    }

    pub async fn stop(mut self) {
        self.agent.take().unwrap().stop().await;
    }

    /// Takes the agent in when it asks.
    pub async fn register(&mut self) -> Register {
        let register = self.coordinator.register().await;
        self.coordinator.send(registered());
        register
    }

    /// Acknowledges updates up to one with this state.
    pub async fn wait_for(&mut self, state: TaskState) {
        loop {
            let status = self.coordinator.update().await;
            self.coordinator.send(super::acknowledge(&status));
            if status.state() == state {
                return;
            }
        }
    }

    pub fn client(&self) -> Client {
        let authority = self.agent.as_ref().unwrap().address().to_string();
        Client::new(authority, tepui_api::MediaType::Json)
    }

    /// The container of a task.
    pub async fn container(&self, task: &str) -> ContainerId {
        let snapshot = self.agent.as_ref().unwrap().handle.snapshot().await.unwrap();
        let found = snapshot.frameworks.tasks().find(|t| t.key.task.value == task).unwrap();
        found.container.clone()
    }

    pub fn sandbox(&self, container: &ContainerId) -> PathBuf {
        self.containers.state.lock().unwrap().launches[container].directory.clone()
    }
}

/// A coordinator that does what the test says.
pub struct Coordinator {
    pub authority: String,
    links: mpsc::UnboundedReceiver<Link>,
    link: Option<Link>,
}

struct Link {
    frames: mpsc::UnboundedReceiver<agent_frame::Body>,
    answers: mpsc::UnboundedSender<coordinator_frame::Body>,
}

impl Coordinator {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let (opened, links) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let opened = opened.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let opened = opened.clone();
                    async move { Ok::<_, Infallible>(open(request, &opened)) }
                });
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Self { authority, links, link: None }
    }

    async fn register(&mut self) -> Register {
        loop {
            self.link = Some(tokio::time::timeout(DEADLINE, self.links.recv()).await.unwrap().unwrap());
            // A stream whose agent is gone by now brings nothing.
            if let Some(agent_frame::Body::Register(register)) = self.frame().await {
                return register;
            }
        }
    }

    pub fn send(&self, body: coordinator_frame::Body) {
        self.link.as_ref().unwrap().answers.send(body).unwrap();
    }

    async fn frame(&mut self) -> Option<agent_frame::Body> {
        let link = self.link.as_mut().unwrap();
        tokio::time::timeout(DEADLINE, link.frames.recv()).await.unwrap()
    }

    pub async fn update(&mut self) -> TaskStatus {
        loop {
            if let agent_frame::Body::Update(update) = self.frame().await.unwrap() {
                return update.status;
            }
        }
    }

    /// Ends the present stream.
    pub async fn hang_up(&mut self) {
        self.link = None;
    }
}

fn open(
    request: http::Request<hyper::body::Incoming>,
    opened: &mpsc::UnboundedSender<Link>,
) -> http::Response<tepui_api::http::Body> {
    let (sender, frames) = mpsc::unbounded_channel();
    let (answers, outgoing) = mpsc::unbounded_channel::<coordinator_frame::Body>();
    let _ = opened.send(Link { frames, answers });
    tokio::spawn(async move {
        let mut body = request.into_body();
        let mut decoder = Decoder::new();
        while let Some(Ok(frame)) = body.frame().await {
            decoder.push(frame.data_ref().unwrap());
            while let Some(record) = decoder.next_record().unwrap() {
                let _ = sender.send(AgentFrame::decode(record).unwrap().body.unwrap());
            }
        }
    });
    let records = stream::unfold(outgoing, |mut outgoing| async move {
        let body = outgoing.recv().await?;
        let record = CoordinatorFrame { body: Some(body) }.encode_to_vec();
        Some((recordio::encode(&record), outgoing))
    });
    tepui_api::http::stream("application/x-tepui-link", records)
}

/// Containers that do what their tasks' commands say: `exit N` ends at once, `sleep` when it is told to, `stubborn` not even then,
/// `refuse` cannot be made.
#[derive(Default)]
pub struct Pretended {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    launches: HashMap<ContainerId, Arc<Launch>>,
    found: HashMap<ContainerId, Found>,
    ends: Option<mpsc::UnboundedSender<(ContainerId, ContainerEvent)>>,
}

impl Pretended {
    fn listen(&self) -> mpsc::UnboundedReceiver<(ContainerId, ContainerEvent)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state.lock().unwrap().ends = Some(sender);
        receiver
    }

    pub fn found(&self, id: &ContainerId, found: Found) {
        self.state.lock().unwrap().found.insert(id.clone(), found);
    }

    pub fn exit(&self, id: &ContainerId, status: i32) {
        let event = ContainerEvent::Exited { status: Some(status), limitation: None };
        let _ = self.state.lock().unwrap().ends.as_ref().unwrap().send((id.clone(), event));
    }

    pub fn left(&self) -> usize {
        self.state.lock().unwrap().launches.len()
    }

    fn command(&self, id: &ContainerId) -> String {
        let state = self.state.lock().unwrap();
        state.launches[id].command().unwrap().value().to_owned()
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Backend for Pretended {
    fn prepare(
        &self,
        id: ContainerId,
        launch: Arc<Launch>,
    ) -> BoxFuture<'_, Result<Vec<NetworkInfo>, LaunchError>> {
        std::fs::write(launch.directory.join("stdout"), "hello\n").unwrap();
        self.state.lock().unwrap().launches.insert(id.clone(), launch);
        if self.command(&id) == "refuse" {
            let reason = Reason::ContainerLaunchFailed;
            return ready(Err(LaunchError { reason, message: "no".into() }));
        }
        ready(Ok(Vec::new()))
    }

    fn start(&self, id: ContainerId) -> BoxFuture<'_, Result<(u32, Vec<NetworkInfo>), LaunchError>> {
        if let Some(status) = self.command(&id).strip_prefix("exit ") {
            self.exit(&id, status.parse::<i32>().unwrap() << 8);
        }
        ready(Ok((4711, Vec::new())))
    }

    fn run_inside(&self, _: ContainerId, inside: Inside) -> BoxFuture<'_, Result<i32, String>> {
        // As a shell would for these.
        ready(match inside.command.value() {
            "true" => Ok(0),
            "false" => Ok(1 << 8),
            other => Err(format!("{other} cannot be run")),
        })
    }

    fn enter(
        &self,
        _: ContainerId,
        _: CommandInfo,
        _: Option<WindowSize>,
    ) -> BoxFuture<'_, Result<Guest, String>> {
        ready(Err("nobody can enter".into()))
    }

    fn terminal(&self, _: ContainerId) -> BoxFuture<'_, Result<Option<Input>, String>> {
        ready(Ok(None))
    }

    fn signal(&self, id: ContainerId, signal: i32) -> BoxFuture<'_, Result<(), String>> {
        if self.command(&id) != "stubborn" {
            self.exit(&id, signal);
        }
        ready(Ok(()))
    }

    fn destroy(&self, id: ContainerId) -> BoxFuture<'_, Result<(), String>> {
        self.state.lock().unwrap().launches.remove(&id);
        ready(Ok(()))
    }

    fn update(
        &self,
        _: ContainerId,
        _: Vec<Resource>,
        _: BTreeMap<String, f64>,
    ) -> BoxFuture<'_, Result<(), String>> {
        ready(Ok(()))
    }

    fn usage(&self, _: ContainerId) -> BoxFuture<'_, Result<ResourceStatistics, String>> {
        ready(Ok(ResourceStatistics { timestamp: 1.5, mem_rss_bytes: Some(7), ..Default::default() }))
    }

    fn pressure(&self, _: ContainerId) -> BoxFuture<'_, Result<Option<Pressure>, String>> {
        let share = Share { avg10: 1.5, avg60: 0.5, avg300: 0.25, total_micros: 2_500_000 };
        let cpu = Some(Stall { some: share, full: None });
        ready(Ok(Some(Pressure { cpu, ..Pressure::default() })))
    }

    fn status(&self, _: ContainerId) -> BoxFuture<'_, Result<ContainerStatus, String>> {
        ready(Ok(ContainerStatus::default()))
    }

    fn recover(
        &self,
        _: Vec<(ContainerId, Arc<Launch>)>,
    ) -> BoxFuture<'_, Result<HashMap<ContainerId, Found>, String>> {
        ready(Ok(self.state.lock().unwrap().found.clone()))
    }
}

/// A body that is not JSON must not be taken for one.
pub fn json(bytes: &Bytes) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}
