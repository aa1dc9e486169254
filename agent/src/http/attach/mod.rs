//! Input and output of containers, and commands run beside tasks: ATTACH_CONTAINER_INPUT, ATTACH_CONTAINER_OUTPUT and
//! LAUNCH_NESTED_CONTAINER_SESSION.
//!
//! ```text
//!  LAUNCH_NESTED_CONTAINER_SESSION ──► [sessions]  a command in the parent's container, known by the id that the call gives it
//!       its answer ◄── [output] ◄──────────┤
//!  ATTACH_CONTAINER_OUTPUT ◄── [output] ◄──┤       or [follow]: the files of a task
//!  ATTACH_CONTAINER_INPUT ──► [input] ─────┘       or the terminal of a task
//! ```
//!
//! Both directions are RecordIO streams: [media] says of what. A session is Mesos' debug container: it lives in the namespaces and cgroups of its parent, and
//! ends with the connection that launched it, with its parent and with the agent.

mod follow;
mod input;
mod media;
mod output;
mod sessions;

pub(super) use input::{Calls, input};
pub(super) use media::{Form, accept, content};
pub(super) use output::output;
pub(crate) use sessions::Sessions;
pub(super) use sessions::{launch, of_session};

use tepui_api::http::Refusal;
use tepui_api::v1::ContainerId;

use crate::shell::backend::Backend;

/// Mesos' `MAX_CONTAINER_ID_LENGTH`.
const LONGEST_ID: usize = 242;

/// Checks an id as Mesos does, its parents too.
fn check_id(id: &ContainerId, field: &str) -> Result<(), Refusal> {
    let refused = |why: String| Refusal::bad_request(format!("'{field}' is invalid: {why}"));
    let mut next = Some(id);
    while let Some(id) = next {
        let value = &id.value;
        if value.is_empty() {
            return Err(refused("ID must not be empty".to_owned()));
        }
        if value.len() > LONGEST_ID {
            return Err(refused(format!(
                "'ContainerID.value' '{value}' exceeds the maximum length ({LONGEST_ID})"
            )));
        }
        if value.contains(|c: char| matches!(c, '.' | ' ' | '/' | '\\') || c.is_control()) {
            return Err(refused(format!("'ContainerID.value' '{value}' contains invalid characters")));
        }
        next = id.parent.as_deref();
    }
    Ok(())
}

/// Whether a container has a process. One that nobody can be asked about has none.
async fn runs(backend: &dyn Backend, id: &ContainerId) -> bool {
    matches!(backend.status(id.clone()).await, Ok(status) if status.executor_pid.is_some())
}

fn not_found(id: &ContainerId) -> Refusal {
    Refusal::new(http::StatusCode::NOT_FOUND, format!("Container {id} cannot be found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_with_their_parents() {
        let with_parent = |value: &str, parent: &str| ContainerId {
            parent: Some(Box::new(ContainerId::new(parent))),
            ..ContainerId::new(value)
        };
        assert!(check_id(&with_parent("debug", "4c7e"), "id").is_ok());
        for (value, parent) in [("", "p"), ("a.b", "p"), ("a", "p/q"), ("a", ""), ("a b", "p")] {
            assert!(check_id(&with_parent(value, parent), "id").is_err(), "{value} {parent}");
        }
        assert!(check_id(&ContainerId::new("x".repeat(243)), "id").is_err());
    }
}
