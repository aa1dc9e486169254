//! Agents that start anew on a machine, or as a machine, that is not quite what it was.

use super::*;
use crate::core::{End, Ticket, Write};
use crate::flags::{ReconfigurationPolicy, Recover};
use crate::store::Store;
use tepui_api::v1::{DrainConfig, DurationInfo};

impl World {
    /// Runs a task and kills the agent.
    async fn crash_with_a_task(&mut self) -> tepui_api::v1::ContainerId {
        self.register().await;
        self.coordinator.send(run("t", "sleep"));
        self.wait_for(TaskRunning).await;
        let container = self.container("t").await;
        self.crash().await;
        self.containers.found(&container, Found::Running { pid: 1, networks: vec![] });
        container
    }

    /// Writes into the store of an agent that is not there.
    fn write(&self, write: Write) {
        let (confirm, confirmed) = std::sync::mpsc::channel();
        let (store, _) =
            Store::open(&self.settings.work_dir, true, move |ticket| confirm.send(ticket).unwrap()).unwrap();
        store.submit(Ticket(0), vec![write]);
        confirmed.recv_timeout(Duration::from_secs(60)).unwrap();
    }

    async fn metric(&self, name: &str) -> f64 {
        let client = self.client();
        let answer = client.get("/metrics/snapshot").await.unwrap();
        world::json(&answer)[name].as_f64().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_resources_are_refused_with_the_policy_that_would_allow_them() {
    let mut world = World::start().await;
    world.crash_with_a_task().await;
    for (resources, policy) in
        [("cpus:99;mem:1", "any"), ("cpus:99;mem:512;disk:1024;ports:[31000-31009]", "additive")]
    {
        world.settings.resources = Some(resources.into());
        let error = world.try_restart().await.unwrap_err().to_string();
        assert!(error.contains("cpus:99"), "{error}");
        assert!(error.contains(&format!("--reconfiguration_policy={policy}")), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_allowed_is_told_and_is_what_the_next_one_is_compared_with() {
    let mut world = World::start().await;
    let container = world.crash_with_a_task().await;
    world.settings.resources = Some("cpus:4;mem:512;disk:1024;ports:[31000-31009]".into());
    world.settings.reconfiguration_policy = ReconfigurationPolicy::Additive;
    world.restart().await;
    let register = world.register().await;
    assert_eq!((register.agent.id, register.tasks.len()), (Some("A".into()), 1));
    let total = tepui_api::resources::Resources::from_wire_lossy(&register.agent.resources);
    assert_eq!(total.cpus().unwrap().as_f64(), 4.0);
    world.containers.exit(&container, 0);
    world.updates_of("t").await;
    world.crash().await;
    world.settings.reconfiguration_policy = ReconfigurationPolicy::Equal;
    world.restart().await;
    world.register().await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_the_machine_tasks_have_failed_and_the_id_stays() {
    let mut world = World::start().await;
    world.crash_with_a_task().await;
    world.write(Write::BootId("another".into()));
    world.restart().await;
    assert_eq!(world.register().await.agent.id, Some("A".into()));
    let updates = world.updates_of("t").await;
    let last = updates.last().unwrap();
    assert_eq!((last.state(), last.reason()), (TaskFailed, Reason::ExecutorTerminated));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_restarted_and_changed_is_a_new_agent() {
    let mut world = World::start().await;
    world.crash_with_a_task().await;
    world.write(Write::BootId("another".into()));
    world.settings.resources = Some("cpus:1".into());
    world.restart().await;
    let register = world.register().await;
    assert_eq!((register.agent.id, register.tasks.len(), register.frameworks.len()), (None, 0, 0));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cleans_up_ends_all_says_nothing_and_keeps_its_id() {
    let mut world = World::start().await;
    world.crash_with_a_task().await;
    world.settings.recover = Recover::Cleanup;
    world.restart().await;
    let agent = world.agent.take().unwrap();
    let end = tokio::time::timeout(Duration::from_secs(60), agent.ended()).await.unwrap();
    assert_eq!(end, End::CleanedUp);
    agent.stop().await;
    assert_eq!(world.containers.left(), 0);
    world.settings.recover = Recover::Reconnect;
    world.restart().await;
    // The first registration that comes is that of this agent.
    let register = world.register().await;
    assert_eq!(
        (register.agent.id, register.tasks.len(), register.frameworks.len()),
        (Some("A".into()), 0, 0)
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_damaged_state_stops_or_goes_on_without_and_counts_it() {
    let mut world = World::start().await;
    world.crash_with_a_task().await;
    let path = world.settings.work_dir.join("meta/agent.redb");
    std::fs::write(&path, vec![b'x'; 10_000]).unwrap();
    assert!(world.try_restart().await.is_err());
    world.settings.strict = false;
    world.restart().await;
    assert_eq!(world.register().await.agent.id, None);
    assert_eq!(world.metric("slave/recovery_errors").await, 1.0);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_shown_and_carried_on_by_the_next_process() {
    let mut world = World::start().await;
    world.register().await;
    world.coordinator.send(run("t", "stubborn"));
    world.wait_for(TaskRunning).await;
    let container = world.container("t").await;
    let grace = DurationInfo { nanoseconds: 3_600_000_000_000 };
    let config = DrainConfig { max_grace_period: Some(grace), mark_gone: None };
    world.coordinator.send(Body::Drain(config));
    world.until(async |world| world.state().await["drain_config"] != serde_json::Value::Null).await;
    world.crash().await;
    world.containers.found(&container, Found::Running { pid: 1, networks: vec![] });
    world.restart().await;
    world.register().await;
    let state = world.state().await;
    assert_eq!(state["drain_config"]["max_grace_period"]["nanoseconds"], 3_600_000_000_000_i64);
    assert!(state["estimated_drain_start_time_seconds"].as_i64().unwrap() > 0);
    world.containers.exit(&container, 15);
    let last = world.updates_of("t").await.pop().unwrap();
    assert_eq!((last.state(), last.reason()), (TaskKilled, Reason::AgentDraining));
    world.until(async |world| world.state().await.get("drain_config").is_none()).await;
    world.stop().await;
}

impl World {
    async fn state(&self) -> serde_json::Value {
        world::json(&self.client().get("/state").await.unwrap())
    }

    async fn until(&self, holds: impl AsyncFn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while !holds(self).await {
            assert!(tokio::time::Instant::now() < deadline, "it did not come to hold");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
