//! The metrics, under Mesos' names: only what is measured.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tepui_api::resources::{ResourceQuantities, Resources};
use tepui_api::v1::TaskState;

use super::Context;
use crate::core::{Connection, Core, Now, Recovered, Settings, Snapshot};
use crate::election::Leadership;
use crate::shell::RegistryStats;

/// All metrics as they are now.
pub(super) fn collect(context: &Context, state: &Snapshot) -> BTreeMap<String, f64> {
    let mut all = Metrics::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    all.put("master/uptime_secs", now.saturating_sub(context.started).as_secs_f64());
    let leads = *context.leadership.borrow() == Leadership::Own && context.lease.holds();
    all.put("master/elected", f64::from(u8::from(leads)));
    all.count("master/operator_event_stream_subscribers", context.operator_streams.load(Ordering::Relaxed));
    registry(&mut all, &context.registry);
    agents(&mut all, state);
    frameworks(&mut all, state);
    tasks(&mut all, state);
    counters(&mut all, state);
    resources(&mut all, state);
    for (name, value) in System::read().metrics() {
        all.put(name, value);
    }
    all.0
}

/// The state of a coordinator that does not lead: it knows of nothing.
pub(super) fn without_a_core(context: &Context) -> Snapshot {
    let start = Now { uptime: Duration::ZERO, wall: Duration::ZERO };
    Core::new(Settings::new((*context.info).clone()), Recovered::default(), start).snapshot()
}

/// What the machine reports, for `/system/stats.json` and the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct System {
    /// Load averages over one, five and fifteen minutes.
    pub(super) load: Option<[f64; 3]>,
    pub(super) cpus: Option<usize>,
    pub(super) mem_total_bytes: Option<u64>,
    pub(super) mem_free_bytes: Option<u64>,
}

#[derive(Default)]
struct Metrics(BTreeMap<String, f64>);

// === impl Metrics ===

impl Metrics {
    fn put(&mut self, name: impl Into<String>, value: f64) {
        self.0.insert(name.into(), value);
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are doubles in Mesos' API")]
    fn count(&mut self, name: impl Into<String>, value: usize) {
        self.put(name, value as f64);
    }

    #[expect(clippy::cast_precision_loss, reason = "metrics are doubles in Mesos' API")]
    fn counter(&mut self, name: &str, value: u64) {
        self.put(name, value as f64);
    }
}

fn registry(all: &mut Metrics, stats: &RegistryStats) {
    all.counter("registrar/queued_operations", stats.queued.load(Ordering::Relaxed));
    all.counter("registrar/registry_size_bytes", stats.bytes.load(Ordering::Relaxed));
    let micros = stats.last_write_micros.load(Ordering::Relaxed);
    if micros > 0 {
        all.put("registrar/state_store_ms", std::time::Duration::from_micros(micros).as_secs_f64() * 1000.0);
    }
}

fn agents(all: &mut Metrics, state: &Snapshot) {
    let connected = state.agents.values().filter(|agent| agent.link.is_some()).count();
    let known = state.agents.len();
    all.count("master/slaves_connected", connected);
    all.count("master/slaves_disconnected", known - connected);
    let active = state.agents.values().filter(|agent| agent.active()).count();
    all.count("master/slaves_active", active);
    all.count("master/slaves_inactive", known - active);
    all.count("master/slaves_unreachable", state.unreachable_agents.len());
}

fn frameworks(all: &mut Metrics, state: &Snapshot) {
    let connected = state.frameworks.values().filter(|framework| framework.connected()).count();
    let away = |framework: &&std::sync::Arc<crate::core::Framework>| {
        matches!(framework.connection, Connection::Disconnected { .. })
    };
    all.count("master/frameworks_connected", connected);
    all.count("master/frameworks_disconnected", state.frameworks.values().filter(away).count());
    all.count("master/frameworks_active", connected);
    all.count("master/frameworks_inactive", state.frameworks.len() - connected);
    all.count("master/outstanding_offers", state.frameworks.values().map(|f| f.offers.len()).sum());
}

fn tasks(all: &mut Metrics, state: &Snapshot) {
    let mut by_state: BTreeMap<TaskState, usize> = BTreeMap::new();
    for task in state.tasks() {
        *by_state.entry(task.state()).or_default() += 1;
    }
    for (name, task_state) in [
        ("master/tasks_staging", TaskState::TaskStaging),
        ("master/tasks_starting", TaskState::TaskStarting),
        ("master/tasks_running", TaskState::TaskRunning),
        ("master/tasks_killing", TaskState::TaskKilling),
    ] {
        all.count(name, by_state.get(&task_state).copied().unwrap_or(0));
    }
    all.count("master/tasks_unreachable", state.unreachable_tasks().count());
}

fn counters(all: &mut Metrics, state: &Snapshot) {
    let counted = &state.counters;
    for (name, value) in [
        ("master/tasks_finished", counted.tasks_finished),
        ("master/tasks_failed", counted.tasks_failed),
        ("master/tasks_killed", counted.tasks_killed),
        ("master/tasks_lost", counted.tasks_lost),
        ("master/tasks_error", counted.tasks_error),
        ("master/tasks_dropped", counted.tasks_dropped),
        ("master/tasks_gone", counted.tasks_gone),
        ("master/tasks_gone_by_operator", counted.tasks_gone_by_operator),
        ("master/messages_register_framework", counted.messages_register_framework),
        ("master/messages_kill_task", counted.messages_kill_task),
        ("master/messages_launch_tasks", counted.messages_launch_tasks),
        ("master/messages_decline_offers", counted.messages_decline_offers),
        ("master/messages_revive_offers", counted.messages_revive_offers),
        ("master/messages_suppress_offers", counted.messages_suppress_offers),
        ("master/messages_reconcile_tasks", counted.messages_reconcile_tasks),
        ("master/messages_status_update_acknowledgement", counted.messages_status_update_acknowledgement),
        ("master/messages_framework_to_executor", counted.messages_framework_to_executor),
        ("master/messages_executor_to_framework", counted.messages_executor_to_framework),
        ("master/messages_register_slave", counted.messages_register_slave),
        ("master/messages_reregister_slave", counted.messages_reregister_slave),
        ("master/messages_unregister_slave", counted.messages_unregister_slave),
        ("master/messages_status_update", counted.messages_status_update),
        ("master/valid_status_updates", counted.valid_status_updates),
        ("master/invalid_status_updates", counted.invalid_status_updates),
        ("master/valid_status_update_acknowledgements", counted.valid_status_update_acknowledgements),
        ("master/invalid_status_update_acknowledgements", counted.invalid_status_update_acknowledgements),
        ("master/valid_framework_to_executor_messages", counted.valid_framework_to_executor_messages),
        ("master/invalid_framework_to_executor_messages", counted.invalid_framework_to_executor_messages),
        ("master/valid_executor_to_framework_messages", counted.valid_executor_to_framework_messages),
        ("master/invalid_executor_to_framework_messages", counted.invalid_executor_to_framework_messages),
        ("master/slave_registrations", counted.slave_registrations),
        ("master/slave_reregistrations", counted.slave_reregistrations),
        ("master/slave_removals", counted.slave_removals),
        ("master/slave_removals/reason_unhealthy", counted.slave_removals_reason_unhealthy),
        ("master/slave_removals/reason_unregistered", counted.slave_removals_reason_unregistered),
        ("master/slave_removals/reason_registered", counted.slave_removals_reason_registered),
        ("master/recovery_slave_removals", counted.recovery_slave_removals),
        ("master/slave_unreachable_scheduled", counted.slave_unreachable_scheduled),
        ("master/slave_unreachable_canceled", counted.slave_unreachable_canceled),
        ("master/slave_unreachable_completed", counted.slave_unreachable_completed),
        ("allocator/mesos/allocation_runs", counted.allocation_runs),
    ] {
        all.counter(name, value);
    }
}

fn resources(all: &mut Metrics, state: &Snapshot) {
    let (total, revocable_total) = split(state.agents.values().map(|agent| agent.total.clone()));
    let (used, revocable_used) = split(state.agents.values().map(|agent| agent.allocated()));
    let (offered, _) = split(state.agents.values().map(|agent| agent.offered.clone()));
    for name in ["cpus", "gpus", "mem", "disk"] {
        let amount = |of: &ResourceQuantities| of.get(&name.into()).as_f64();
        for (kind, total, used) in [("", &total, &used), ("_revocable", &revocable_total, &revocable_used)] {
            let (total, used) = (amount(total), amount(used));
            all.put(format!("master/{name}{kind}_total"), total);
            all.put(format!("master/{name}{kind}_used"), used);
            all.put(format!("master/{name}{kind}_percent"), if total > 0.0 { used / total } else { 0.0 });
        }
        // Mesos' allocator has no such metrics for GPUs.
        if name == "gpus" {
            continue;
        }
        all.put(format!("allocator/mesos/resources/{name}/total"), amount(&total));
        let taken = amount(&used) + amount(&offered);
        all.put(format!("allocator/mesos/resources/{name}/offered_or_allocated"), taken);
    }
}

/// Sums of what is kept and of what may be taken back.
fn split(resources: impl Iterator<Item = Resources>) -> (ResourceQuantities, ResourceQuantities) {
    let (mut firm, mut revocable) = (ResourceQuantities::new(), ResourceQuantities::new());
    for resources in resources {
        firm += &resources.non_revocable().scalar_quantities();
        revocable += &resources.revocable().scalar_quantities();
    }
    (firm, revocable)
}

// === impl System ===

impl System {
    /// Asks the kernel.
    pub(super) fn read() -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| {
            let mut numbers = text.split_whitespace().map_while(|word| word.parse::<f64>().ok());
            Some([numbers.next()?, numbers.next()?, numbers.next()?])
        });
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let bytes = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes =
                line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>().ok()?;
            kilobytes.checked_mul(1024)
        };
        Self {
            load,
            cpus: std::thread::available_parallelism().ok().map(usize::from),
            mem_total_bytes: bytes("MemTotal"),
            mem_free_bytes: bytes("MemFree"),
        }
    }

    fn metrics(self) -> impl Iterator<Item = (&'static str, f64)> {
        #[expect(clippy::cast_precision_loss, reason = "metrics are doubles in Mesos' API")]
        let known = [
            ("system/load_1min", self.load.map(|load| load[0])),
            ("system/load_5min", self.load.map(|load| load[1])),
            ("system/load_15min", self.load.map(|load| load[2])),
            ("system/cpus_total", self.cpus.map(|cpus| cpus as f64)),
            ("system/mem_total_bytes", self.mem_total_bytes.map(|bytes| bytes as f64)),
            ("system/mem_free_bytes", self.mem_free_bytes.map(|bytes| bytes as f64)),
        ];
        known.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}
