//! `tepui run` as a framework: subscribes, takes offers for its instances, acknowledges updates, kills on
//! Ctrl-C, and ends when every instance has.
//!
//! It speaks only the v1 scheduler API, so that it runs against any Mesos-compatible master.

use std::collections::BTreeMap;
use std::time::Duration;

use tepui_api::MediaType;
use tepui_api::client::{Client, ClientError, EventStream};
use tepui_api::v1::{self, scheduler};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::args::RunArgs;
use super::fit;
use super::leader::Coordinator;
use super::output::Follower;
use super::progress::PullProgress;
use super::task::{self, EXIT_INTERRUPTED, TaskError};

const PATH: &str = "/api/v1/scheduler";
/// How long a coordinator may be away before the run gives up; also the framework's failover time-out.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(250);
/// After this long without a fitting offer, say so.
const WAITING_NOTE: Duration = Duration::from_secs(5);

/// Why a run ended without an exit code of the task.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The task could not be described.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The coordinator does not answer.
    #[error("the coordinator does not answer: {0}")]
    Client(#[from] ClientError),
    /// Nobody leads.
    #[error("no coordinator leads, as far as ZooKeeper knows; waited {0:?} for one")]
    NoLeader(Duration),
    /// The coordinator refused the framework.
    #[error("the coordinator refused: {0}")]
    Refused(String),
}

/// One subscription.
struct Subscription {
    client: Client,
    stream: String,
    events: EventStream<scheduler::Event>,
}

struct Instance {
    /// Where it has been launched.
    authority: Option<String>,
    ended: watch::Sender<bool>,
    output: Option<JoinHandle<()>>,
    progress: Option<PullProgress>,
    exit_code: Option<i32>,
}

/// A run from its subscription to its end.
pub struct Run {
    args: RunArgs,
    framework: v1::FrameworkInfo,
    template: v1::TaskInfo,
    waiting: Vec<v1::TaskId>,
    instances: BTreeMap<v1::TaskId, Instance>,
    interrupted: bool,
}

// === impl Run ===

impl Run {
    /// Prepares what will be launched.
    ///
    /// # Errors
    /// When the arguments make no sense.
    pub fn new(args: RunArgs) -> Result<Self, RunError> {
        let base = args.name.clone().unwrap_or_else(|| default_name(&args));
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let ids: Vec<v1::TaskId> = (0..args.instances)
            .map(|n| match args.instances {
                1 => v1::TaskId::new(format!("{base}.{}", &unique[..8])),
                _ => v1::TaskId::new(format!("{base}.{}.{n}", &unique[..8])),
            })
            .collect();
        let instances = ids.iter().map(|id| (id.clone(), Instance::new())).collect();
        let template = task::template(&args, &base)?;
        let framework = framework_info(&args, &base);
        Ok(Self { args, framework, template, waiting: ids, instances, interrupted: false })
    }

    /// Runs to the end; the exit code.
    ///
    /// # Errors
    /// When the coordinator is gone for good, or refuses.
    pub async fn run(mut self, mut coordinator: Coordinator) -> Result<i32, RunError> {
        let mut subscription = self.subscribe(&mut coordinator).await?;
        let mut interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).ok();
        let mut terminations = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
        let mut note = Some(Instant::now() + WAITING_NOTE);
        while self.instances.values().any(|instance| instance.exit_code.is_none()) {
            let noted = note.unwrap_or_else(Instant::now);
            tokio::select! {
                event = subscription.events.next() => match event {
                    Ok(event) => self.on_event(&subscription, event).await?,
                    Err(error) => {
                        self.say(&format!("lost the coordinator ({error}); subscribing again"));
                        subscription = self.subscribe(&mut coordinator).await?;
                        self.reconcile(&subscription).await?;
                    }
                },
                () = coordinator.moved() => {
                    self.say("another coordinator leads; subscribing to it");
                    subscription = self.subscribe(&mut coordinator).await?;
                    self.reconcile(&subscription).await?;
                }
                Some(()) = received(&mut interrupts) => if self.interrupt(&subscription).await? { break },
                Some(()) = received(&mut terminations) => if self.interrupt(&subscription).await? { break },
                () = tokio::time::sleep_until(noted), if note.is_some() => {
                    note = None;
                    if !self.waiting.is_empty() {
                        self.say(&format!(
                            "waiting for an offer of {} cpus, {} MB memory and {} MB disk for role {}",
                            self.args.cpus, self.args.mem, self.args.disk, self.args.role
                        ));
                    }
                }
            }
        }
        self.finish(&subscription).await
    }

    /// Subscribes, following redirects to the leader, as long as there is patience.
    async fn subscribe(&mut self, coordinator: &mut Coordinator) -> Result<Subscription, RunError> {
        let started = Instant::now();
        let mut redirected = None;
        loop {
            let at = match redirected.take() {
                Some(leader) => leader,
                None => coordinator.find(PATIENCE).await.ok_or(RunError::NoLeader(PATIENCE))?,
            };
            let error = match self.try_subscribe(&at).await {
                Ok(subscription) => return Ok(subscription),
                Err(error) => error,
            };
            // A first subscription that cannot be made is told at once; a lost one is worth waiting for.
            let lasting = self.framework.id.is_some() || coordinator.is_elected();
            let retriable = lasting && started.elapsed() < PATIENCE;
            match error {
                RunError::Client(ClientError::Status { location: Some(location), .. })
                    if started.elapsed() < PATIENCE =>
                {
                    redirected = authority_of(&location);
                }
                RunError::Client(_) if retriable => {
                    tokio::time::sleep(RETRY).await;
                }
                error => return Err(error),
            }
        }
    }

    async fn try_subscribe(&mut self, authority: &str) -> Result<Subscription, RunError> {
        let client = Client::new(authority, MediaType::Protobuf);
        let call = scheduler::Call {
            r#type: Some(scheduler::call::Type::Subscribe as i32),
            framework_id: self.framework.id.clone(),
            subscribe: Some(scheduler::call::Subscribe {
                framework_info: self.framework.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut events: EventStream<scheduler::Event> = client.subscribe(PATH, &call).await?;
        let first = events.next().await?;
        if let Some(error) = first.error {
            return Err(RunError::Refused(error.message));
        }
        let subscribed = first.subscribed.unwrap_or_default();
        self.framework.id = Some(subscribed.framework_id);
        let stream = events.id.clone().unwrap_or_default();
        Ok(Subscription { client, stream, events })
    }

    async fn on_event(&mut self, to: &Subscription, event: scheduler::Event) -> Result<(), RunError> {
        match event.r#type() {
            scheduler::event::Type::Offers => {
                for offer in event.offers.unwrap_or_default().offers {
                    self.on_offer(to, offer).await?;
                }
            }
            scheduler::event::Type::Update => {
                if let Some(update) = event.update {
                    self.on_update(to, update.status).await?;
                }
            }
            scheduler::event::Type::Error => {
                return Err(RunError::Refused(event.error.map(|e| e.message).unwrap_or_default()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Launches as many instances as the offer holds, and declines what is left over.
    async fn on_offer(&mut self, to: &Subscription, offer: v1::Offer) -> Result<(), RunError> {
        let wanted = [("cpus", self.args.cpus), ("mem", self.args.mem), ("disk", self.args.disk)];
        let mut free = offer.resources.clone();
        let mut tasks = Vec::new();
        while let Some(id) = self.waiting.last().cloned() {
            let Some(taken) = fit::take(&mut free, &wanted) else { break };
            self.waiting.pop();
            let mut task = self.template.clone();
            task.task_id = id.clone();
            task.agent_id = offer.agent_id.clone();
            task.resources = taken;
            tasks.push(task);
            let authority = agent_authority(&offer);
            if let Some(instance) = self.instances.get_mut(&id) {
                if let (Some(image), false) = (&self.args.image, self.args.quiet) {
                    instance.progress = Some(PullProgress::show(&authority, image));
                }
                instance.authority = Some(authority);
            }
        }
        let filters =
            Some(v1::Filters { refuse_seconds: Some(if self.waiting.is_empty() { 3600.0 } else { 1.0 }) });
        let mut call = self.call(scheduler::call::Type::Decline);
        if tasks.is_empty() {
            call.decline = Some(scheduler::call::Decline { offer_ids: vec![offer.id], filters });
        } else {
            let launch = v1::offer::Operation {
                r#type: Some(v1::offer::operation::Type::Launch as i32),
                launch: Some(v1::offer::operation::Launch { task_infos: tasks }),
                ..Default::default()
            };
            call.r#type = Some(scheduler::call::Type::Accept as i32);
            call.accept = Some(scheduler::call::Accept {
                offer_ids: vec![offer.id],
                operations: vec![launch],
                filters,
            });
        }
        self.send(to, call).await?;
        if self.waiting.is_empty() {
            let suppress = self.call(scheduler::call::Type::Suppress);
            self.send(to, suppress).await?;
        }
        Ok(())
    }

    async fn on_update(&mut self, to: &Subscription, status: v1::TaskStatus) -> Result<(), RunError> {
        if let (Some(uuid), Some(agent_id)) = (status.uuid.clone(), status.agent_id.clone()) {
            let mut call = self.call(scheduler::call::Type::Acknowledge);
            let task_id = status.task_id.clone();
            call.acknowledge = Some(scheduler::call::Acknowledge { agent_id, task_id, uuid });
            self.send(to, call).await?;
        }
        let several = self.args.instances > 1;
        let quiet = self.args.quiet;
        let framework = self.framework.id.clone().unwrap_or_default();
        let Some(instance) = self.instances.get_mut(&status.task_id) else { return Ok(()) };
        if status.state() != v1::TaskState::TaskStaging {
            instance.progress = None;
        }
        let ended = task::is_terminal(status.state());
        let ran = matches!(status.state(), v1::TaskState::TaskRunning)
            || (ended && status.container_status.is_some());
        if let (None, true, Some(authority)) = (&instance.output, ran, &instance.authority) {
            let prefix = several.then(|| format!("[{}] ", status.task_id));
            let follower = Follower::new(authority, &framework, &status.task_id, prefix);
            let ended = instance.ended.subscribe();
            instance.output = Some(tokio::spawn(async move {
                if let Err(error) = follower.follow(ended).await {
                    eprintln!("tepui: the rest of the output could not be read: {error}");
                }
            }));
        }
        if ended && instance.exit_code.is_none() {
            let code = task::exit_code(&status);
            instance.exit_code = Some(code);
            let _ = instance.ended.send(true);
            let by_itself = status.message().starts_with("Command exited with status");
            if code != 0 && !quiet && (several || !by_itself) {
                eprintln!(
                    "tepui: task {} ended as {}: {}",
                    status.task_id,
                    status.state().as_str_name(),
                    status.message()
                );
            }
        }
        Ok(())
    }

    /// Kills what runs. True when there is nothing to wait for, or the user asked twice.
    async fn interrupt(&mut self, to: &Subscription) -> Result<bool, RunError> {
        if self.interrupted {
            return Ok(true);
        }
        self.interrupted = true;
        self.waiting.clear();
        let mut launched = false;
        let ids: Vec<v1::TaskId> = self.instances.keys().cloned().collect();
        for id in ids {
            let Some(instance) = self.instances.get_mut(&id) else { continue };
            if instance.authority.is_none() {
                instance.exit_code = Some(EXIT_INTERRUPTED);
            } else if instance.exit_code.is_none() {
                launched = true;
                let mut call = self.call(scheduler::call::Type::Kill);
                call.kill = Some(scheduler::call::Kill { task_id: id, ..Default::default() });
                self.send(to, call).await?;
            }
        }
        self.say("killing the task; Ctrl-C again leaves it to the coordinator");
        Ok(!launched)
    }

    /// Asks for the state of what had been launched before the coordinator went away.
    async fn reconcile(&mut self, to: &Subscription) -> Result<(), RunError> {
        let mut call = self.call(scheduler::call::Type::Reconcile);
        let launched = self.instances.iter().filter(|(_, i)| i.authority.is_some() && i.exit_code.is_none());
        let tasks: Vec<_> = launched
            .map(|(id, _)| scheduler::call::reconcile::Task { task_id: id.clone(), agent_id: None })
            .collect();
        if tasks.is_empty() {
            return Ok(());
        }
        call.reconcile = Some(scheduler::call::Reconcile { tasks });
        self.send(to, call).await
    }

    async fn finish(mut self, to: &Subscription) -> Result<i32, RunError> {
        for instance in self.instances.values_mut() {
            instance.progress = None;
            if instance.exit_code.is_some()
                && let Some(output) = instance.output.take()
            {
                let _ = output.await;
            }
        }
        let teardown = self.call(scheduler::call::Type::Teardown);
        self.send(to, teardown).await?;
        if self.interrupted {
            return Ok(EXIT_INTERRUPTED);
        }
        let codes = self.instances.values().filter_map(|instance| instance.exit_code);
        Ok(codes.into_iter().find(|code| *code != 0).unwrap_or(0))
    }

    fn call(&self, kind: scheduler::call::Type) -> scheduler::Call {
        scheduler::Call {
            r#type: Some(kind as i32),
            framework_id: self.framework.id.clone(),
            ..Default::default()
        }
    }

    async fn send(&self, to: &Subscription, call: scheduler::Call) -> Result<(), RunError> {
        match to.client.send(PATH, &call, Some(&to.stream)).await {
            Ok(()) => Ok(()),
            // A broken connection shows on the event stream too, and the loop subscribes again there.
            Err(ClientError::Connection { .. }) => Ok(()),
            Err(ClientError::Status { status, .. }) if matches!(status.as_u16(), 307 | 403 | 503) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn say(&self, what: &str) {
        if !self.args.quiet {
            eprintln!("tepui: {what}");
        }
    }
}

// === impl Instance ===

impl Instance {
    fn new() -> Self {
        Self {
            authority: None,
            ended: watch::Sender::new(false),
            output: None,
            progress: None,
            exit_code: None,
        }
    }
}

async fn received(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

fn framework_info(args: &RunArgs, name: &str) -> v1::FrameworkInfo {
    use v1::framework_info::capability::Type as Capability;
    let capabilities = [
        Capability::MultiRole,
        Capability::PartitionAware,
        Capability::TaskKillingState,
        Capability::ReservationRefinement,
    ];
    v1::FrameworkInfo {
        user: args.user.clone().unwrap_or_else(current_user),
        name: format!("tepui run {name}"),
        roles: vec![args.role.clone()],
        failover_timeout: Some(PATIENCE.as_secs_f64()),
        checkpoint: Some(true),
        capabilities: capabilities
            .into_iter()
            .map(|c| v1::framework_info::Capability { r#type: Some(c as i32) })
            .collect(),
        ..Default::default()
    }
}

fn current_user() -> String {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

fn default_name(args: &RunArgs) -> String {
    let word = args.command.first().or(args.image.as_ref()).map_or("task", String::as_str);
    let last = word.rsplit('/').next().unwrap_or_default();
    let safe: String =
        last.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).take(40).collect();
    if safe.is_empty() { "task".to_owned() } else { safe }
}

fn agent_authority(offer: &v1::Offer) -> String {
    let address = offer.url.as_ref().map(|url| &url.address);
    match address {
        Some(address) => format!("{}:{}", address.ip.as_deref().unwrap_or(&offer.hostname), address.port),
        None => format!("{}:5051", offer.hostname),
    }
}

/// The host:port of a redirect, such as `//10.0.0.1:5050` or `http://10.0.0.1:5050/api/v1/scheduler`.
pub(crate) fn authority_of(location: &str) -> Option<String> {
    let (_, rest) = location.split_once("//")?;
    rest.split('/').next().filter(|a| !a.is_empty()).map(str::to_owned)
}
