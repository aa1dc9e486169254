//! Other resources for a container that runs.
//!
//! No process is stopped for it: each isolator writes its new limits, and the kernel applies them from then on. What a container has is
//! written down beside its shim's files before any isolator is told, so that an agent that starts anew tells its isolators what is in force
//! (`resources.json` in its runtime directory, [`Amounts`]). An agent that ended in the middle of an update finishes it when it starts.
//!
//! One isolator that fails must not leave the container between two sets of limits: those that had been told are told the old ones again.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tepui_api::resources::Resources;
use tepui_api::v1::{ContainerId, Resource};
use tepui_isolators::{ContainerContext, Limits};

use super::{Container, Inner, NativeContainerizer};
use crate::containerizer::error::UpdateError;

/// The file in a container's runtime directory.
const FILE: &str = "resources.json";
const NEW_FILE: &str = "resources.json.new";

/// What a container may use.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Amounts {
    /// What it is certain to get.
    pub resources: Vec<Resource>,
    /// What it gets at most.
    pub limits: Limits,
}

/// What stands in the file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    resources: Vec<Resource>,
    /// As text, since JSON has no number for infinity.
    limits: BTreeMap<String, String>,
    /// Whether all isolators have been told.
    settled: bool,
}

impl NativeContainerizer {
    /// Gives a container other resources, without stopping its processes.
    ///
    /// When an isolator fails, all that had been told are told the former resources again, so that those stay in force; the error says
    /// when that did not succeed either. (A hard limit of memory that was raised stays raised: taking back what a program may have
    /// used by then would kill it.)
    ///
    /// # Errors
    /// When there is no such container, it is being destroyed, the change cannot be written down, or an isolator fails.
    pub async fn update(
        &self,
        id: &ContainerId,
        resources: &[Resource],
        limits: &Limits,
    ) -> Result<(), UpdateError> {
        let container = self.inner.get(id).ok_or_else(|| UpdateError::Unknown(id.to_string()))?;
        let amounts = Amounts { resources: resources.to_vec(), limits: limits.clone() };
        // A caller that goes away must not leave an update half done.
        let inner = std::sync::Arc::clone(&self.inner);
        let done = tokio::spawn(async move { inner.update(&container, amounts).await });
        done.await.map_err(|error| UpdateError::Interrupted(error.to_string()))?
    }
}

impl Inner {
    async fn update(&self, container: &Container, amounts: Amounts) -> Result<(), UpdateError> {
        let _turn = container.calls.lock().await;
        if *container.doomed.borrow() {
            return Err(UpdateError::Unknown(container.id().to_string()));
        }
        let runtime = &container.dirs.runtime;
        amounts.save(runtime, false).map_err(UpdateError::Record)?;
        match self.tell(container, &amounts).await {
            Ok(()) => {
                tracing::info!(container = %container.id(), resources = %Resources::from_wire_lossy(&amounts.resources), "a container has other resources");
                let saved = amounts.save(runtime, true);
                container.set_amounts(amounts);
                saved.map_err(UpdateError::Record)
            }
            Err(error) => {
                container.amounts().save(runtime, true).map_err(UpdateError::Record)?;
                Err(error)
            }
        }
    }

    /// Tells all isolators, or, if one fails, those that were told what was before.
    async fn tell(&self, container: &Container, amounts: &Amounts) -> Result<(), UpdateError> {
        let isolators: Vec<_> = self.isolators(container).collect();
        let (id, requests) = (container.id(), Resources::from_wire_lossy(&amounts.resources));
        for (index, isolator) in isolators.iter().enumerate() {
            let Err(source) = isolator.update(id, &requests, &amounts.limits).await else { continue };
            let before = container.amounts();
            let requests = Resources::from_wire_lossy(&before.resources);
            let mut stuck = Vec::new();
            for told in isolators.iter().take(index + 1).rev() {
                if let Err(error) = told.update(id, &requests, &before.limits).await {
                    tracing::error!(container = %id, isolator = told.name(), %error, "an isolator does not go back to the former resources");
                    stuck.push(told.name().to_owned());
                }
            }
            return Err(UpdateError::Isolator { name: isolator.name().to_owned(), source, stuck });
        }
        Ok(())
    }

    /// Finishes an update that the agent was in the middle of when it ended.
    pub(super) async fn settle(&self, container: &Container) {
        let _turn = container.calls.lock().await;
        let amounts = container.amounts();
        tracing::info!(container = %container.id(), "finishing a change of a container's resources");
        let told = self.tell(container, &amounts).await;
        let settled = match told {
            Ok(()) => amounts.save(&container.dirs.runtime, true).map_err(UpdateError::Record),
            Err(error) => Err(error),
        };
        if let Err(error) = settled {
            tracing::error!(container = %container.id(), %error, "a change of a container's resources could not be finished");
        }
    }
}

impl Container {
    /// What it may use now.
    pub(super) fn amounts(&self) -> Amounts {
        self.amounts.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub(super) fn set_amounts(&self, amounts: Amounts) {
        *self.amounts.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = amounts;
    }

    /// What isolators are told of it, with its resources as they are now.
    pub(super) fn context(&self) -> ContainerContext {
        let Amounts { resources, limits } = self.amounts();
        ContainerContext { requests: Resources::from_wire_lossy(&resources), limits, ..self.config.context() }
    }

    /// Takes up what an earlier run of the agent wrote down.
    pub(super) fn recall(&self) {
        match Amounts::load(&self.dirs.runtime) {
            Ok(None) => {}
            Ok(Some((amounts, _))) => self.set_amounts(amounts),
            Err(error) => {
                tracing::error!(container = %self.id(), %error, "the resources of a container that were changed cannot be read: it is taken to have those that it began with");
            }
        }
    }

    /// Whether the agent ended in the middle of an update.
    pub(super) fn is_unsettled(&self) -> bool {
        matches!(Amounts::load(&self.dirs.runtime), Ok(Some((_, false))))
    }
}

// === impl Amounts ===

impl Amounts {
    /// Appears whole or not at all. Not synced: no container survives the death of the machine.
    fn save(&self, runtime: &Path, settled: bool) -> io::Result<()> {
        let limits = self.limits.iter().map(|(name, limit)| (name.clone(), limit.to_string())).collect();
        let record = Record { resources: self.resources.clone(), limits, settled };
        let new = runtime.join(NEW_FILE);
        std::fs::write(&new, serde_json::to_vec(&record)?)?;
        std::fs::rename(new, runtime.join(FILE))
    }

    /// With whether all isolators had been told. `None` for a container that has what it began with.
    fn load(runtime: &Path) -> io::Result<Option<(Self, bool)>> {
        let text = match std::fs::read(runtime.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Record { resources, limits, settled } = serde_json::from_slice(&text)?;
        let limits: Result<Limits, _> =
            limits.into_iter().map(|(name, text)| Ok((name, text.parse()?))).collect();
        let limits = limits.map_err(|error: std::num::ParseFloatError| io::Error::other(error))?;
        Ok(Some((Self { resources, limits }, settled)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_again_with_infinite_limits() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Amounts::load(dir.path()).unwrap(), None);
        let resources = Resources::parse("cpus:0.1;mem:32;ports:[1-5]", "*").unwrap().to_wire();
        let limits = Limits::from([("cpus".to_owned(), f64::INFINITY), ("mem".to_owned(), 64.5)]);
        let amounts = Amounts { resources, limits };
        for settled in [false, true] {
            amounts.save(dir.path(), settled).unwrap();
            assert_eq!(Amounts::load(dir.path()).unwrap(), Some((amounts.clone(), settled)));
        }
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(Amounts::load(dir.path()).is_err());
    }
}
