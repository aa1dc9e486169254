//! `namespaces/pid`: a container sees only its own processes, and when its first one ends the kernel ends the others.
//!
//! Drives `clone(2)`'s CLONE_NEWPID through the runtime spec. `linux_info.share_pid_namespace` keeps a container in its parent's
//! namespace, unless `--disallow_sharing_agent_pid_namespace` forbids it for one whose parent is the agent.
//! Rules: `pid_namespaces(7)`; Mesos' `docs/isolators/namespaces-pid.md`.

use std::sync::Arc;

use oci_spec::runtime::LinuxNamespaceType;

use super::{own_namespace, shared_namespace};
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

struct NamespacesPid {
    /// `--disallow_sharing_agent_pid_namespace`.
    own_at_top: bool,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(NamespacesPid { own_at_top: parts.settings.disallow_sharing_agent_pid_namespace }))
}

impl NamespacesPid {
    fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        let linux = context.container.as_ref().and_then(|container| container.linux_info.as_ref());
        if !linux.is_some_and(|linux| linux.share_pid_namespace()) {
            own_namespace(&mut contribution.spec, LinuxNamespaceType::Pid);
            return Ok(());
        }
        if self.own_at_top && context.container_id.parent.is_none() {
            return Err(IsolatorError::Refused(
                "the container asks to share the agent's PID namespace, which \
                 --disallow_sharing_agent_pid_namespace forbids"
                    .to_owned(),
            ));
        }
        shared_namespace(&mut contribution.spec, LinuxNamespaceType::Pid);
        Ok(())
    }
}

impl Isolator for NamespacesPid {
    fn name(&self) -> &str {
        "namespaces/pid"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(NamespacesPid::prepare(self, context, contribution))
    }
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::{ContainerInfo, LinuxInfo};

    use super::super::tests::{context, empty_spec, has};
    use super::*;

    fn own(share: Option<bool>, own_at_top: bool) -> Result<bool, IsolatorError> {
        let linux = LinuxInfo { share_pid_namespace: share, ..LinuxInfo::default() };
        let info = ContainerInfo { linux_info: Some(linux), ..ContainerInfo::default() };
        let mut contribution = Contribution { spec: empty_spec(), ..Contribution::default() };
        NamespacesPid { own_at_top }.prepare(&context(Some(info)), &mut contribution)?;
        Ok(has(&contribution.spec, LinuxNamespaceType::Pid))
    }

    #[test]
    fn a_container_has_its_own_unless_it_asks_to_share() {
        assert!(own(None, false).unwrap());
        assert!(own(Some(false), true).unwrap());
        assert!(!own(Some(true), false).unwrap());
        assert!(matches!(own(Some(true), true), Err(IsolatorError::Refused(_))));
    }
}
