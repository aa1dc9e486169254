//! Launching, waiting for, killing and removing containers by call: those nested in a container, and those that stand alone.
//!
//! The calls with `NESTED` in their names are Mesos' older ones, for containers with a parent only. Status codes are Mesos': 200 when done,
//! 202 for a container that is there already, 400 for one that cannot be, 404 for one that is not there, 500 for one that cannot be removed yet.

use http::StatusCode;
use tepui_api::MediaType;
use tepui_api::http::{Refusal, empty, message};
use tepui_api::resources::Resources;
use tepui_api::v1::agent::call::Type;
use tepui_api::v1::agent::response::{Type as Answered, WaitContainer, WaitNestedContainer};
use tepui_api::v1::agent::{Call, Response};
use tepui_api::v1::{ContainerId, ContainerInfo, Resource, TaskResourceLimitation, TaskState};

use super::{Answer, Context};
use crate::by_call::{Asked, Ended, Launched, RemoveError};

/// The longest id, in bytes, as in Mesos.
const LONGEST_ID: usize = 242;
/// What a container is killed with when the call names no signal.
const KILL: i32 = 9;

/// Whether a call is one of these.
pub(super) fn knows(kind: Type) -> bool {
    matches!(
        kind,
        Type::LaunchContainer
            | Type::LaunchNestedContainer
            | Type::WaitContainer
            | Type::WaitNestedContainer
            | Type::KillContainer
            | Type::KillNestedContainer
            | Type::RemoveContainer
            | Type::RemoveNestedContainer
    )
}

/// Answers a call.
pub(super) async fn answer(context: &Context, call: Call, answered_as: MediaType) -> Answer {
    match call.r#type() {
        Type::LaunchContainer => {
            let asked = call.launch_container.ok_or_else(|| missing("launch_container"))?;
            let asked = Asked {
                id: asked.container_id,
                command: asked.command.unwrap_or_default(),
                container: asked.container,
                resources: asked.resources,
                limits: asked.limits.into_iter().collect(),
            };
            check_launch(&asked).map_err(|why| invalid("launch_container", &why))?;
            launch(context, asked).await
        }
        Type::LaunchNestedContainer => {
            let asked = call.launch_nested_container.ok_or_else(|| missing("launch_nested_container"))?;
            let asked = Asked {
                id: nested(asked.container_id, "launch_nested_container")?,
                command: asked.command.unwrap_or_default(),
                container: asked.container,
                ..Asked::default()
            };
            check_launch(&asked).map_err(|why| invalid("launch_nested_container", &why))?;
            launch(context, asked).await
        }
        Type::WaitContainer => {
            let wait = call.wait_container.ok_or_else(|| missing("wait_container"))?;
            let ended = wait_for(context, checked(wait.container_id, "wait_container")?).await?;
            let (state, reason, limitation, words) = limited(&ended);
            let wait_container =
                WaitContainer { exit_status: ended.status, state, reason, limitation, message: words };
            let response = Response {
                r#type: Some(Answered::WaitContainer as i32),
                wait_container: Some(wait_container),
                ..Response::default()
            };
            Ok(message(answered_as, &response))
        }
        Type::WaitNestedContainer => {
            let wait = call.wait_nested_container.ok_or_else(|| missing("wait_nested_container"))?;
            let ended = wait_for(context, nested(wait.container_id, "wait_nested_container")?).await?;
            let (state, reason, limitation, words) = limited(&ended);
            let wait_nested_container =
                WaitNestedContainer { exit_status: ended.status, state, reason, limitation, message: words };
            let response = Response {
                r#type: Some(Answered::WaitNestedContainer as i32),
                wait_nested_container: Some(wait_nested_container),
                ..Response::default()
            };
            Ok(message(answered_as, &response))
        }
        Type::KillContainer => {
            let kill = call.kill_container.ok_or_else(|| missing("kill_container"))?;
            signal(context, checked(kill.container_id, "kill_container")?, kill.signal).await
        }
        Type::KillNestedContainer => {
            let kill = call.kill_nested_container.ok_or_else(|| missing("kill_nested_container"))?;
            signal(context, nested(kill.container_id, "kill_nested_container")?, kill.signal).await
        }
        Type::RemoveContainer => {
            let remove = call.remove_container.ok_or_else(|| missing("remove_container"))?;
            remove_one(context, checked(remove.container_id, "remove_container")?).await
        }
        Type::RemoveNestedContainer => {
            let remove = call.remove_nested_container.ok_or_else(|| missing("remove_nested_container"))?;
            remove_one(context, nested(remove.container_id, "remove_nested_container")?).await
        }
        other => Err(Refusal::not_implemented(format!("the call {}", other.as_str_name()))),
    }
}

async fn launch(context: &Context, asked: Asked) -> Answer {
    match context.by_calls.launch(asked).await {
        Ok(Launched::Now) => Ok(empty(StatusCode::OK)),
        Ok(Launched::Before) => Ok(empty(StatusCode::ACCEPTED)),
        Err(why) => Err(Refusal::bad_request(why)),
    }
}

async fn wait_for(context: &Context, id: ContainerId) -> Result<Ended, Refusal> {
    let not_found = || Refusal::new(StatusCode::NOT_FOUND, format!("Container {id} cannot be found"));
    context.by_calls.wait(&id).await.ok_or_else(not_found)
}

async fn signal(context: &Context, id: ContainerId, signal: Option<i32>) -> Answer {
    match context.by_calls.kill(&id, signal.unwrap_or(KILL)).await {
        Ok(true) => Ok(empty(StatusCode::OK)),
        Ok(false) => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("Container '{id}' cannot be found (or is already killed)"),
        )),
        Err(why) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, why)),
    }
}

async fn remove_one(context: &Context, id: ContainerId) -> Answer {
    match context.by_calls.remove(&id).await {
        Ok(()) => Ok(empty(StatusCode::OK)),
        Err(error @ RemoveError::Unknown(_)) if id.parent.is_none() => {
            Err(Refusal::new(StatusCode::NOT_FOUND, error.to_string()))
        }
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

/// What is said of a container that was ended for a limit, and of no other.
fn limited(ended: &Ended) -> (Option<i32>, Option<i32>, Option<TaskResourceLimitation>, Option<String>) {
    let Some(limitation) = &ended.limitation else { return (None, None, None, None) };
    let resources = TaskResourceLimitation { resources: limitation.resources.clone() };
    let resources = Some(resources).filter(|limitation| !limitation.resources.is_empty());
    let (state, reason) = (TaskState::TaskFailed as i32, limitation.reason as i32);
    (Some(state), Some(reason), resources, Some(limitation.message.clone()))
}

/// The id, if it may be one.
fn checked(id: ContainerId, call: &str) -> Result<ContainerId, Refusal> {
    match check_id(&id) {
        Ok(()) => Ok(id),
        Err(why) => Err(Refusal::bad_request(format!("'{call}.container_id' is invalid: {why}"))),
    }
}

/// The same, if it has a parent.
fn nested(id: ContainerId, call: &str) -> Result<ContainerId, Refusal> {
    let id = checked(id, call)?;
    match id.parent {
        Some(_) => Ok(id),
        None => Err(missing(&format!("{call}.container_id.parent"))),
    }
}

/// As Mesos has it: the text of an id with parents has periods between them, so that none may have one itself.
fn check_id(id: &ContainerId) -> Result<(), String> {
    let value = &id.value;
    if value.is_empty() {
        return Err("ID must not be empty".to_owned());
    }
    if value.len() > LONGEST_ID {
        return Err(format!("'ContainerID.value' exceeds the maximum length ({LONGEST_ID})"));
    }
    if value.chars().any(|c| c.is_control() || matches!(c, '/' | '\\' | '.' | ' ')) {
        return Err(format!("'ContainerID.value' '{value}' contains invalid characters"));
    }
    match &id.parent {
        Some(parent) => check_id(parent).map_err(|why| format!("'ContainerID.parent' is invalid: {why}")),
        None => Ok(()),
    }
}

fn check_launch(asked: &Asked) -> Result<(), String> {
    check_id(&asked.id).map_err(|why| format!("its 'container_id' is invalid: {why}"))?;
    let parent = asked.id.parent.as_deref();
    let twice_nested = parent.is_some_and(|parent| parent.parent.is_some());
    let linux = asked.container.as_ref().and_then(|container: &ContainerInfo| container.linux_info.as_ref());
    let shares = linux.and_then(|linux| linux.share_cgroups);
    Resources::from_wire(&asked.resources).map_err(|error| format!("invalid resources: {error}"))?;
    if parent.is_none() {
        asked.resources.iter().try_for_each(check_alone)?;
        if shares == Some(true) {
            return Err("containers without a parent cannot set 'share_cgroups' to 'true'".to_owned());
        }
    }
    if twice_nested {
        for (there, what) in [
            (!asked.resources.is_empty(), "specify resources"),
            (!asked.limits.is_empty(), "specify resource limits"),
            (shares == Some(false), "set 'share_cgroups' to 'false'"),
        ] {
            if there {
                return Err(format!("containers nested at the second level or greater cannot {what}"));
            }
        }
    }
    Ok(())
}

/// The coordinator knows nothing of what a container that stands alone uses, so it can be nobody's.
fn check_alone(resource: &Resource) -> Result<(), String> {
    let reserved = !resource.reservations.is_empty()
        || resource.reservation.is_some()
        || resource.role.as_ref().is_some_and(|role| role != "*");
    if reserved {
        return Err("its 'resources' must be unreserved".to_owned());
    }
    if resource.disk.as_ref().is_some_and(|disk| disk.persistence.is_some()) {
        return Err("its 'resources' may not use persistent volumes".to_owned());
    }
    if resource.revocable.is_some() {
        return Err("its 'resources' must be non-revocable".to_owned());
    }
    Ok(())
}

fn missing(field: &str) -> Refusal {
    Refusal::bad_request(format!("Expecting '{field}' to be present"))
}

fn invalid(call: &str, why: &str) -> Refusal {
    Refusal::bad_request(format!("'{call}' is invalid: {why}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tepui_api::v1::LinuxInfo;
    use tepui_api::v1::value::Scalar;

    use super::*;

    fn id(names: &[&str]) -> ContainerId {
        let nested = |parent: Option<ContainerId>, name: &&str| {
            Some(ContainerId { parent: parent.map(Box::new), ..ContainerId::new(*name) })
        };
        names.iter().fold(None, nested).unwrap()
    }

    #[test]
    fn ids_are_what_mesos_takes() {
        for good in [&["a"][..], &["a", "b-c_d"], &["a", "b", "c"]] {
            assert_eq!(check_id(&id(good)), Ok(()));
        }
        let long = "x".repeat(LONGEST_ID + 1);
        for bad in [&[""][..], &["a.b"], &["a b"], &["..", "b"], &["a/b"], &["a", ""], &[&long]] {
            assert!(check_id(&id(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_nested_deep_has_nothing_of_its_own() {
        let linux = |share_cgroups| {
            let linux_info = Some(LinuxInfo { share_cgroups: Some(share_cgroups), ..LinuxInfo::default() });
            Some(ContainerInfo { linux_info, ..ContainerInfo::default() })
        };
        let asked = |names: &[&str], container| Asked { id: id(names), container, ..Asked::default() };
        assert!(check_launch(&asked(&["a", "b"], linux(false))).is_ok());
        assert!(check_launch(&asked(&["a", "b", "c"], linux(true))).is_ok());
        assert!(check_launch(&asked(&["a", "b", "c"], linux(false))).is_err());
        assert!(check_launch(&asked(&["a"], linux(true))).is_err());
        let resources = Resources::parse("cpus:0.1", "*").unwrap().to_wire();
        let with = |names: &[&str]| Asked { resources: resources.clone(), ..asked(names, None) };
        assert!(check_launch(&with(&["a"])).is_ok() && check_launch(&with(&["a", "b"])).is_ok());
        assert!(check_launch(&with(&["a", "b", "c"])).is_err());
        let limits = HashMap::from([("mem".to_owned(), Scalar { value: 32.0 })]);
        assert!(check_launch(&Asked { limits, ..asked(&["a", "b", "c"], None) }).is_err());
    }
}
