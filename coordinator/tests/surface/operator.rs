//! `POST /api/v1`: every read has the fields that Mesos writes, in both media types.

use crate::support::agent::{Connection, Link, register};
use crate::support::raw::{get, post_json, request};
use crate::support::scheduler::{Scheduler, info};
use crate::support::{authority, coordinator, in_time, settings};
use serde_json::{Value, json};
use tepui_api::MediaType;
use tepui_api::client::{Client, EventStream};
use tepui_api::v1::master::call::{self, Type};
use tepui_api::v1::master::{Call, Event, Response, event};
use tepui_api::v1::{TaskId, TaskState};
use tepui_coordinator::{Running, Settings, Weights, start};

const PATH: &str = "/api/v1";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Body, headers, and the status and words that are to be answered.
type Case = (&'static str, &'static [(&'static str, &'static str)], u16, &'static str);

/// An agent with a running task and an offer, and their framework.
struct Cluster {
    running: Running,
    link: Link,
    scheduler: Scheduler,
    task: TaskId,
    _connection: Connection,
}

async fn cluster() -> Cluster {
    let weights = Some(Weights(vec![("heavy/role".to_owned(), 2.0)]));
    let running = start(Settings { weights, cluster: Some("test".to_owned()), ..settings() }).await.unwrap();
    let mut connection = Connection::open(&running).await;
    let mut link = connection.link().await.unwrap();
    let resources = "cpus:2;mem:1024;disk:100;ports:[31000-31009];cpus(kept):1";
    let agent = link.register(register("one", resources, None, vec![])).await.agent_id;
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("reads")).await;
    let offer = scheduler.offer().await;
    let task = scheduler.launch(&offer, "task").await;
    link.run_task().await;
    let uuid = link.update(&scheduler.id, &agent, &task, TaskState::TaskRunning);
    scheduler.update().await;
    scheduler.acknowledge(&agent, &task, &uuid).await;
    // What the task left over.
    scheduler.offer().await;
    Cluster { running, link, scheduler, task, _connection: connection }
}

async fn read(running: &Running, kind: &str) -> Value {
    let answer = post_json(running, PATH, &format!(r#"{{"type":"{kind}"}}"#)).await;
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")), "{kind}");
    let mut json = answer.json();
    assert_eq!(json["type"], kind);
    json[kind.to_lowercase()].take()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_in_mesos_order() {
    let running = coordinator().await;
    let answer = get(&running, PATH).await;
    assert_eq!((answer.status, answer.header("Allow")), (405, Some("POST")));
    let cases: &[Case] = &[
        ("{}", &[], 400, "Expecting 'Content-Type' to be present"),
        ("{}", &[("Content-Type", "text/plain")], 415, "Expecting 'Content-Type' of"),
        ("[]", &[JSON], 400, "mesos.v1.master.Call"),
        ("{}", &[JSON], 400, "Failed to validate master::Call: Expecting 'type' to be present"),
        (r#"{"type":"GET_METRICS"}"#, &[JSON], 400, "Expecting 'get_metrics' to be present"),
        (r#"{"type":"TEARDOWN"}"#, &[JSON], 400, "Expecting 'teardown' to be present"),
        (r#"{"type":"GET_HEALTH"}"#, &[JSON, ("Accept", "text/html")], 406, "Accept"),
        (r#"{"type":"UNKNOWN"}"#, &[JSON], 501, "not implemented"),
        (r#"{"type":"LIST_FILES"}"#, &[JSON], 501, "LIST_FILES is not implemented"),
        (r#"{"type":"GET_QUOTA"}"#, &[JSON], 501, "GET_QUOTA is not implemented"),
    ];
    for (body, headers, status, words) in cases {
        let answer = request(&running, "POST", PATH, headers, body).await;
        assert_eq!(answer.status, *status, "{body} {headers:?}: {}", answer.text());
        assert!(answer.text().contains(words), "{body}: {}", answer.text());
    }
    running.stop().await.unwrap();
}

#[tokio::test]
async fn reads_have_the_fields_of_mesos() {
    let cluster = cluster().await;
    let running = &cluster.running;
    assert_eq!(read(running, "GET_HEALTH").await, json!({"healthy": true}));
    let version = read(running, "GET_VERSION").await;
    assert_eq!(version["version_info"]["version"], "1.11.0");
    assert_eq!(keys(&version["version_info"]), ["build_date", "build_time", "build_user", "version"]);
    let flags = read(running, "GET_FLAGS").await;
    assert!(
        flags["flags"]
            .as_array()
            .unwrap()
            .contains(&json!({"name": "allocation_interval", "value": "1secs"}))
    );
    assert_eq!(read(running, "GET_LOGGING_LEVEL").await, json!({"level": 0}));
    assert_eq!(read(running, "GET_OPERATIONS").await, json!({"operations": []}));
    assert_eq!(
        read(running, "GET_WEIGHTS").await,
        json!({"weight_infos": [{"role": "heavy/role", "weight": 2.0}]})
    );

    let master = read(running, "GET_MASTER").await;
    assert_eq!(keys(&master), ["elected_time", "master_info", "start_time"]);
    assert_eq!(
        keys(&master["master_info"]),
        ["address", "capabilities", "hostname", "id", "ip", "pid", "port", "version"]
    );

    let agents = read(running, "GET_AGENTS").await;
    assert_eq!(agents["recovered_agents"], json!([]));
    let agent = &agents["agents"][0];
    assert_eq!(
        keys(agent),
        [
            "active",
            "agent_info",
            "allocated_resources",
            "capabilities",
            "deactivated",
            "offered_resources",
            "pid",
            "registered_time",
            "total_resources",
            "version"
        ]
    );
    let total = agent["total_resources"].as_array().unwrap();
    let kept = total.iter().find(|resource| resource["role"] == "kept").unwrap();
    assert_eq!(kept["reservations"], json!([{"role": "kept", "type": "STATIC"}]));
    assert!(total.iter().all(|resource| resource["role"].is_string()));
    let used = agent["allocated_resources"].as_array().unwrap();
    assert!(used.iter().all(|resource| resource["allocation_info"] == json!({"role": "*"})));

    let frameworks = read(running, "GET_FRAMEWORKS").await;
    assert_eq!(frameworks["completed_frameworks"], json!([]));
    let framework = &frameworks["frameworks"][0];
    assert_eq!(
        keys(framework),
        [
            "active",
            "allocated_resources",
            "connected",
            "framework_info",
            "offer_constraints",
            "offered_resources",
            "offers",
            "recovered",
            "registered_time",
            "reregistered_time"
        ]
    );
    assert_eq!(framework["offer_constraints"], json!({}));
    assert_eq!(
        keys(&framework["offers"][0]),
        ["agent_id", "allocation_info", "framework_id", "hostname", "id", "resources", "url"]
    );

    let tasks = read(running, "GET_TASKS").await;
    assert_eq!(keys(&tasks), ["completed_tasks", "tasks", "unreachable_tasks"]);
    let task = &tasks["tasks"][0];
    assert_eq!(
        keys(task),
        [
            "agent_id",
            "framework_id",
            "name",
            "resources",
            "state",
            "status_update_state",
            "status_update_uuid",
            "statuses",
            "task_id"
        ]
    );
    assert_eq!(task["state"], "TASK_RUNNING");
    assert_eq!(read(running, "GET_EXECUTORS").await, json!({"executors": []}));
    let state = read(running, "GET_STATE").await;
    assert_eq!(keys(&state), ["get_agents", "get_executors", "get_frameworks", "get_tasks"]);
    assert_eq!(state["get_tasks"], tasks);

    let roles = read(running, "GET_ROLES").await;
    let names: Vec<&str> =
        roles["roles"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["*", "heavy", "heavy/role", "kept"]);
    assert_eq!(keys(&roles["roles"][0]), ["frameworks", "name", "resources", "weight"]);
    assert_eq!(roles["roles"][2]["weight"], 2.0);

    let metrics = post_json(running, PATH, r#"{"type":"GET_METRICS","get_metrics":{}}"#).await.json();
    let metrics = metrics["get_metrics"]["metrics"].as_array().unwrap();
    let metric =
        |name: &str| metrics.iter().find(|m| m["name"] == name).map(|m| m["value"].as_f64().unwrap());
    assert_eq!(metric("master/elected"), Some(1.0));
    assert_eq!(metric("master/slaves_active"), Some(1.0));
    assert_eq!(metric("master/tasks_running"), Some(1.0));
    assert_eq!(metric("master/cpus_total"), Some(3.0));
    assert_eq!(metric("master/cpus_used"), Some(0.1));
    assert!(metric("master/uptime_secs").unwrap() > 0.0);
    cluster.running.stop().await.unwrap();
}

#[tokio::test]
async fn both_media_types_say_the_same() {
    let cluster = cluster().await;
    let authority = authority(&cluster.running);
    let (json, protobuf) =
        (Client::new(&*authority, MediaType::Json), Client::new(&*authority, MediaType::Protobuf));
    for kind in [
        Type::GetState,
        Type::GetAgents,
        Type::GetFrameworks,
        Type::GetTasks,
        Type::GetExecutors,
        Type::GetRoles,
        Type::GetMaster,
        Type::GetFlags,
    ] {
        let call = Call { r#type: Some(kind.into()), ..Call::default() };
        let one: Response = json.call(PATH, &call).await.unwrap();
        let other: Response = protobuf.call(PATH, &call).await.unwrap();
        // Compared as JSON, where a default that stands there is the same as one that does not.
        let text = |response: &Response| String::from_utf8(tepui_api::codec::encode_json(response)).unwrap();
        assert_eq!(text(&one), text(&other), "{kind:?}");
    }
    cluster.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_subscriber_sees_what_happens() {
    for media in [MediaType::Json, MediaType::Protobuf] {
        let mut cluster = cluster().await;
        let client = Client::new(authority(&cluster.running), media);
        let call = Call { r#type: Some(Type::Subscribe.into()), ..Call::default() };
        let mut events: EventStream<Event> = client.subscribe(PATH, &call).await.unwrap();
        let mut next = async || in_time("an event", events.next()).await.unwrap();

        let subscribed = next().await.subscribed.unwrap();
        assert_eq!(subscribed.heartbeat_interval_seconds, Some(15.0));
        let state = subscribed.get_state.unwrap();
        assert_eq!(state.get_tasks.unwrap().tasks[0].task_id, cluster.task);
        assert_eq!(next().await.r#type(), event::Type::Heartbeat);
        let metrics = get(&cluster.running, "/metrics/snapshot").await.json();
        assert_eq!(metrics["master/operator_event_stream_subscribers"], 1.0);

        let mut second = Scheduler::subscribe(&cluster.running, MediaType::Json, info("second")).await;
        let added = next().await;
        assert_eq!(added.r#type(), event::Type::FrameworkAdded, "{added:?}");
        assert_eq!(added.framework_added.unwrap().framework.framework_info.id, Some(second.id.clone()));

        let mut connection = Connection::open(&cluster.running).await;
        let mut link = connection.link().await.unwrap();
        let agent = link.register(register("second", "cpus:1;mem:100", None, vec![])).await.agent_id;
        let added = next().await;
        assert_eq!(added.r#type(), event::Type::AgentAdded, "{added:?}");
        assert_eq!(added.agent_added.unwrap().agent.agent_info.id, Some(agent.clone()));

        // The fairer share is the second's, which has nothing yet.
        let offer = second.offer().await;
        let task = second.launch(&offer, "watched").await;
        let added = next().await;
        assert_eq!(added.r#type(), event::Type::TaskAdded, "{added:?}");
        assert_eq!(added.task_added.unwrap().task.task_id, task);
        let on_second = offer.agent_id == agent;
        if on_second { &mut link } else { &mut cluster.link }.run_task().await;
        let agent_link = if on_second { &link } else { &cluster.link };
        agent_link.update(&second.id, &offer.agent_id, &task, TaskState::TaskRunning);
        let updated = next().await;
        assert_eq!(updated.r#type(), event::Type::TaskUpdated, "{updated:?}");
        assert_eq!(updated.task_updated.unwrap().state(), TaskState::TaskRunning);

        let teardown = Call {
            r#type: Some(Type::Teardown.into()),
            teardown: Some(call::Teardown { framework_id: cluster.scheduler.id.clone() }),
            ..Call::default()
        };
        client.send(PATH, &teardown, None).await.unwrap();
        let removed = loop {
            let event = next().await;
            if event.r#type() == event::Type::FrameworkRemoved {
                break event.framework_removed.unwrap();
            }
        };
        assert_eq!(removed.framework_info.id, Some(cluster.scheduler.id.clone()));
        cluster.running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn one_subscriber_too_many_closes_the_oldest() {
    let running = start(Settings { max_operator_event_stream_subscribers: 1, ..settings() }).await.unwrap();
    let client = Client::new(authority(&running), MediaType::Json);
    let call = Call { r#type: Some(Type::Subscribe.into()), ..Call::default() };
    let mut first: EventStream<Event> = client.subscribe(PATH, &call).await.unwrap();
    let mut second: EventStream<Event> = client.subscribe(PATH, &call).await.unwrap();
    in_time("the first one's end", async { while first.next().await.is_ok() {} }).await;
    Scheduler::subscribe(&running, MediaType::Json, info("seen")).await;
    in_time("an event", async {
        while second.next().await.unwrap().r#type() != event::Type::FrameworkAdded {}
    })
    .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn an_operator_ends_a_framework() {
    let running = coordinator().await;
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("ends")).await;
    let teardown =
        |id: &str| json!({"type": "TEARDOWN", "teardown": {"framework_id": {"value": id}}}).to_string();
    let answer = post_json(&running, PATH, &teardown("unknown")).await;
    assert_eq!((answer.status, answer.text().as_str()), (400, "No framework found with specified ID"));
    let answer = post_json(&running, PATH, &teardown(scheduler.id.as_str())).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    in_time("the stream's end", async { while scheduler.stream.next().await.is_ok() {} }).await;
    running.stop().await.unwrap();
}
