//! A framework that launches tasks and times their updates.
//!
//! One task at a time for latencies, from the moment ACCEPT is sent to the moment an update's event has been
//! read; then many in flight for throughput. Every update is acknowledged at once, as a framework would.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tepui_api::MediaType;
use tepui_api::client::{Client, EventStream};
use tepui_api::v1::{self, scheduler};

use crate::report::Report;

const PATH: &str = "/api/v1/scheduler";
/// Nothing should be silent this long; the run fails then rather than hang.
const SILENCE: Duration = Duration::from_secs(120);

/// What every task is.
#[derive(Debug, Clone)]
pub struct Shape {
    /// CPUs.
    pub cpus: f64,
    /// Memory in MB.
    pub mem: f64,
    /// A Docker image's name.
    pub image: Option<String>,
    /// For /bin/sh.
    pub command: String,
    /// Whether it has a check by HTTP, which begins with it.
    pub checked: bool,
}

/// What one task's updates came at, since its ACCEPT was sent.
#[derive(Debug, Default, Clone, Copy)]
struct Times {
    sent: Option<Instant>,
    running: Option<Duration>,
    finished: Option<Duration>,
}

/// Runs both measurements and adds their rows.
///
/// # Errors
/// When the master refuses, is silent, or a task does not finish.
pub async fn measure(
    master: &str,
    shape: &Shape,
    sequential: usize,
    tasks: usize,
    inflight: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut framework = Framework::subscribe(master, shape.clone()).await?;
    if sequential > 0 {
        // The first tasks warm caches that every later one finds warm.
        framework.run(3.min(sequential), 1).await?;
        let times = framework.run(sequential, 1).await?;
        let column = |of: fn(&Times) -> Option<Duration>| times.iter().filter_map(of).collect::<Vec<_>>();
        report.latency("ACCEPT -> TASK_RUNNING, one by one", column(|t| t.running));
        report.latency("ACCEPT -> TASK_FINISHED, one by one", column(|t| t.finished));
        report.latency("ACCEPT -> TASK_RUNNING of both of a pod of two", framework.pods(sequential).await?);
        framework.shape.checked = true;
        let times = framework.run(sequential, 1).await?;
        framework.shape.checked = shape.checked;
        let running = times.iter().filter_map(|t| t.running).collect();
        report.latency("ACCEPT -> TASK_RUNNING, with a check by HTTP, one by one", running);
    }
    if tasks > 0 {
        let started = Instant::now();
        let times = framework.run(tasks, inflight).await?;
        let elapsed = started.elapsed();
        report.rate(format!("tasks, at most {inflight} in flight"), times.len(), elapsed);
        let running: Vec<_> = times.iter().filter_map(|t| t.running).collect();
        report.latency(format!("ACCEPT -> TASK_RUNNING, {inflight} in flight"), running);
    }
    framework.teardown().await
}

/// A framework that is subscribed.
pub(crate) struct Framework {
    client: Client,
    /// What the master says.
    pub(crate) events: EventStream<scheduler::Event>,
    stream: String,
    id: v1::FrameworkId,
    shape: Shape,
    launched: usize,
    suppressed: bool,
    /// Whether tasks are launched as groups of two, each under a default executor of its own.
    in_pods: bool,
}

// === impl Framework ===

impl Framework {
    /// Registers with a master.
    pub(crate) async fn subscribe(master: &str, shape: Shape) -> anyhow::Result<Self> {
        let client = Client::new(master, MediaType::Protobuf);
        let multi_role = v1::framework_info::capability::Type::MultiRole as i32;
        let info = v1::FrameworkInfo {
            user: "root".to_owned(),
            name: "tepui-bench".to_owned(),
            // Otherwise its tasks are lost when their agent disconnects.
            checkpoint: Some(true),
            roles: vec!["*".to_owned()],
            capabilities: vec![v1::framework_info::Capability { r#type: Some(multi_role) }],
            ..Default::default()
        };
        let call = scheduler::Call {
            r#type: Some(scheduler::call::Type::Subscribe as i32),
            subscribe: Some(scheduler::call::Subscribe { framework_info: info, ..Default::default() }),
            ..Default::default()
        };
        let mut events: EventStream<scheduler::Event> = client.subscribe(PATH, &call).await?;
        let first = events.next().await?;
        let subscribed = first.subscribed.context("the first event was not SUBSCRIBED")?;
        let stream = events.id.clone().context("the answer had no Mesos-Stream-Id")?;
        let id = subscribed.framework_id;
        Ok(Self { client, events, stream, id, shape, launched: 0, suppressed: false, in_pods: false })
    }

    /// Launches `count` tasks, at most `inflight` at once, and waits for their ends.
    async fn run(&mut self, count: usize, inflight: usize) -> anyhow::Result<Vec<Times>> {
        let mut times: HashMap<String, Times> = HashMap::new();
        let (mut launched, mut ended) = (0, 0);
        if std::mem::take(&mut self.suppressed) {
            let revive = self.call(scheduler::call::Type::Revive);
            self.send(revive).await?;
        }
        while ended < count {
            let event = tokio::time::timeout(SILENCE, self.events.next())
                .await
                .with_context(|| format!("no event for {SILENCE:?}: {ended} of {count} tasks had ended"))??;
            match event.r#type() {
                scheduler::event::Type::Offers => {
                    for offer in event.offers.unwrap_or_default().offers {
                        let room = (count - launched).min(inflight - (launched - ended));
                        let sent = Some(Instant::now());
                        let ids = self.answer(offer, room).await?;
                        launched += ids.len();
                        times.extend(ids.into_iter().map(|id| (id, Times { sent, ..Times::default() })));
                    }
                }
                scheduler::event::Type::Update => {
                    let now = Instant::now();
                    let Some(update) = event.update else { continue };
                    let status = update.status;
                    let Some(entry) = times.get_mut(&status.task_id.value) else { continue };
                    let since = entry.sent.map(|sent| now - sent);
                    match status.state() {
                        v1::TaskState::TaskRunning => entry.running = entry.running.or(since),
                        v1::TaskState::TaskFinished if entry.finished.is_none() => {
                            entry.finished = since;
                            ended += 1;
                        }
                        v1::TaskState::TaskStaging
                        | v1::TaskState::TaskStarting
                        | v1::TaskState::TaskFinished => {}
                        // The offer was taken back while nobody read: there will be another.
                        v1::TaskState::TaskLost
                            if status.reason() == v1::task_status::Reason::InvalidOffers =>
                        {
                            times.remove(&status.task_id.value);
                            launched -= 1;
                        }
                        other => bail!(
                            "task {} became {}: {}",
                            status.task_id,
                            other.as_str_name(),
                            status.message()
                        ),
                    }
                    self.acknowledge(status).await?;
                }
                scheduler::event::Type::Error => {
                    bail!("the master says: {}", event.error.map(|e| e.message).unwrap_or_default());
                }
                _ => {}
            }
        }
        self.suppressed = true;
        let suppress = self.call(scheduler::call::Type::Suppress);
        self.send(suppress).await?;
        Ok(times.into_values().collect())
    }

    /// Launches `count` tasks one by one, and waits for their ends; how long each took until it ran.
    pub(crate) async fn until_running(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        let times = self.run(count, 1).await?;
        Ok(times.iter().filter_map(|times| times.running).collect())
    }

    /// Launches pods of two tasks one by one; how long each took until both tasks ran.
    async fn pods(&mut self, count: usize) -> anyhow::Result<Vec<Duration>> {
        self.in_pods = true;
        let times = self.run(2 * count, 2).await;
        self.in_pods = false;
        let mut times = times?;
        times.sort_by_key(|times| times.sent);
        Ok(times.chunks(2).filter_map(|pod| pod.iter().filter_map(|times| times.running).max()).collect())
    }

    /// A group of these tasks, under an executor that the agent has built in.
    fn group(&self, agent: &v1::AgentId, tasks: Vec<v1::TaskInfo>) -> v1::offer::Operation {
        let executor = v1::ExecutorInfo {
            r#type: Some(v1::executor_info::Type::Default as i32),
            executor_id: v1::ExecutorId::new(format!("pod-{agent}-{}", self.launched)),
            framework_id: Some(self.id.clone()),
            resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0), scalar("disk", 1.0)],
            ..Default::default()
        };
        let task_group = v1::TaskGroupInfo { tasks };
        v1::offer::Operation {
            r#type: Some(v1::offer::operation::Type::LaunchGroup as i32),
            launch_group: Some(v1::offer::operation::LaunchGroup { executor, task_group }),
            ..Default::default()
        }
    }

    /// Launches up to `room` tasks on the offer; their ids.
    pub(crate) async fn answer(&mut self, offer: v1::Offer, room: usize) -> anyhow::Result<Vec<String>> {
        let total = |name: &str| -> f64 {
            offer
                .resources
                .iter()
                .filter(|r| r.name == name)
                .filter_map(|r| r.scalar.as_ref())
                .map(|s| s.value)
                .sum()
        };
        let mut fits = 0;
        let (mut cpus, mut mem) = (total("cpus"), total("mem"));
        while fits < room && cpus >= self.shape.cpus - 1e-6 && mem >= self.shape.mem - 1e-6 {
            (cpus, mem, fits) = (cpus - self.shape.cpus, mem - self.shape.mem, fits + 1);
        }
        let filters = Some(v1::Filters { refuse_seconds: Some(0.0) });
        if fits == 0 || (self.in_pods && fits < 2) {
            let mut call = self.call(scheduler::call::Type::Decline);
            call.decline = Some(scheduler::call::Decline { offer_ids: vec![offer.id], filters });
            self.send(call).await?;
            return Ok(Vec::new());
        }
        let tasks: Vec<v1::TaskInfo> = (0..fits).map(|_| self.task(&offer.agent_id)).collect();
        let ids = tasks.iter().map(|t| t.task_id.value.clone()).collect();
        let mut call = self.call(scheduler::call::Type::Accept);
        let launch = match self.in_pods {
            true => self.group(&offer.agent_id, tasks),
            false => v1::offer::Operation {
                r#type: Some(v1::offer::operation::Type::Launch as i32),
                launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
                ..Default::default()
            },
        };
        call.accept =
            Some(scheduler::call::Accept { offer_ids: vec![offer.id], operations: vec![launch], filters });
        self.send(call).await?;
        Ok(ids)
    }

    fn task(&mut self, agent: &v1::AgentId) -> v1::TaskInfo {
        self.launched += 1;
        let docker = |name: &String| v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos as i32,
            mesos: Some(v1::container_info::MesosInfo {
                image: Some(v1::Image {
                    r#type: v1::image::Type::Docker as i32,
                    docker: Some(v1::image::Docker { name: name.clone(), ..Default::default() }),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        };
        v1::TaskInfo {
            name: "bench".to_owned(),
            task_id: v1::TaskId::new(format!("bench-{}", self.launched)),
            agent_id: agent.clone(),
            resources: vec![scalar("cpus", self.shape.cpus), scalar("mem", self.shape.mem)],
            command: Some(v1::CommandInfo { value: Some(self.shape.command.clone()), ..Default::default() }),
            container: self.shape.image.as_ref().map(docker),
            check: self.shape.checked.then(check),
            ..Default::default()
        }
    }

    /// Acknowledges an update, if it wants to be.
    pub(crate) async fn acknowledge(&self, status: v1::TaskStatus) -> anyhow::Result<()> {
        let (Some(uuid), Some(agent_id)) = (status.uuid, status.agent_id) else { return Ok(()) };
        let mut call = self.call(scheduler::call::Type::Acknowledge);
        call.acknowledge = Some(scheduler::call::Acknowledge { agent_id, task_id: status.task_id, uuid });
        self.send(call).await
    }

    /// Leaves for good, with all its tasks.
    pub(crate) async fn teardown(self) -> anyhow::Result<()> {
        let call = self.call(scheduler::call::Type::Teardown);
        self.send(call).await
    }

    fn call(&self, kind: scheduler::call::Type) -> scheduler::Call {
        scheduler::Call {
            r#type: Some(kind as i32),
            framework_id: Some(self.id.clone()),
            ..Default::default()
        }
    }

    async fn send(&self, call: scheduler::Call) -> anyhow::Result<()> {
        Ok(self.client.send(PATH, &call, Some(&self.stream)).await?)
    }
}

/// A check by HTTP that begins at once. Nobody listens there: what it finds is not what is measured.
fn check() -> v1::CheckInfo {
    v1::CheckInfo {
        r#type: Some(v1::check_info::Type::Http as i32),
        http: Some(v1::check_info::Http { port: 9, path: None }),
        delay_seconds: Some(0.0),
        ..Default::default()
    }
}

fn scalar(name: &str, value: f64) -> v1::Resource {
    v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar as i32,
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    }
}
