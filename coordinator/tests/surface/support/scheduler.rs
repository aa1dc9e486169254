//! A framework.

use tepui_api::MediaType;
use tepui_api::client::{Client, ClientError, EventStream};
use tepui_api::resources::Resources;
use tepui_api::v1::framework_info::{Capability, capability};
use tepui_api::v1::offer::{Operation, operation};
use tepui_api::v1::scheduler::call::{self, Type};
use tepui_api::v1::scheduler::{Call, Event, event};
use tepui_api::v1::{
    AgentId, CommandInfo, Filters, FrameworkId, FrameworkInfo, Offer, TaskId, TaskInfo, TaskStatus,
};
use tepui_coordinator::Running;

use super::{authority, in_time};

pub const PATH: &str = "/api/v1/scheduler";

/// A subscribed framework.
pub struct Scheduler {
    pub client: Client,
    pub stream: EventStream<Event>,
    pub id: FrameworkId,
}

pub fn info(name: &str) -> FrameworkInfo {
    FrameworkInfo {
        user: "root".to_owned(),
        name: name.to_owned(),
        roles: vec!["*".to_owned()],
        capabilities: vec![Capability { r#type: Some(capability::Type::MultiRole.into()) }],
        failover_timeout: Some(60.0),
        ..FrameworkInfo::default()
    }
}

pub fn subscribe_call(info: FrameworkInfo) -> Call {
    Call {
        framework_id: info.id.clone(),
        r#type: Some(Type::Subscribe.into()),
        subscribe: Some(call::Subscribe { framework_info: info, ..call::Subscribe::default() }),
        ..Call::default()
    }
}

impl Scheduler {
    pub async fn subscribe(running: &Running, media: MediaType, info: FrameworkInfo) -> Self {
        let client = Client::new(authority(running), media);
        let mut stream: EventStream<Event> =
            in_time("a subscription", client.subscribe(PATH, &subscribe_call(info))).await.unwrap();
        let first = in_time("SUBSCRIBED", stream.next()).await.unwrap();
        assert_eq!(first.r#type(), event::Type::Subscribed, "{first:?}");
        let id = first.subscribed.unwrap().framework_id;
        Self { client, stream, id }
    }

    /// A call of this framework, on its stream.
    pub async fn call(&self, call: Call) -> Result<(), ClientError> {
        let call = Call { framework_id: Some(self.id.clone()), ..call };
        in_time("an answer", self.client.send(PATH, &call, self.stream.id.as_deref())).await
    }

    /// The next event of this type; others are passed over.
    pub async fn event(&mut self, wanted: event::Type) -> Event {
        in_time(&format!("{wanted:?}"), async {
            loop {
                let event = self.stream.next().await.unwrap();
                if event.r#type() == wanted {
                    return event;
                }
            }
        })
        .await
    }

    pub async fn offer(&mut self) -> Offer {
        self.event(event::Type::Offers).await.offers.unwrap().offers.remove(0)
    }

    pub async fn update(&mut self) -> TaskStatus {
        self.event(event::Type::Update).await.update.unwrap().status
    }

    /// Launches a command task on an offer.
    pub async fn launch(&self, offer: &Offer, task: &str) -> TaskId {
        let id = TaskId::new(task);
        let task = TaskInfo {
            name: task.to_owned(),
            task_id: id.clone(),
            agent_id: offer.agent_id.clone(),
            resources: Resources::parse("cpus:0.1;mem:32", "*").unwrap().to_wire(),
            command: Some(CommandInfo { value: Some("true".to_owned()), ..CommandInfo::default() }),
            ..TaskInfo::default()
        };
        let launch = Operation {
            r#type: Some(operation::Type::Launch.into()),
            launch: Some(operation::Launch { task_infos: vec![task] }),
            ..Operation::default()
        };
        self.call(Call {
            r#type: Some(Type::Accept.into()),
            accept: Some(call::Accept {
                offer_ids: vec![offer.id.clone()],
                operations: vec![launch],
                // What is left over comes back at once.
                filters: Some(Filters { refuse_seconds: Some(0.0) }),
            }),
            ..Call::default()
        })
        .await
        .unwrap();
        id
    }

    pub async fn acknowledge(&self, agent: &AgentId, task: &TaskId, uuid: &[u8]) {
        self.call(Call {
            r#type: Some(Type::Acknowledge.into()),
            acknowledge: Some(call::Acknowledge {
                agent_id: agent.clone(),
                task_id: task.clone(),
                uuid: uuid.to_vec(),
            }),
            ..Call::default()
        })
        .await
        .unwrap();
    }
}
