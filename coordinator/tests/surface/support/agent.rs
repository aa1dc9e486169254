//! An agent that does as it is told: it speaks the link over HTTP/2.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tepui_api::link::{
    AgentFrame, CoordinatorFrame, Register, Registered, RunTask, StatusUpdate, agent_frame, coordinator_frame,
};
use tepui_api::recordio::{self, Decoder};
use tepui_api::resources::Resources;
use tepui_api::v1::agent_info::{Capability, capability};
use tepui_api::v1::task_status::Source;
use tepui_api::v1::{AgentId, AgentInfo, FrameworkId, Task, TaskId, TaskState, TaskStatus};
use tepui_coordinator::Running;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use uuid::Uuid;

use super::in_time;

/// A connection on which links can be opened.
pub struct Connection {
    sender: hyper::client::conn::http2::SendRequest<LinkBody>,
    driver: tokio::task::JoinHandle<()>,
}

type LinkBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// One link.
pub struct Link {
    frames: UnboundedSender<Bytes>,
    body: Incoming,
    decoder: Decoder,
}

/// What is sent next on a link that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended;

impl Connection {
    pub async fn open(running: &Running) -> Self {
        let stream = TcpStream::connect(running.address()).await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { sender, driver }
    }

    pub async fn link(&mut self) -> Result<Link, StatusCode> {
        let (frames, outgoing) = unbounded_channel::<Bytes>();
        let outgoing = futures_util::stream::unfold(outgoing, |mut outgoing| async move {
            outgoing.recv().await.map(|bytes| (Ok::<_, Infallible>(Frame::data(bytes)), outgoing))
        });
        let request = Request::post("http://coordinator/tepui/v1/link")
            .body(BodyExt::boxed_unsync(StreamBody::new(outgoing)))
            .unwrap();
        self.sender.ready().await.unwrap();
        let answer = in_time("a link", self.sender.send_request(request)).await.unwrap();
        if answer.status() != StatusCode::OK {
            return Err(answer.status());
        }
        Ok(Link { frames, body: answer.into_body(), decoder: Decoder::new() })
    }

    /// As when the machine loses its power: nothing is said.
    pub fn cut(self) {
        self.driver.abort();
    }
}

impl Link {
    pub fn send(&self, body: agent_frame::Body) {
        self.try_send(body).unwrap();
    }

    fn try_send(&self, body: agent_frame::Body) -> Result<(), Ended> {
        let frame = AgentFrame { body: Some(body) };
        self.frames.send(recordio::encode(&frame.encode_to_vec())).map_err(|_| Ended)
    }

    pub fn send_bytes(&self, bytes: &'static [u8]) {
        self.frames.send(Bytes::from_static(bytes)).unwrap();
    }

    /// The next frame other than a ping, which is answered.
    pub async fn next(&mut self) -> Result<coordinator_frame::Body, Ended> {
        loop {
            match in_time("a frame", self.any()).await? {
                // It may have ended after the ping.
                coordinator_frame::Body::Ping(number) => drop(self.try_send(agent_frame::Body::Pong(number))),
                body => return Ok(body),
            }
        }
    }

    async fn any(&mut self) -> Result<coordinator_frame::Body, Ended> {
        loop {
            if let Some(record) = self.decoder.next_record().unwrap() {
                return Ok(CoordinatorFrame::decode(record).unwrap().body.unwrap());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.decoder.push(&frame.into_data().unwrap_or_default()),
                Some(Err(_)) | None => return Err(Ended),
            }
        }
    }

    pub async fn register(&mut self, register: Register) -> Registered {
        self.send(agent_frame::Body::Register(register));
        match self.next().await.unwrap() {
            coordinator_frame::Body::Registered(registered) => registered,
            other => panic!("instead of being registered: {other:?}"),
        }
    }

    pub async fn run_task(&mut self) -> RunTask {
        match self.next().await.unwrap() {
            coordinator_frame::Body::RunTask(run) => run,
            other => panic!("instead of a task: {other:?}"),
        }
    }

    /// Sends an update that is to be acknowledged, and returns its uuid.
    pub fn update(
        &self,
        framework: &FrameworkId,
        agent: &AgentId,
        task: &TaskId,
        state: TaskState,
    ) -> Vec<u8> {
        let uuid = Uuid::new_v4().as_bytes().to_vec();
        let status = TaskStatus {
            task_id: task.clone(),
            state: state.into(),
            source: Some(Source::Executor.into()),
            agent_id: Some(agent.clone()),
            timestamp: Some(1.0),
            uuid: Some(uuid.clone()),
            ..TaskStatus::default()
        };
        self.send(agent_frame::Body::Update(StatusUpdate {
            framework_id: framework.clone(),
            status,
            latest_state: state.into(),
        }));
        uuid
    }
}

/// What an agent with these resources says first.
pub fn register(hostname: &str, resources: &str, id: Option<AgentId>, tasks: Vec<Task>) -> Register {
    let resources = Resources::parse(resources, "*").unwrap().to_wire();
    let has = |kind: capability::Type| Capability { r#type: Some(kind.into()) };
    Register {
        agent: AgentInfo {
            hostname: hostname.to_owned(),
            port: Some(5051),
            resources,
            id,
            checkpoint: Some(true),
            ..AgentInfo::default()
        },
        version: "1.11.0".to_owned(),
        capabilities: vec![
            has(capability::Type::MultiRole),
            has(capability::Type::HierarchicalRole),
            has(capability::Type::ReservationRefinement),
        ],
        instance: Uuid::new_v4().to_string(),
        address: format!("127.0.0.1:{}", 40_000 + hostname.len()),
        tasks,
        executors: Vec::new(),
        frameworks: Vec::new(),
        completed_tasks: Vec::new(),
        checkpointed_resources: Vec::new(),
        attempt: None,
    }
}
