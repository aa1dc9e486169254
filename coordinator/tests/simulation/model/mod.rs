//! Models of what talks to a coordinator: agents and frameworks, each with the protocol that a real one keeps.
//!
//! A model is told what arrives and what time it is, and answers with what it says. It knows nothing of
//! the core; the network between them, and all that goes wrong, is the [`world`](crate::world)'s.

pub mod accept;
pub mod agent;
pub mod calls;
pub mod framework;
pub mod shapes;
pub mod updates;

use std::time::Duration;

use tepui_api::v1::{FrameworkId, TaskId, TaskState};

/// Names a task.
pub type Key = (FrameworkId, TaskId);

/// Whether nothing follows this state.
pub fn is_terminal(state: TaskState) -> bool {
    !matches!(
        state,
        TaskState::TaskStaging
            | TaskState::TaskStarting
            | TaskState::TaskRunning
            | TaskState::TaskKilling
            | TaskState::TaskUnreachable
            | TaskState::TaskUnknown
    )
}

/// The earliest of these.
pub fn earliest(times: impl IntoIterator<Item = Option<Duration>>) -> Option<Duration> {
    times.into_iter().flatten().min()
}
