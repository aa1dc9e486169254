//! `linux/nnp`: no program in a container can gain privileges by executing a file: set-user-ID bits and file capabilities do nothing.
//!
//! Drives `PR_SET_NO_NEW_PRIVS` through the runtime spec, for every container. Rules: `prctl(2)`, the kernel's
//! `userspace-api/no_new_privs`; Mesos' `docs/isolators/linux-nnp.md`.

use std::sync::Arc;

use super::process;
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, done};

struct LinuxNnp;

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    // Older than Linux 3.5, which nothing here runs on any more, have no such thing.
    nix::sys::prctl::get_no_new_privs()
        .map_err(|errno| MakeError::Host(format!("the kernel has no PR_SET_NO_NEW_PRIVS ({errno})")))?;
    Ok(Arc::new(LinuxNnp))
}

impl Isolator for LinuxNnp {
    fn name(&self) -> &str {
        "linux/nnp"
    }

    fn prepare<'a>(&'a self, _: &'a ContainerContext, contribution: &'a mut Contribution) -> Answer<'a> {
        done(process(&mut contribution.spec).map(|process| {
            process.set_no_new_privileges(Some(true));
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, empty_spec};
    use super::*;

    #[tokio::test]
    async fn every_container_has_it() {
        let mut contribution = Contribution { spec: empty_spec(), ..Contribution::default() };
        LinuxNnp.prepare(&context(None), &mut contribution).await.unwrap();
        let process = contribution.spec.process().clone().unwrap();
        assert_eq!(process.no_new_privileges(), Some(true));
        assert_eq!((process.capabilities(), process.rlimits()), (&None, &None));
    }
}
