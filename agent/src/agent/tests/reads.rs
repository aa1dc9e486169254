//! What the agent's HTTP server answers, against what a real Mesos answered in the same situation: one task that runs,
//! one that is over.

use std::collections::BTreeSet;

use http_body_util::BodyExt as _;
use serde_json::Value as Json;
use tepui_api::client::ClientError;
use tepui_api::v1::agent::{Call, Response, call};

use super::world::{World, json};
use super::{TaskRunning, run};

/// An agent with a task that runs and one that is over and acknowledged.
async fn world() -> World {
    let mut world = World::start().await;
    world.register().await;
    world.coordinator.send(run("over", "exit 0"));
    world.updates_of("over").await;
    world.coordinator.send(run("on", "sleep"));
    world.wait_for(TaskRunning).await;
    world
}

fn call(kind: call::Type) -> Call {
    Call { r#type: Some(kind as i32), ..Call::default() }
}

async fn ask(world: &World, call: &Call) -> Response {
    world.client().call("/api/v1", call).await.unwrap()
}

async fn get(world: &World, path: &str) -> Json {
    json(&world.client().get(path).await.unwrap())
}

/// The JSON of a call's answer as it is on the wire.
async fn http_json(world: &World, kind: &str) -> Json {
    let text = format!(r#"{{"type":"{kind}"}}"#);
    let request = http::Request::post("/api/v1")
        .header("host", "agent")
        .header("content-type", "application/json")
        .body(http_body_util::Full::new(bytes::Bytes::from(text)))
        .unwrap();
    let address = world.agent.as_ref().unwrap().address();
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap();
    json(&answer.into_body().collect().await.unwrap().to_bytes())
}

fn status(error: &ClientError) -> u16 {
    match error {
        ClientError::Status { status, .. } => status.as_u16(),
        other => panic!("{other}"),
    }
}

fn keys(json: &Json) -> BTreeSet<&str> {
    json.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_told_in_calls() {
    let world = world().await;
    let state = ask(&world, &call(call::Type::GetState)).await.get_state.unwrap();
    let tasks = state.get_tasks.unwrap();
    assert_eq!((tasks.launched_tasks.len(), tasks.completed_tasks.len()), (1, 1));
    let task = &tasks.launched_tasks[0];
    assert_eq!((task.task_id.as_str(), task.state()), ("on", TaskRunning));
    assert_eq!(task.status_update_state(), TaskRunning);
    let executors = state.get_executors.unwrap();
    assert_eq!((executors.executors.len(), executors.completed_executors.len()), (1, 1));
    assert!(executors.executors[0].executor_info.name().starts_with("Command Executor (Task: on)"));
    assert_eq!(state.get_frameworks.unwrap().frameworks.len(), 1);

    let raw = http_json(&world, "GET_TASKS").await;
    assert_eq!(raw["get_tasks"]["pending_tasks"], Json::Array(vec![]), "empty lists are shown");

    let containers = ask(&world, &call(call::Type::GetContainers)).await.get_containers.unwrap().containers;
    assert_eq!(containers[0].executor_id, Some("on".into()));
    assert_eq!(containers[0].container_status.as_ref().unwrap().executor_pid, Some(4711));
    assert_eq!(containers[0].resource_statistics.as_ref().unwrap().mem_rss_bytes, Some(7));

    let agent = ask(&world, &call(call::Type::GetAgent)).await.get_agent.unwrap().agent_info.unwrap();
    assert_eq!((agent.id, agent.resources.len()), (Some("A".into()), 4));
    let version = ask(&world, &call(call::Type::GetVersion)).await.get_version.unwrap();
    assert_eq!(version.version_info.version, "1.11.0");
    assert!(ask(&world, &call(call::Type::GetHealth)).await.get_health.unwrap().healthy);
    let flags = ask(&world, &call(call::Type::GetFlags)).await.get_flags.unwrap().flags;
    assert!(flags.iter().any(|flag| flag.name == "master"));
    let metrics = ask(&world, &call(call::Type::GetMetrics)).await.get_metrics.unwrap().metrics;
    let metric = |name: &str| metrics.iter().find(|m| m.name == name).unwrap().value();
    assert_eq!((metric("slave/tasks_running"), metric("slave/tasks_finished")), (1.0, 1.0));
    assert_eq!((metric("slave/cpus_total"), metric("slave/cpus_used")), (2.0, 0.1));
    for kind in [call::Type::GetOperations, call::Type::GetResourceProviders, call::Type::GetLoggingLevel] {
        ask(&world, &call(kind)).await;
    }
    for (kind, expected) in [(call::Type::AddResourceProviderConfig, 501), (call::Type::ReadFile, 400)] {
        let error = world.client().call::<_, Response>("/api/v1", &call(kind)).await.unwrap_err();
        assert_eq!(status(&error), expected);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_told_in_mesos_older_form() {
    let world = world().await;
    let state = get(&world, "/slave(1)/state").await;
    for key in [
        "attributes",
        "capabilities",
        "completed_frameworks",
        "flags",
        "frameworks",
        "hostname",
        "id",
        "master_hostname",
        "pid",
        "reserved_resources",
        "reserved_resources_allocated",
        "reserved_resources_full",
        "resource_providers",
        "resources",
        "start_time",
        "unreserved_resources",
        "unreserved_resources_allocated",
        "unreserved_resources_full",
        "version",
    ] {
        assert!(!state[key].is_null(), "{key}");
    }
    assert_eq!(state["resources"]["cpus"], 2.0);
    assert_eq!(state["resources"]["ports"], "[31000-31009]");
    assert_eq!(state["attributes"]["rack"], "a");
    assert_eq!(state["unreserved_resources_allocated"]["mem"], 32.0);
    let framework = &state["frameworks"][0];
    let executor = &framework["executors"][0];
    let expected: Vec<&str> =
        "completed_tasks container directory id name queued_tasks resources role source tasks"
            .split(' ')
            .collect();
    assert_eq!(keys(executor), expected.into_iter().collect());
    let task = &executor["tasks"][0];
    let expected = "executor_id framework_id id name resources role slave_id state statuses";
    assert_eq!(keys(task), expected.split(' ').collect());
    assert_eq!(keys(&task["statuses"][0]), "container_status state timestamp".split(' ').collect());
    assert_eq!(
        (&task["role"], &task["executor_id"], &task["state"]),
        (&"web".into(), &"".into(), &"TASK_RUNNING".into())
    );
    assert_eq!(framework["completed_executors"][0]["completed_tasks"][0]["state"], "TASK_FINISHED");

    let container = &get(&world, "/containers").await[0];
    let expected = "container_id executor_id executor_name framework_id source statistics status";
    assert_eq!(keys(container), expected.split(' ').collect());
    let statistics = &get(&world, "/monitor/statistics").await[0];
    let expected = "executor_id executor_name framework_id source statistics";
    assert_eq!(keys(statistics), expected.split(' ').collect());
    assert_eq!(get(&world, "/containers?container_id=other").await, Json::Array(vec![]));
    let id = world.container("on").await.value;
    for (query, count) in [
        (format!("container_id={id}"), 1),
        ("framework_id=F".to_owned(), 1),
        ("framework_id=other".to_owned(), 0),
        ("framework_id=F&executor_id=on".to_owned(), 1),
        ("framework_id=F&executor_id=over".to_owned(), 0),
    ] {
        let chosen = get(&world, &format!("/containers?{query}")).await;
        assert_eq!(chosen.as_array().unwrap().len(), count, "{query}");
    }
    for query in [format!("container_id={id}&framework_id=F"), "executor_id=on".to_owned()] {
        let refused = world.client().get(&format!("/containers?{query}")).await.unwrap_err();
        assert_eq!(status(&refused), 400, "{query}");
    }
    let pressure = &get(&world, "/tepui/v1/pressure").await[0];
    assert_eq!(keys(pressure), "container_id executor_id framework_id pressure".split(' ').collect());
    let share = serde_json::json!({
        "avg10_percent": 1.5, "avg60_percent": 0.5, "avg300_percent": 0.25, "total_secs": 2.5,
    });
    assert_eq!(pressure["pressure"], serde_json::json!({"cpu": {"some": share}}));
    assert_eq!(get(&world, "/metrics/snapshot").await["slave/registered"], 1.0);
    assert_eq!(get(&world, "/version").await["version"], "1.11.0");
    assert_eq!(get(&world, "/tepui/v1/pulls").await, Json::Array(vec![]));
    assert!(world.client().get("/health").await.unwrap().is_empty());
    let wrapped = world.client().get("/flags?jsonp=cb").await.unwrap();
    assert!(wrapped.starts_with(b"cb(") && wrapped.ends_with(b");"));
    assert_eq!(status(&world.client().get("/nothing").await.unwrap_err()), 404);
    assert_eq!(status(&world.client().get("/api/v1/executor").await.unwrap_err()), 405);
    assert_eq!(status(&world.client().get("/api/v1").await.unwrap_err()), 405);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_are_read() {
    let world = world().await;
    let latest = "/frameworks/F/executors/on/runs/latest";
    let read = |query: &str| format!("/files/read?path={latest}/stdout{query}");
    let text = get(&world, &read("&offset=1&length=3")).await;
    assert_eq!((&text["data"], &text["offset"]), (&"ell".into(), &1.into()));
    for size_only in ["", "&offset=-1", "&offset=-1&length=5"] {
        let text = get(&world, &read(size_only)).await;
        assert_eq!((&text["data"], &text["offset"]), (&"".into(), &6.into()), "{size_only}");
    }
    let all = get(&world, &read("&offset=0&length=-1")).await;
    assert_eq!(all["data"], "hello\n");
    for wrong in ["&offset=-2", "&offset=x", "&offset=0&length=-2"] {
        assert_eq!(status(&world.client().get(&read(wrong)).await.unwrap_err()), 400, "{wrong}");
    }
    let wanted = |path: &str| format!("/files/{path}");
    for (path, expected) in [
        ("read", 400),
        ("read?path=/etc/passwd&offset=0", 404),
        ("browse?path=/nowhere", 404),
        (&format!("read?path={latest}&offset=0"), 400),
        (&format!("download?path={latest}"), 400),
    ] {
        assert_eq!(status(&world.client().get(&wanted(path)).await.unwrap_err()), expected, "{path}");
    }
    let listing = get(&world, &wanted(&format!("browse?path={latest}"))).await;
    assert_eq!(keys(&listing[0]), "gid mode mtime nlink path size uid".split(' ').collect());
    assert_eq!(listing[1]["path"], format!("{latest}/stdout"));
    let file = world.client().get(&wanted(&format!("download?path={latest}/stdout"))).await.unwrap();
    assert_eq!(file, "hello\n");

    let container = world.container("on").await;
    let real = world.sandbox(&container);
    let list = Call {
        list_files: Some(call::ListFiles { path: real.display().to_string() }),
        ..call(call::Type::ListFiles)
    };
    assert_eq!(ask(&world, &list).await.list_files.unwrap().file_infos.len(), 2);
    // The sandbox of a task that is over is still there.
    let path = "/frameworks/F/executors/over/runs/latest/stdout".to_owned();
    let read = Call {
        read_file: Some(call::ReadFile { path, offset: 2, length: None }),
        ..call(call::Type::ReadFile)
    };
    let piece = ask(&world, &read).await.read_file.unwrap();
    assert_eq!((piece.size, piece.data), (6, b"llo\n".to_vec()));
    let names = get(&world, "/files/debug").await;
    assert_eq!(names[latest], real.display().to_string());
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_can_be_read_after_a_restart() {
    let mut world = world().await;
    world.crash().await;
    world.restart().await;
    let path = "/files/read?offset=0&path=/frameworks/F/executors/over/runs/latest/stdout";
    assert_eq!(get(&world, path).await["data"], "hello\n");
    world.stop().await;
}
