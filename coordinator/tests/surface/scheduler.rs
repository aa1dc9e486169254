//! `POST /api/v1/scheduler`: each refusal, and a task's way through it.

use crate::support::agent::{Connection, register};
use crate::support::raw::{self, get, open, post_json, request};
use crate::support::scheduler::{PATH, Scheduler, info};
use crate::support::{coordinator, in_time, settings, until};
use serde_json::json;
use tepui_api::MediaType;
use tepui_api::client::ClientError;
use tepui_api::link::coordinator_frame::Body as Frame;
use tepui_api::v1::scheduler::call::{self, Type};
use tepui_api::v1::scheduler::{Call, event};
use tepui_api::v1::{FrameworkId, TaskState, task_status};
use tepui_coordinator::{Settings, start};
use tokio::io::AsyncReadExt as _;

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Body, headers, and the status and words that are to be answered.
type Case = (&'static str, &'static [(&'static str, &'static str)], u16, &'static str);
const SUBSCRIBE: &str = r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"raw","roles":["*"],
    "capabilities":[{"type":"MULTI_ROLE"}]}}}"#;

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_in_mesos_order() {
    let running = coordinator().await;
    let answer = get(&running, PATH).await;
    assert_eq!((answer.status, answer.header("Allow")), (405, Some("POST")));
    assert_eq!(answer.text(), "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'.");

    const KILL: &str = r#"{"type":"KILL","framework_id":{"value":"f"},"kill":{"task_id":{"value":"t"}}}"#;
    const OTHER_ID: &str = r#"{"type":"SUBSCRIBE","framework_id":{"value":"a"},"subscribe":{"framework_info":{"user":"u","name":"n","id":{"value":"b"}}}}"#;
    const WITH_STREAM: (&str, &str) = ("Mesos-Stream-Id", "8b2c1e1e-0000-4000-8000-000000000000");
    let cases: &[Case] = &[
        ("{}", &[], 400, "Expecting 'Content-Type' to be present"),
        (
            "{}",
            &[("Content-Type", "text/plain")],
            415,
            "Expecting 'Content-Type' of application/json or application/x-protobuf",
        ),
        ("not json", &[JSON], 400, "JSON"),
        (r#"{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"u"}}}"#, &[JSON], 400, "name"),
        (r#"{"type":"KILL","kill":{"task_id":{}}}"#, &[JSON], 400, "value"),
        ("{}", &[JSON], 400, "Expecting 'type' to be present"),
        (r#"{"type":"KILL"}"#, &[JSON], 400, "Expecting 'framework_id' to be present"),
        (r#"{"type":"KILL","framework_id":{"value":"f"}}"#, &[JSON], 400, "Expecting 'kill' to be present"),
        (OTHER_ID, &[JSON], 400, "'framework_id' differs from 'subscribe.framework_info.id'"),
        // The body comes before what is accepted, and that before the stream's id.
        (
            r#"{"type":"SUBSCRIBE"}"#,
            &[JSON, ("Accept", "text/html")],
            400,
            "Expecting 'subscribe' to be present",
        ),
        (SUBSCRIBE, &[JSON, ("Accept", "text/html"), WITH_STREAM], 406, "Accept"),
        (
            SUBSCRIBE,
            &[JSON, WITH_STREAM],
            400,
            "Subscribe calls should not include the 'Mesos-Stream-Id' header",
        ),
        // What a call without an answer accepts is of no interest.
        (KILL, &[JSON, ("Accept", "text/html")], 400, "Framework cannot be found"),
        (r#"{"type":"UNKNOWN","framework_id":{"value":"f"}}"#, &[JSON], 501, "not implemented"),
    ];
    for (body, headers, status, words) in cases {
        let answer = request(&running, "POST", PATH, headers, body).await;
        assert_eq!(answer.status, *status, "{body} {headers:?}: {}", answer.text());
        assert!(answer.text().contains(words), "{body}: {}", answer.text());
        assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
    }
    let answer =
        request(&running, "POST", PATH, &[("Content-Type", "application/x-protobuf")], "\u{1}junk").await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_call_needs_the_stream_of_its_framework() {
    let running = coordinator().await;
    let scheduler = Scheduler::subscribe(&running, MediaType::Json, info("streams")).await;
    let revive = json!({"type": "REVIVE", "framework_id": {"value": scheduler.id.value}}).to_string();
    let own = scheduler.stream.id.clone().unwrap();

    let answer = post_json(&running, PATH, &revive).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.text(), "All non-subscribe calls should include the 'Mesos-Stream-Id' header");
    for wrong in ["nonsense", "8b2c1e1e-0000-4000-8000-000000000000"] {
        let answer = request(&running, "POST", PATH, &[JSON, ("Mesos-Stream-Id", wrong)], &revive).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    let answer = request(&running, "POST", PATH, &[JSON, ("mesos-stream-id", &own)], &revive).await;
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.header("Content-Length")),
        (202, "", Some("0"))
    );

    // A framework that has gone away may not call.
    drop(scheduler);
    until("the framework to be away", || async {
        let answer = request(&running, "POST", PATH, &[JSON, ("Mesos-Stream-Id", &own)], &revive).await;
        (answer.status == 403).then_some(())
    })
    .await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn the_stream_begins_with_its_headers_and_subscribed() {
    let running = coordinator().await;
    let (head, mut stream) = open(&running, PATH, &[JSON, ("Accept", "application/json")], SUBSCRIBE).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.header("Content-Type"), Some("application/json"));
    assert_eq!(head.header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(head.header("Mesos-Stream-Id").map(str::len), Some(36));

    // Chunks, in them records.
    let mut decoder = tepui_api::recordio::Decoder::new();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let mut size = String::new();
        while !size.ends_with("\r\n") {
            size.push(char::from(in_time("a chunk", stream.read_u8()).await.unwrap()));
        }
        let mut chunk = vec![0; usize::from_str_radix(size.trim(), 16).unwrap() + 2];
        in_time("a chunk", stream.read_exact(&mut chunk)).await.unwrap();
        decoder.push(&chunk[..chunk.len() - 2]);
        while let Some(record) = decoder.next_record().unwrap() {
            seen.push(serde_json::from_slice::<serde_json::Value>(&record).unwrap());
        }
    }
    assert_eq!(seen[0]["type"], "SUBSCRIBED");
    let subscribed = &seen[0]["subscribed"];
    assert!(subscribed["framework_id"]["value"].is_string());
    assert_eq!(subscribed["heartbeat_interval_seconds"], json!(15.0));
    let master = &subscribed["master_info"];
    let port = running.address().port();
    assert_eq!(master["pid"], json!(format!("master@127.0.0.1:{port}")));
    assert_eq!(master["ip"], json!(16_777_343), "127.0.0.1 in network order, read as a little-endian number");
    assert_eq!(master["version"], "1.11.0");
    assert_eq!(master["address"], json!({"hostname": "127.0.0.1", "ip": "127.0.0.1", "port": port}));
    assert_eq!(seen[1], json!({"type": "HEARTBEAT"}));
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_goes_its_way() {
    for media in [MediaType::Json, MediaType::Protobuf] {
        let running = coordinator().await;
        let mut connection = Connection::open(&running).await;
        let mut link = connection.link().await.unwrap();
        let agent = link
            .register(register("one", "cpus:2;mem:1024;disk:100;ports:[31000-31009]", None, vec![]))
            .await;
        let mut scheduler = Scheduler::subscribe(&running, media, info("way")).await;

        let offer = scheduler.offer().await;
        assert_eq!((offer.agent_id.clone(), offer.hostname.as_str()), (agent.agent_id.clone(), "one"));
        let task = scheduler.launch(&offer, "task").await;
        let run = link.run_task().await;
        assert_eq!((&run.task.task_id, run.framework.id.as_ref()), (&task, Some(&scheduler.id)));

        for state in [TaskState::TaskRunning, TaskState::TaskFinished] {
            let uuid = link.update(&scheduler.id, &agent.agent_id, &task, state);
            let status = scheduler.update().await;
            assert_eq!((status.state(), status.uuid()), (state, uuid.as_slice()));
            assert_eq!(status.source(), task_status::Source::Executor);
            scheduler.acknowledge(&agent.agent_id, &task, &uuid).await;
            match link.next().await.unwrap() {
                Frame::Acknowledge(ack) => assert_eq!((&ack.task_id, &*ack.uuid), (&task, &*uuid)),
                other => panic!("instead of an acknowledgement: {other:?}"),
            }
        }
        let tasks = raw::post_json(&running, "/api/v1", r#"{"type":"GET_TASKS"}"#).await.json();
        assert_eq!(tasks["get_tasks"]["tasks"], json!([]));
        assert_eq!(tasks["get_tasks"]["completed_tasks"][0]["state"], "TASK_FINISHED");
        running.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_framework_ends_and_its_stream_with_it() {
    let running = coordinator().await;
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("ends")).await;
    scheduler.call(Call { r#type: Some(Type::Teardown.into()), ..Call::default() }).await.unwrap();
    let ended = in_time("the end of the stream", async {
        loop {
            if let Err(error) = scheduler.stream.next().await {
                return error;
            }
        }
    });
    assert!(matches!(ended.await, ClientError::Ended(_)));
    let frameworks = raw::post_json(&running, "/api/v1", r#"{"type":"GET_FRAMEWORKS"}"#).await.json();
    assert_eq!(frameworks["get_frameworks"]["frameworks"], json!([]));
    assert_eq!(frameworks["get_frameworks"]["completed_frameworks"][0]["framework_info"]["name"], "ends");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn another_instance_takes_over() {
    let running = coordinator().await;
    let mut first = Scheduler::subscribe(&running, MediaType::Json, info("twice")).await;
    let mut again = info("twice");
    again.id = Some(first.id.clone());
    let second = Scheduler::subscribe(&running, MediaType::Protobuf, again).await;
    assert_eq!(second.id, first.id);
    // The first one is told, and ended.
    first.event(event::Type::Error).await;
    let old = first.call(Call { r#type: Some(Type::Revive.into()), ..Call::default() }).await;
    assert!(matches!(old, Err(ClientError::Status { status, .. }) if status.as_u16() == 400), "{old:?}");
    second.call(Call { r#type: Some(Type::Revive.into()), ..Call::default() }).await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_task_that_is_not_known_is_reconciled() {
    let running = coordinator().await;
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("reconciles")).await;
    let unknown = call::reconcile::Task { task_id: "gone".into(), agent_id: Some("nowhere".into()) };
    scheduler
        .call(Call {
            r#type: Some(Type::Reconcile.into()),
            reconcile: Some(call::Reconcile { tasks: vec![unknown] }),
            ..Call::default()
        })
        .await
        .unwrap();
    let status = scheduler.update().await;
    assert_eq!(status.task_id.as_str(), "gone");
    assert_eq!(status.uuid, None, "it need not be acknowledged");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_subscription_with_an_id_that_ended_is_refused_on_the_stream() {
    let running = coordinator().await;
    let scheduler = Scheduler::subscribe(&running, MediaType::Json, info("removed")).await;
    scheduler.call(Call { r#type: Some(Type::Teardown.into()), ..Call::default() }).await.unwrap();
    let mut again = info("removed");
    again.id = Some(FrameworkId::new(scheduler.id.as_str()));
    let call = crate::support::scheduler::subscribe_call(again);
    let mut stream: tepui_api::client::EventStream<tepui_api::v1::scheduler::Event> =
        scheduler.client.subscribe(PATH, &call).await.unwrap();
    let first = in_time("an event", stream.next()).await.unwrap();
    assert_eq!(first.r#type(), event::Type::Error, "{first:?}");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_too_little_is_not_offered() {
    let least = "cpus:1;mem:512|disk:1".parse().unwrap();
    let running = start(Settings { min_allocatable_resources: least, ..settings() }).await.unwrap();
    let mut connection = Connection::open(&running).await;
    let mut links = Vec::new();
    for (name, resources) in [("small", "cpus:8;mem:256"), ("large", "cpus:1;mem:512")] {
        let mut link = connection.link().await.unwrap();
        link.register(register(name, resources, None, vec![])).await;
        links.push(link);
    }
    let mut scheduler = Scheduler::subscribe(&running, MediaType::Json, info("picky")).await;
    let offers = scheduler.event(event::Type::Offers).await.offers.unwrap().offers;
    let names: Vec<&str> = offers.iter().map(|offer| offer.hostname.as_str()).collect();
    assert_eq!(names, ["large"]);
    running.stop().await.unwrap();
}
