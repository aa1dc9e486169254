//! `filesystem/linux`: each container has a mount namespace, and may have a root file system of its own.
//!
//! Drives `clone(2)`'s CLONE_NEWNS through the runtime spec. Making the root file system is the containerizer's and the shim's part.
//! Rules: `mount_namespaces(7)`; Mesos' `docs/isolators/filesystems.md`.

use std::sync::Arc;

use oci_spec::runtime::LinuxNamespaceType;

use super::own_namespace;
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, done};

struct FilesystemLinux;

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(FilesystemLinux))
}

impl Isolator for FilesystemLinux {
    fn name(&self) -> &str {
        "filesystem/linux"
    }

    fn prepare<'a>(&'a self, _: &'a ContainerContext, contribution: &'a mut Contribution) -> Answer<'a> {
        own_namespace(&mut contribution.spec, LinuxNamespaceType::Mount);
        done(Ok(()))
    }
}
