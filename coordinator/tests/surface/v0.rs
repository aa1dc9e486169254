//! The endpoints of before the v1 API.

use crate::support::agent::{Connection, register};
use crate::support::raw::{get, request};
use crate::support::scheduler::{Scheduler, info};
use crate::support::{coordinator, in_time, settings};
use serde_json::{Value, json};
use tepui_api::MediaType;
use tepui_api::v1::TaskState;
use tepui_coordinator::{Settings, start};

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn small_endpoints_answer() {
    let running = coordinator().await;
    let health = get(&running, "/health").await;
    assert_eq!(
        (health.status, health.text().as_str(), health.header("Content-Length")),
        (200, "", Some("0"))
    );
    assert_eq!(get(&running, "/master/health").await.status, 200);
    assert_eq!(get(&running, "/version").await.json()["version"], "1.11.0");
    assert_eq!(get(&running, "/flags").await.json()["flags"]["max_agent_ping_timeouts"], "5");
    assert_eq!(get(&running, "/weights").await.json(), json!([]));
    assert_eq!(
        keys(&get(&running, "/system/stats.json").await.json()),
        [
            "avg_load_15min",
            "avg_load_1min",
            "avg_load_5min",
            "cpus_total",
            "mem_free_bytes",
            "mem_total_bytes"
        ]
    );
    assert!(get(&running, "/metrics/snapshot").await.json()["master/uptime_secs"].is_f64());

    for path in ["/redirect", "/master/redirect"] {
        let answer = get(&running, path).await;
        let location = format!("//127.0.0.1:{}", running.address().port());
        assert_eq!((answer.status, answer.header("Location")), (307, Some(location.as_str())));
    }
    for path in ["/", "/nothing", "/master", "/masterstate", "/api/v1/executor", "/state.xml"] {
        let answer = get(&running, path).await;
        assert_eq!((answer.status, answer.text().as_str()), (404, "404 Not Found."), "{path}");
    }
    for path in ["/quota", "/master/quota", "/unreserve", "/files/browse?path=/", "/reserve"] {
        let answer = get(&running, path).await;
        assert_eq!(answer.status, 501, "{path}");
        assert!(answer.text().contains("is not implemented"), "{}", answer.text());
    }
    let jsonp = get(&running, "/version?jsonp=cb").await;
    assert_eq!(jsonp.header("Content-Type"), Some("text/javascript"));
    assert!(jsonp.text().starts_with("cb({") && jsonp.text().ends_with("});"), "{}", jsonp.text());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn the_state_has_the_fields_of_mesos() {
    let running = start(Settings { cluster: Some("test".to_owned()), ..settings() }).await.unwrap();
    let mut connection = Connection::open(&running).await;
    let mut link = connection.link().await.unwrap();
    let resources = "cpus:2;mem:1024;disk:100;ports:[31000-31009];cpus(kept):1";
    let agent = link.register(register("one", resources, None, vec![])).await.agent_id;
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("reads")).await;
    let offer = scheduler.offer().await;
    let task = scheduler.launch(&offer, "task").await;
    link.run_task().await;
    link.update(&scheduler.id, &agent, &task, TaskState::TaskRunning);
    scheduler.update().await;
    scheduler.offer().await;

    let state = get(&running, "/state").await.json();
    for path in ["/master/state", "/state.json", "/master/state.json"] {
        assert_eq!(keys(&get(&running, path).await.json()), keys(&state), "{path}");
    }
    assert_eq!(
        keys(&state),
        [
            "activated_slaves",
            "build_date",
            "build_time",
            "build_user",
            "capabilities",
            "cluster",
            "completed_frameworks",
            "deactivated_slaves",
            "elected_time",
            "flags",
            "frameworks",
            "hostname",
            "id",
            "leader",
            "leader_info",
            "orphan_tasks",
            "pid",
            "recovered_slaves",
            "slaves",
            "start_time",
            "unreachable_slaves",
            "unregistered_frameworks",
            "version"
        ]
    );
    assert_eq!(state["activated_slaves"], json!(1.0));
    assert_eq!(state["leader"], state["pid"]);
    assert_eq!(keys(&state["leader_info"]), ["hostname", "id", "pid", "port"]);
    let framework = &state["frameworks"][0];
    assert_eq!(
        keys(framework),
        [
            "active",
            "capabilities",
            "checkpoint",
            "completed_tasks",
            "connected",
            "executors",
            "failover_timeout",
            "hostname",
            "id",
            "name",
            "offer_constraints",
            "offered_resources",
            "offers",
            "recovered",
            "registered_time",
            "resources",
            "roles",
            "tasks",
            "unreachable_tasks",
            "unregistered_time",
            "used_resources",
            "user",
            "webui_url"
        ]
    );
    assert_eq!(framework["used_resources"], json!({"cpus": 0.1, "disk": 0.0, "gpus": 0.0, "mem": 32.0}));
    assert_eq!(framework["offers"][0]["resources"]["ports"], "[31000-31009]");
    assert_eq!(framework["offers"][0]["slave_id"], json!(agent.value));
    let shown = &framework["tasks"][0];
    assert_eq!(
        keys(shown),
        ["executor_id", "framework_id", "id", "name", "resources", "role", "slave_id", "state", "statuses"]
    );
    assert_eq!((&shown["state"], &shown["role"]), (&json!("TASK_RUNNING"), &json!("*")));
    assert_eq!(shown["statuses"][0], json!({"state": "TASK_RUNNING", "timestamp": 1.0}));

    let slave = &state["slaves"][0];
    assert_eq!(
        keys(slave),
        [
            "active",
            "attributes",
            "capabilities",
            "deactivated",
            "hostname",
            "id",
            "offered_resources",
            "pid",
            "port",
            "registered_time",
            "reserved_resources",
            "resources",
            "unreserved_resources",
            "used_resources",
            "version"
        ]
    );
    assert_eq!(slave["resources"]["cpus"], json!(3.0));
    assert_eq!(
        slave["reserved_resources"],
        json!({"kept": {"cpus": 1.0, "disk": 0.0, "gpus": 0.0, "mem": 0.0}})
    );
    assert_eq!(slave["unreserved_resources"]["cpus"], json!(2.0));

    let slaves = get(&running, "/slaves").await.json();
    let full = &slaves["slaves"][0];
    assert_eq!(full["reserved_resources_full"]["kept"][0]["role"], "kept");
    assert_eq!(full["used_resources_full"][0]["allocation_info"], json!({"role": "*"}));
    assert!(full["offered_resources_full"].is_array() && full["unreserved_resources_full"].is_array());
    assert_eq!(get(&running, "/slaves?slave_id=other").await.json()["slaves"], json!([]));
    assert_eq!(get(&running, "/frameworks?framework_id=other").await.json()["frameworks"], json!([]));

    let tasks = get(&running, "/tasks").await.json();
    assert_eq!(tasks, json!({"tasks": [shown]}));
    assert_eq!(get(&running, "/tasks?limit=0").await.json(), json!({"tasks": []}));
    assert_eq!(get(&running, "/master/tasks?task_id=other").await.json(), json!({"tasks": []}));

    let roles = get(&running, "/roles").await.json();
    let role = &roles["roles"][0];
    assert_eq!(
        keys(role),
        ["allocated", "frameworks", "name", "offered", "quota", "reserved", "resources", "weight"]
    );
    assert_eq!(role["allocated"], json!({"cpus": 0.1, "mem": 32.0}));
    assert_eq!(role["resources"]["ports"], json!(10.0));
    assert_eq!(role["quota"]["consumed"], json!({"cpus": 0.1, "mem": 32.0}));
    assert_eq!(roles["roles"][1]["quota"]["consumed"], json!({"cpus": 1.0}));

    let summary = get(&running, "/state-summary").await.json();
    assert_eq!(keys(&summary), ["cluster", "frameworks", "hostname", "slaves"]);
    let line = &summary["frameworks"][0];
    assert_eq!((&line["TASK_RUNNING"], &line["TASK_LOST"]), (&json!(1), &json!(0)));
    assert_eq!(line["slave_ids"], json!([agent.value]));
    assert_eq!(summary["slaves"][0]["framework_ids"], json!([scheduler.id.value]));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_form_ends_a_framework() {
    let running = coordinator().await;
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("ends")).await;
    assert_eq!(get(&running, "/teardown").await.status, 405);
    let answer = request(&running, "POST", "/master/teardown", &[], "").await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (400, "Missing 'frameworkId' query parameter in the request body")
    );
    let answer = request(&running, "POST", "/teardown", &[], &format!("frameworkId={}", scheduler.id)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    in_time("the stream's end", async { while scheduler.stream.next().await.is_ok() {} }).await;
    running.stop().await.unwrap();
}
