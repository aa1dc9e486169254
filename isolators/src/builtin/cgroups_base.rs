//! The cgroups themselves: made before any isolator writes to them, removed after all have let go.
//!
//! In every composition on a host with cgroups, without a name in `--isolation`, as Mesos' Linux launcher does it with the freezer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::cgroups::Cgroups;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Recovered, done,
};

/// How long processes may take to end after SIGKILL, and the kernel to let go of their cgroup.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes and removes cgroups.
pub struct CgroupsBase {
    cgroups: Arc<Cgroups>,
}

impl CgroupsBase {
    /// On these cgroups.
    pub fn new(cgroups: Arc<Cgroups>) -> Self {
        CgroupsBase { cgroups }
    }

    fn prepare(&self, id: &ContainerId, contribution: &mut Contribution) -> Result<(), IsolatorError> {
        self.cgroups.create(id)?;
        contribution.cgroup_procs.extend(self.cgroups.attach_files(id)?);
        Ok(())
    }

    async fn remove(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let (cgroups, id) = (Arc::clone(&self.cgroups), id.clone());
        let removal = tokio::task::spawn_blocking(move || {
            cgroups.kill_all(&id, PATIENCE)?;
            cgroups.destroy(&id, PATIENCE)
        });
        removal
            .await
            .map_err(|error| IsolatorError::Failed(format!("removing cgroups failed: {error}")))??;
        Ok(())
    }
}

impl Isolator for CgroupsBase {
    fn name(&self) -> &str {
        "cgroups"
    }

    /// Removes, with all processes in them, the cgroups of containers that nobody knows.
    fn recover<'a>(&'a self, known: &'a [Recovered], orphans: &'a [ContainerId]) -> Answer<'a> {
        Box::pin(async move {
            let known = known.iter().map(|one| &one.context.container_id).chain(orphans);
            let known: BTreeSet<ContainerId> = known.cloned().collect();
            for id in self.cgroups.orphans(&known)? {
                tracing::info!(container = %id, "Removing the cgroups of a container that nobody knows.");
                self.remove(&id).await?;
            }
            Ok(())
        })
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(CgroupsBase::prepare(self, &context.container_id, contribution))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        Box::pin(self.remove(id))
    }
}
