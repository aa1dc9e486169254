//! From what an earlier run left to a core that goes on from there: is this still the same agent, has the machine been restarted, and
//! what has become of the containers.
//!
//! | the machine | the agent is as its policy allows | then |
//! | --- | --- | --- |
//! | ran on | yes | it keeps its id, and containers go on |
//! | ran on | no | it does not start, and says what differs |
//! | was restarted | yes | it keeps its id; its tasks have failed, unless they are known to have ended before |
//! | was restarted | no | it registers as a new agent, since nothing is left that could be lost |
//!
//! So it is in Mesos since 1.4. With `--recover=cleanup`, containers that go on are ended, and then the agent.

use std::collections::HashMap;
use std::sync::Arc;

use tepui_api::v1::ContainerId;

use super::StartError;
use super::threads::Workers;
use crate::by_call::ByCalls;
use crate::core::{Core, Found, Input, Launch, Output, StoredState};
use crate::flags::{Recover, Settings};
use crate::reconfiguration;
use crate::sandbox::gc;
use crate::shell::backend::Backend;
use crate::shell::{Clock, Containers};

/// Where the kernel tells which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Brings the core to where the earlier run was.
///
/// # Errors
/// When the agent is not the one that it was, or its containers cannot be looked for.
#[expect(clippy::too_many_arguments, reason = "it ties together what is otherwise apart")]
pub(super) async fn recover(
    core: &mut Core,
    mut state: StoredState,
    settings: &Settings,
    backend: &Arc<dyn Backend>,
    containers: &Containers,
    by_calls: &ByCalls,
    workers: &Workers,
    clock: Clock,
    out: &mut Vec<Output>,
) -> Result<(), StartError> {
    let boot_id = boot_id();
    let rebooted = state.boot_id.is_some() && boot_id.is_some() && state.boot_id != boot_id;
    if rebooted {
        tracing::info!("the machine was restarted since the agent ran last: its containers are gone");
    }
    let changed = changed(&state, core, settings);
    if let (true, Some(error)) = (rebooted, &changed) {
        tracing::warn!(%error, "registering as a new agent");
        // Their age counts from now on: nobody noted their ends.
        state.launches().for_each(|(_, launch)| gc::touch(&launch.directory));
        core.forget(out);
        state = StoredState::default();
    } else if let Some(error) = changed {
        return Err(error);
    }
    let mut found = find(&state, backend, containers, by_calls, workers).await?;
    if rebooted {
        // Nobody knows the status of those that the machine took along.
        for found in found.values_mut() {
            if matches!(found, Found::Running { .. } | Found::Exited { status: None, .. }) {
                *found = Found::Nothing;
            }
        }
    }
    by_calls.recovered(&found);
    core.recover(clock.now(), state, &found, out);
    if let Some(boot_id) = boot_id {
        core.note_boot(boot_id, out);
    }
    if settings.recover == Recover::Cleanup {
        tracing::info!("ending all containers of earlier runs, and then this agent");
        core.step(clock.now(), Input::CleanUp, out);
    }
    Ok(())
}

fn boot_id() -> Option<String> {
    match std::fs::read_to_string(BOOT_ID) {
        Ok(id) => Some(id.trim().to_owned()),
        Err(error) => {
            tracing::warn!(%error, path = BOOT_ID, "cannot tell whether the machine was restarted");
            None
        }
    }
}

/// What of the agent is not as it was, if its policy does not allow that.
fn changed(state: &StoredState, core: &Core, settings: &Settings) -> Option<StartError> {
    let before = state.agent.as_ref()?;
    let now = core.snapshot().agent;
    let refused = reconfiguration::check(settings.reconfiguration_policy, before, &now).err()?;
    Some(StartError::Changed {
        id: before.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        changes: refused.differences,
        policy: refused.allowed_by,
        state: settings.work_dir.join("meta"),
    })
}

/// Finds the containers of an earlier run.
async fn find(
    state: &StoredState,
    backend: &Arc<dyn Backend>,
    containers: &Containers,
    by_calls: &ByCalls,
    workers: &Workers,
) -> Result<HashMap<ContainerId, Found>, StartError> {
    let mut known: Vec<(ContainerId, Arc<Launch>)> = state.launches().collect();
    for (id, launch) in &known {
        containers.adopt(id.clone(), launch.directory.clone());
    }
    known.extend(by_calls.launches());
    if !known.is_empty() {
        tracing::info!(containers = known.len(), "looking for the containers of an earlier run");
    }
    let backend = Arc::clone(backend);
    let found = workers.handle().spawn(async move { backend.recover(known).await });
    let found = found.await.map_err(|error| StartError::Containerizer(error.to_string()))?;
    found.map_err(StartError::Containerizer)
}
