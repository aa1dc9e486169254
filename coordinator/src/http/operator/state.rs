//! The state in the v1 form, written straight from a snapshot.
//!
//! A cluster's tasks are many, so none is copied: each [`Section`] walks the snapshot and writes what it
//! finds, as JSON through serde or as protobuf field by field. Lists are written even when they are
//! empty, as Mesos' `ReadOnlyHandler` does.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::ser::{Serialize, SerializeMap, Serializer};
use tepui_api::MediaType;
use tepui_api::codec::encode_json;
use tepui_api::v1::master::event::Type as EventType;
use tepui_api::v1::master::response::{Type as ResponseType, get_executors, get_frameworks};

use crate::core::{Framework, Snapshot};

/// One part of the state, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Agents,
    Frameworks,
    Executors,
    Tasks,
    State,
}

/// What a response to `GET_…` is, with its field's number and name.
struct Place {
    kind: ResponseType,
    number: u32,
    name: &'static str,
}

/// A section of one snapshot, for serde.
#[derive(Clone, Copy)]
struct View<'a> {
    section: Section,
    state: &'a Snapshot,
}

/// A list that is walked when it is written.
struct List<F>(F);

/// The whole answer to `GET_AGENTS`, `GET_FRAMEWORKS`, `GET_EXECUTORS`, `GET_TASKS` or `GET_STATE`.
pub(super) fn response(section: Section, state: &Snapshot, media: MediaType) -> Vec<u8> {
    let Place { kind, number, name } = section.place();
    let view = View { section, state };
    match media {
        MediaType::Json => {
            let mut out = format!(r#"{{"type":"{}","{name}":"#, kind.as_str_name()).into_bytes();
            out.append(&mut encode_json(&view));
            out.push(b'}');
            out
        }
        MediaType::Protobuf => {
            let mut out = Vec::new();
            prost::encoding::int32::encode(1, &i32::from(kind), &mut out);
            put_bytes(number, &view.to_protobuf(), &mut out);
            out
        }
    }
}

/// The `SUBSCRIBED` event that an operator's stream begins with.
pub(super) fn subscribed(state: &Snapshot, heartbeat_seconds: f64, media: MediaType) -> Vec<u8> {
    let view = View { section: Section::State, state };
    match media {
        MediaType::Json => {
            let mut out = br#"{"type":"SUBSCRIBED","subscribed":{"get_state":"#.to_vec();
            out.append(&mut encode_json(&view));
            out.extend_from_slice(
                format!(r#","heartbeat_interval_seconds":{heartbeat_seconds:?}}}}}"#).as_bytes(),
            );
            out
        }
        MediaType::Protobuf => {
            let mut inner = Vec::new();
            put_bytes(1, &view.to_protobuf(), &mut inner);
            prost::encoding::double::encode(2, &heartbeat_seconds, &mut inner);
            let mut out = Vec::new();
            prost::encoding::int32::encode(1, &i32::from(EventType::Subscribed), &mut out);
            put_bytes(2, &inner, &mut out);
            out
        }
    }
}

/// Mesos counts the first subscription as the last one too, until there is another.
fn framework(framework: &Framework) -> get_frameworks::Framework {
    let mut wire = framework.to_wire();
    wire.reregistered_time = wire.reregistered_time.or(wire.registered_time);
    wire
}

fn executors(state: &Snapshot) -> impl Iterator<Item = get_executors::Executor> {
    state.frameworks.values().flat_map(|framework| &framework.executors).map(|((agent, _), info)| {
        get_executors::Executor { executor_info: (**info).clone(), agent_id: agent.clone() }
    })
}

// === impl Section ===

impl Section {
    fn place(self) -> Place {
        let (kind, number, name) = match self {
            Section::State => (ResponseType::GetState, 9, "get_state"),
            Section::Agents => (ResponseType::GetAgents, 10, "get_agents"),
            Section::Frameworks => (ResponseType::GetFrameworks, 11, "get_frameworks"),
            Section::Executors => (ResponseType::GetExecutors, 12, "get_executors"),
            Section::Tasks => (ResponseType::GetTasks, 13, "get_tasks"),
        };
        Place { kind, number, name }
    }
}

// === impl View ===

impl View<'_> {
    fn of(self, section: Section) -> Self {
        Self { section, ..self }
    }

    fn to_protobuf(self) -> Vec<u8> {
        let mut out = Vec::new();
        let state = self.state;
        match self.section {
            Section::Agents => {
                put_all(1, state.agents.values().map(|agent| agent.to_wire()), &mut out);
                state.recovered_agents.values().for_each(|info| put(2, &**info, &mut out));
            }
            Section::Frameworks => {
                put_all(1, state.frameworks.values().map(|each| framework(each)), &mut out);
                put_all(2, state.completed_frameworks.iter().map(|each| framework(each)), &mut out);
            }
            Section::Executors => put_all(1, executors(state), &mut out),
            Section::Tasks => {
                state.tasks().for_each(|task| put(2, &**task, &mut out));
                state.completed_tasks().for_each(|task| put(3, &**task, &mut out));
                state.unreachable_tasks().for_each(|task| put(5, &**task, &mut out));
            }
            Section::State => {
                put_bytes(1, &self.of(Section::Tasks).to_protobuf(), &mut out);
                put_bytes(2, &self.of(Section::Executors).to_protobuf(), &mut out);
                put_bytes(3, &self.of(Section::Frameworks).to_protobuf(), &mut out);
                put_bytes(4, &self.of(Section::Agents).to_protobuf(), &mut out);
            }
        }
        out
    }
}

impl Serialize for View<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let state = self.state;
        let mut map = to.serialize_map(None)?;
        match self.section {
            Section::Agents => {
                map.serialize_entry("agents", &List(|| state.agents.values().map(|agent| agent.to_wire())))?;
                map.serialize_entry("recovered_agents", &List(|| state.recovered_agents.values()))?;
            }
            Section::Frameworks => {
                map.serialize_entry(
                    "frameworks",
                    &List(|| state.frameworks.values().map(|each| framework(each))),
                )?;
                let completed = List(|| state.completed_frameworks.iter().map(|each| framework(each)));
                map.serialize_entry("completed_frameworks", &completed)?;
            }
            Section::Executors => map.serialize_entry("executors", &List(|| executors(state)))?,
            Section::Tasks => {
                map.serialize_entry("tasks", &List(|| state.tasks()))?;
                map.serialize_entry("unreachable_tasks", &List(|| state.unreachable_tasks()))?;
                map.serialize_entry("completed_tasks", &List(|| state.completed_tasks()))?;
            }
            Section::State => {
                for section in [Section::Tasks, Section::Executors, Section::Frameworks, Section::Agents] {
                    map.serialize_entry(section.place().name, &self.of(section))?;
                }
            }
        }
        map.end()
    }
}

// === impl List ===

impl<F, I> Serialize for List<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq((self.0)())
    }
}

fn put(number: u32, message: &impl Message, out: &mut Vec<u8>) {
    prost::encoding::message::encode(number, message, out);
}

fn put_all<M: Message>(number: u32, messages: impl Iterator<Item = M>, out: &mut Vec<u8>) {
    messages.for_each(|message| put(number, &message, out));
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
