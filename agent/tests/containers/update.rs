//! A running container gets other resources: in force at once, without a pause, also for the next agent, and never half of them.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tepui_agent::containerizer::{ContainerConfig, Found, UpdateError};
use tepui_api::resources::Resources;
use tepui_api::v1::{ContainerId, Resource};
use tepui_isolators::{Answer, Custom, Isolator, IsolatorError, Limits, Recovered, done};

use crate::support::{Context, DEADLINE, Host, cgroup_file, scalar, stderr, stdout, until};

const ISOLATION: [&str; 5] = ["cgroups/cpu", "cgroups/mem", "disk/du", "filesystem/linux", "namespaces/pid"];

/// Counts its rounds and, by its own clock in hundredths of a second, the longest time between two of them.
const BUSY: &str = r#"
    gap=0 rounds=0 last=
    echo begun
    while [ ! -e stop ]; do
        read -r up rest < /proc/uptime
        now=${up%.*}${up#*.}
        [ -n "$last" ] && [ $((now - last)) -gt $gap ] && gap=$((now - last))
        last=$now rounds=$((rounds + 1))
    done
    echo $rounds $gap
"#;

/// Remembers what it is told, and fails to update to three CPUs.
#[derive(Default)]
struct Notes {
    recovered: Mutex<Vec<String>>,
    updates: Mutex<Vec<String>>,
}

impl Isolator for Notes {
    fn name(&self) -> &str {
        "notes"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        let told = |one: &Recovered| format!("{} {:?}", one.context.requests, one.context.limits);
        self.recovered.lock().unwrap().extend(known.iter().map(told));
        done(Ok(()))
    }

    fn update<'a>(&'a self, _: &'a ContainerId, requests: &'a Resources, limits: &'a Limits) -> Answer<'a> {
        self.updates.lock().unwrap().push(format!("{requests} {limits:?}"));
        let too_many = requests.cpus().is_some_and(|cpus| cpus.as_f64() == 3.0);
        done(if too_many { Err(IsolatorError::Failed("three are too many".to_owned())) } else { Ok(()) })
    }
}

fn host(context: &Context) -> (Host, Arc<Notes>) {
    let notes = Arc::new(Notes::default());
    let same = Arc::clone(&notes);
    (
        context
            .host_with_own(&ISOLATION, vec![Custom::always("notes", move |_| Ok(same as Arc<dyn Isolator>))]),
        notes,
    )
}

fn amounts(cpus: f64, mem: f64) -> Vec<Resource> {
    vec![scalar("cpus", cpus), scalar("mem", mem), scalar("disk", 64.0)]
}

/// What the kernel holds: weight, CPU time in microseconds per 100 ms (-1: all there is), soft and hard limit of memory in MB.
fn in_force(context: &Context, id: &str) -> (u64, i64, u64, u64) {
    let number = |names: &[&str]| cgroup_file(context, id, names).parse::<u64>().unwrap();
    let weight = number(&["cpu.shares", "cpu.weight"]);
    let quota = cgroup_file(context, id, &["cpu.cfs_quota_us", "cpu.max"]);
    let quota = quota.split(' ').next().unwrap().parse().unwrap_or(-1);
    let soft = number(&["memory.soft_limit_in_bytes", "memory.low"]) >> 20;
    (weight, quota, soft, number(&["memory.limit_in_bytes", "memory.max"]) >> 20)
}

/// The weight of whole CPUs on this host.
fn weight(cpus: u64) -> u64 {
    if fs::exists("/sys/fs/cgroup/cpu").unwrap() { 1024 * cpus } else { 100 * cpus }
}

/// How long a process has been on a CPU or waiting for one, and how often it gave one up by itself (as what is stopped or frozen does).
fn scheduled(pid: u32) -> (Duration, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    let nanos: u64 = text.split_whitespace().take(2).map(|text| text.parse::<u64>().unwrap()).sum();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    (Duration::from_nanos(nanos), switches.unwrap().trim().parse().unwrap())
}

/// The program of a container, whose first process is an init.
fn program(init: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

pub fn limits_change_under_a_busy_process_without_a_pause(context: &Context) {
    context.run(async {
        let (host, _) = host(context);
        let mut config = context.shell("busy", BUSY);
        config.resources = amounts(8.0, 64.0);
        let init = host.start(&config).await;
        until("it runs", || stdout(&config) == "begun\n").await;
        let pid = program(init);
        let update = async |cpus: f64, mem: f64, limits: &[(&str, f64)]| {
            let limits = limits.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect();
            host.containerizer.update(&config.container_id, &amounts(cpus, mem), &limits).await.unwrap();
            in_force(context, "busy")
        };

        let (began, before) = (Instant::now(), scheduled(pid));
        let mut mem = 64;
        while mem < 264 {
            mem += 1;
            let cpus = 4 + mem % 5;
            let now = update(cpus as f64, mem as f64, &[]).await;
            assert_eq!(now, (weight(cpus), cpus as i64 * 100_000, mem, mem));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Waiting that is under way is not in the sum yet: one look while the program runs is what counts.
        let enough = Duration::from_millis(100);
        let mut lost = Duration::MAX;
        let mut given_up = 0;
        let looks = Instant::now();
        while lost > enough && looks.elapsed() < DEADLINE / 3 {
            let (wall, after) = (began.elapsed(), scheduled(pid));
            lost = lost.min(wall.saturating_sub(after.0 - before.0));
            given_up = after.1 - before.1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fs::write(config.sandbox.join("stop"), "").unwrap();
        let exited = host.exit().await;
        assert_eq!(exited.status, Some(0), "{}", stderr(&config));
        let own: Vec<u64> =
            stdout(&config).lines().last().unwrap().split(' ').map(|text| text.parse().unwrap()).collect();
        println!("200 updates: {} rounds, longest gap {} ms by the program's clock; {lost:?} neither running nor ready, {given_up} times given up", own[0], own[1] * 10);
        // A stop for each update, however short, has it give up the CPU some dozens of times. A busy neighbour may take the CPU for a while, but makes nobody give it up.
        assert!(given_up < 5, "the program was stopped {given_up} times");
        assert!(lost <= enough, "the program could not run for {lost:?}");
        assert!(own[1] < 200, "no round for {} ms", own[1] * 10);
        host.containerizer.destroy(&config.container_id).await.unwrap();
    });
}

pub fn limits_beyond_the_requests_are_set_and_lifted(context: &Context) {
    context.run(async {
        let (host, _) = host(context);
        let config = context.shell("lifted", "sleep 600");
        host.start(&config).await;
        let limits = |cpus, mem| Limits::from([("cpus".to_owned(), cpus), ("mem".to_owned(), mem)]);
        let update = async |limits: &Limits| {
            let new = amounts(1.0, 64.0);
            host.containerizer.update(&config.container_id, &new, limits).await.unwrap();
            let usage = host.containerizer.usage(&config.container_id).await.unwrap();
            (in_force(context, "lifted"), usage)
        };
        let (now, usage) = update(&limits(1.5, 128.0)).await;
        assert_eq!(now, (weight(1), 150_000, 64, 128));
        assert_eq!((usage.cpus_soft_limit, usage.cpus_limit), (Some(1.0), Some(1.5)));
        assert_eq!((usage.mem_soft_limit_bytes, usage.mem_limit_bytes), (Some(64 << 20), Some(128 << 20)));
        let (now, usage) = update(&limits(f64::INFINITY, f64::INFINITY)).await;
        assert_eq!((now.0, now.1, now.2), (weight(1), -1, 64));
        assert!(usage.cpus_limit.unwrap() >= 1.0 && usage.mem_limit_bytes.unwrap() > 128 << 20);
        let (now, _) = update(&Limits::new()).await;
        assert_eq!(
            (now.0, now.1, now.2),
            (weight(1), 100_000, 64),
            "the hard limit of memory is not lowered"
        );
        host.containerizer.destroy(&config.container_id).await.unwrap();
        let gone = host.containerizer.update(&config.container_id, &amounts(1.0, 64.0), &Limits::new()).await;
        assert!(matches!(gone, Err(UpdateError::Unknown(_))), "{gone:?}");
    });
}

async fn recover(host: &Host, config: &ContainerConfig, pid: u32) {
    let found = host.containerizer.recover(vec![config.clone()]).await.unwrap();
    assert_eq!(found[&config.container_id], Found::Running { pid });
}

pub fn an_update_survives_the_agent(context: &Context) {
    context.run(async {
        let (first, _) = host(context);
        // With what it began with, which is all that an agent's own store knows.
        let config = context.shell("kept", "sleep 600");
        let pid = first.start(&config).await;
        let limits = Limits::from([("cpus".to_owned(), f64::INFINITY)]);
        first.containerizer.update(&config.container_id, &amounts(2.0, 96.0), &limits).await.unwrap();
        let before = in_force(context, "kept");
        drop(first);

        let (second, notes) = host(context);
        recover(&second, &config, pid).await;
        let told = notes.recovered.lock().unwrap().clone();
        assert_eq!(told, [format!("{} {limits:?}", Resources::from_wire_lossy(&amounts(2.0, 96.0)))]);
        assert_eq!(in_force(context, "kept"), before);
        assert!(notes.updates.lock().unwrap().is_empty(), "it was complete");
        let usage = second.containerizer.usage(&config.container_id).await.unwrap();
        assert_eq!((usage.cpus_soft_limit, usage.mem_limit_bytes), (Some(2.0), Some(96 << 20)));
        second.containerizer.destroy(&config.container_id).await.unwrap();
    });
}

/// As though the agent had been killed after it wrote down what it was about to do.
pub fn an_update_that_was_begun_is_finished_by_the_next_agent(context: &Context) {
    context.run(async {
        let (first, _) = host(context);
        let config = context.shell("begun", "sleep 600");
        let pid = first.start(&config).await;
        first.containerizer.update(&config.container_id, &amounts(1.0, 80.0), &Limits::new()).await.unwrap();
        drop(first);
        let file = context.dir.join("run/containers/begun/resources.json");
        let text = fs::read_to_string(&file).unwrap();
        let other = text.replace("80.0", "112.0").replace(r#""settled":true"#, r#""settled":false"#);
        assert_ne!(other.replace("112.0", "80.0"), text, "{text}");
        fs::write(&file, &other).unwrap();

        let (second, notes) = host(context);
        recover(&second, &config, pid).await;
        assert_eq!(notes.updates.lock().unwrap().len(), 1);
        assert_eq!(in_force(context, "begun"), (weight(1), 100_000, 112, 112));
        assert_eq!(fs::read_to_string(&file).unwrap(), other.replace("false", "true"));
        second.containerizer.destroy(&config.container_id).await.unwrap();
    });
}

pub fn an_isolator_that_fails_leaves_the_former_resources_in_force(context: &Context) {
    context.run(async {
        let (first, notes) = host(context);
        let config = context.shell("failed", "sleep 600");
        let pid = first.start(&config).await;
        first.containerizer.update(&config.container_id, &amounts(2.0, 96.0), &Limits::new()).await.unwrap();
        let before = in_force(context, "failed");
        let error =
            first.containerizer.update(&config.container_id, &amounts(3.0, 96.0), &Limits::new()).await;
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "isolator 'notes' failed: three are too many; the former resources are in force");
        assert_eq!(in_force(context, "failed"), before);
        let usage = first.containerizer.usage(&config.container_id).await.unwrap();
        assert_eq!((usage.cpus_soft_limit, usage.cpus_limit), (Some(2.0), Some(2.0)));
        let last = notes.updates.lock().unwrap().last().cloned().unwrap();
        assert!(last.contains("cpus(*):2") || last.contains("cpus:2"), "{last}");
        drop(first);
        let (second, notes) = host(context);
        recover(&second, &config, pid).await;
        assert!(notes.updates.lock().unwrap().is_empty(), "there is nothing to finish");
        assert_eq!(in_force(context, "failed"), before);
        second.containerizer.destroy(&config.container_id).await.unwrap();
    });
}
