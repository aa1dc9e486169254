//! The metrics, under Mesos' names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tepui_api::resources::Resources;
use tepui_api::v1::TaskState;
use tepui_images::Durations;

use super::Context;
use crate::core::{ExecutorLife, Life, Snapshot, Task};
use crate::sandbox::gc;

/// All metrics as they are now.
#[expect(clippy::cast_precision_loss, reason = "metrics are doubles in Mesos' API")]
pub(super) fn collect(context: &Context, snapshot: &Snapshot) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    let mut put = |name: &str, value: f64| {
        all.insert(name.to_owned(), value);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    put("slave/uptime_secs", now.saturating_sub(context.started).as_secs_f64());
    put("slave/recovery_time_secs", context.recovery.as_secs_f64());
    put("slave/recovery_errors", context.recovery_errors as f64);
    put("slave/registered", f64::from(u8::from(snapshot.registered)));
    put("slave/frameworks_active", snapshot.frameworks.active.len() as f64);

    let tasks = || snapshot.frameworks.tasks();
    // A command task counts as its executor.
    let alive = |lives: fn(&Life) -> bool, own: fn(&ExecutorLife) -> bool| {
        let command = tasks().filter(|task| task.owns_container() && lives(&task.life)).count();
        let own = snapshot.frameworks.executors().filter(|executor| own(&executor.life)).count();
        (command + own) as f64
    };
    put(
        "slave/executors_registering",
        alive(
            |life| matches!(life, Life::Preparing { .. } | Life::Starting { .. }),
            |own| {
                matches!(
                    own,
                    ExecutorLife::Preparing { .. }
                        | ExecutorLife::Starting { .. }
                        | ExecutorLife::Registering
                )
            },
        ),
    );
    let running =
        alive(|life| matches!(life, Life::Running), |own| matches!(own, ExecutorLife::Running { .. }));
    put("slave/executors_running", running);
    let terminating = alive(
        |life| matches!(life, Life::Killing(_) | Life::Ending),
        |own| matches!(own, ExecutorLife::Terminating { .. } | ExecutorLife::Ending { .. }),
    );
    put("slave/executors_terminating", terminating);
    put("slave/executors_preempted", 0.0);
    let shown = |state| tasks().filter(|task| task.state() == state).count() as f64;
    put("slave/tasks_staging", shown(TaskState::TaskStaging));
    put("slave/tasks_starting", shown(TaskState::TaskStarting));
    put("slave/tasks_running", shown(TaskState::TaskRunning));
    put("slave/tasks_killing", shown(TaskState::TaskKilling));

    let counters = snapshot.counters;
    put("slave/tasks_finished", counters.finished as f64);
    put("slave/tasks_failed", counters.failed as f64);
    put("slave/tasks_killed", counters.killed as f64);
    put("slave/tasks_lost", counters.lost as f64);
    put("slave/tasks_gone", counters.gone as f64);
    put("slave/executors_terminated", counters.terminated as f64);
    put("slave/container_launch_errors", counters.launch_errors as f64);
    put("slave/valid_status_updates", counters.updates as f64);
    put("slave/invalid_status_updates", counters.invalid_updates as f64);
    put("slave/valid_framework_messages", counters.messages as f64);
    put("slave/invalid_framework_messages", counters.invalid_messages as f64);
    put("containerizer/mesos/container_destroy_errors", counters.destroy_errors as f64);

    let on_an_image = |task: &&Arc<Task>| {
        let mesos = task.info.container.as_ref().and_then(|container| container.mesos.as_ref());
        task.has_container() && mesos.is_some_and(|mesos| mesos.image.is_some())
    };
    put("containerizer/mesos/filesystem/containers_new_rootfs", tasks().filter(on_an_image).count() as f64);

    let fetches = context.fetcher.counts();
    put("containerizer/fetcher/task_fetches_succeeded", fetches.succeeded as f64);
    put("containerizer/fetcher/task_fetches_failed", fetches.failed as f64);
    put("containerizer/fetcher/cache_size_total_bytes", fetches.cache_size as f64);
    put("containerizer/fetcher/cache_size_used_bytes", fetches.cache_used as f64);

    let removals = context.sandboxes.counts();
    put("gc/path_removals_succeeded", removals.succeeded as f64);
    put("gc/path_removals_failed", removals.failed as f64);
    put("gc/path_removals_pending", removals.pending as f64);
    if let Ok(in_use) = gc::disk_in_use(&context.settings.work_dir) {
        let (delay, headroom) = (context.settings.gc_delay.0, context.settings.gc_disk_headroom.0);
        let age = gc::max_age(delay, headroom, in_use).as_secs_f64();
        put("slave/executor_directory_max_allowed_age_secs", age);
    }
    for (name, durations) in context.backend.durations() {
        timer(name, &durations, &mut put);
    }
    resources(snapshot, &mut put);
    system(&mut put);
    all
}

/// A timer as libprocess shows it: how long the last took, and of two and more the statistics.
#[expect(clippy::cast_precision_loss, reason = "metrics are doubles in Mesos' API")]
fn timer(name: &str, durations: &Durations, put: &mut impl FnMut(&str, f64)) {
    let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
    if let Some(last) = durations.last() {
        put(name, millis(last));
    }
    if let Some(statistics) = durations.statistics() {
        put(&format!("{name}/count"), statistics.count as f64);
        put(&format!("{name}/max"), millis(statistics.max));
        put(&format!("{name}/min"), millis(statistics.min));
        for (suffix, share) in
            [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999), ("p9999", 0.9999)]
        {
            put(&format!("{name}/{suffix}"), millis(statistics.percentile(share)));
        }
    }
}

/// What there is of each resource, and how much of it tasks have.
fn resources(snapshot: &Snapshot, put: &mut impl FnMut(&str, f64)) {
    let total = Resources::from_wire_lossy(&snapshot.agent.resources);
    let used = Resources::from_wire_lossy(&snapshot.in_use());
    let amount = |of: &Resources, name: &str| of.scalar(name).map_or(0.0, |amount| amount.as_f64());
    for name in ["cpus", "disk", "gpus", "mem"] {
        for (suffix, total, used) in [
            ("", total.non_revocable(), used.non_revocable()),
            ("_revocable", total.revocable(), used.revocable()),
        ] {
            let (total, used) = (amount(&total, name), amount(&used, name));
            put(&format!("slave/{name}{suffix}_total"), total);
            put(&format!("slave/{name}{suffix}_used"), used);
            put(&format!("slave/{name}{suffix}_percent"), if total > 0.0 { used / total } else { 0.0 });
        }
    }
}

/// The machine.
#[expect(clippy::cast_precision_loss, reason = "metrics are doubles in Mesos' API")]
fn system(put: &mut impl FnMut(&str, f64)) {
    if let Ok(info) = nix::sys::sysinfo::sysinfo() {
        let (one, five, fifteen) = info.load_average();
        put("system/load_1min", one);
        put("system/load_5min", five);
        put("system/load_15min", fifteen);
        put("system/mem_total_bytes", info.ram_total() as f64);
        put("system/mem_free_bytes", info.ram_unused() as f64);
    }
    if let Ok(cpus) = std::thread::available_parallelism() {
        put("system/cpus_total", cpus.get() as f64);
    }
}
