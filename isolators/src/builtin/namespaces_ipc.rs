//! `namespaces/ipc`: System V objects, POSIX queues and `/dev/shm` of a container are its own.
//!
//! Drives `clone(2)`'s CLONE_NEWIPC through the runtime spec, and a tmpfs on `/dev/shm`. Who has what:
//!
//! | `linux_info.ipc_mode` | IPC namespace | `/dev/shm` |
//! | --- | --- | --- |
//! | PRIVATE | own | own, of `shm_size` megabytes |
//! | SHARE_PARENT | the parent's | the parent's |
//! | not set, top level | own | own with a root file system, else the host's |
//! | not set, nested | the parent's | as above |
//!
//! Rules: `ipc_namespaces(7)`; Mesos' `docs/isolators/namespaces-ipc.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use tepui_api::v1::linux_info::IpcMode;

use super::{own_namespace, shared_namespace};
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};

const SHM: &str = "/dev/shm";

struct NamespacesIpc {
    /// `--disallow_sharing_agent_ipc_namespace`.
    own_at_top: bool,
    /// `--default_container_shm_size`, in bytes.
    default_size: Option<u64>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(NamespacesIpc {
        own_at_top: parts.settings.disallow_sharing_agent_ipc_namespace,
        default_size: parts.settings.default_container_shm_size,
    }))
}

impl NamespacesIpc {
    fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        let linux = context.container.as_ref().and_then(|container| container.linux_info.as_ref());
        let asked = linux.map_or(IpcMode::Unknown, |linux| linux.ipc_mode());
        let size = linux.and_then(|linux| linux.shm_size).map(|megabytes| u64::from(megabytes) << 20);
        let top = context.container_id.parent.is_none();
        if asked == IpcMode::Unknown && linux.is_some_and(|linux| linux.ipc_mode.is_some()) {
            return Err(IsolatorError::Refused(
                "ipc_mode must be PRIVATE or SHARE_PARENT, if set".to_owned(),
            ));
        }
        if size.is_some() && asked != IpcMode::Private {
            return Err(IsolatorError::Refused(
                "shm_size may only be set when ipc_mode is PRIVATE".to_owned(),
            ));
        }
        if asked == IpcMode::ShareParent && top && self.own_at_top {
            return Err(IsolatorError::Refused(
                "the container asks to share the agent's IPC namespace, which \
                 --disallow_sharing_agent_ipc_namespace forbids"
                    .to_owned(),
            ));
        }
        let own = match asked {
            IpcMode::Private => true,
            IpcMode::ShareParent => false,
            IpcMode::Unknown => top,
        };
        let kind = LinuxNamespaceType::Ipc;
        match own {
            true => own_namespace(&mut contribution.spec, kind),
            false => shared_namespace(&mut contribution.spec, kind),
        }
        match asked {
            IpcMode::Private => own_shm(&mut contribution.spec, size.or(self.default_size)),
            IpcMode::Unknown if context.has_rootfs => own_shm(&mut contribution.spec, self.default_size),
            // The parent's, where the container would not see it anyway. A mount of the spec, as those come after the ones by the
            // shim, and the container's own /dev is among them.
            IpcMode::ShareParent if context.has_rootfs && top => host_shm(&mut contribution.spec),
            IpcMode::ShareParent | IpcMode::Unknown => {}
        }
        Ok(())
    }
}

/// A tmpfs for shared memory; without a size, the kernel takes half of the host's memory.
fn own_shm(spec: &mut Spec, size: Option<u64>) {
    let mut options: Vec<String> = ["nosuid", "nodev", "mode=1777"].map(str::to_owned).into();
    options.extend(size.map(|bytes| format!("size={bytes}")));
    mount_shm(spec, "tmpfs", "shm", options);
}

/// The host's shared memory.
fn host_shm(spec: &mut Spec) {
    mount_shm(spec, "bind", SHM, vec!["bind".to_owned()]);
}

/// In place of what is mounted there.
fn mount_shm(spec: &mut Spec, kind: &str, source: &str, options: Vec<String>) {
    let mut mount = Mount::default();
    mount.set_destination(PathBuf::from(SHM));
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(PathBuf::from(source)));
    mount.set_options(Some(options));
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.retain(|other| other.destination() != Path::new(SHM));
    mounts.push(mount);
    spec.set_mounts(Some(mounts));
}

impl Isolator for NamespacesIpc {
    fn name(&self) -> &str {
        "namespaces/ipc"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(NamespacesIpc::prepare(self, context, contribution))
    }
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::{ContainerInfo, LinuxInfo};

    use super::super::tests::context;
    use super::*;

    /// Whether it has its own IPC namespace, the options of its own `/dev/shm`, and whether the host's is mounted there.
    fn prepared(
        rootfs: bool,
        mode: Option<IpcMode>,
        size: Option<u32>,
    ) -> Result<(bool, Option<String>, bool), IsolatorError> {
        let linux = LinuxInfo { ipc_mode: mode.map(Into::into), shm_size: size, ..LinuxInfo::default() };
        let info = ContainerInfo { linux_info: Some(linux), ..ContainerInfo::default() };
        let context = ContainerContext { has_rootfs: rootfs, ..context(Some(info)) };
        let mut contribution =
            Contribution { spec: super::super::tests::empty_spec(), ..Contribution::default() };
        let isolator = NamespacesIpc { own_at_top: false, default_size: Some(4096) };
        isolator.prepare(&context, &mut contribution)?;
        let mounts = contribution.spec.mounts().clone().unwrap_or_default();
        let shm = mounts.iter().find(|mount| mount.destination() == Path::new(SHM));
        let is_bound = |mount: &&Mount| mount.typ().as_deref() == Some("bind");
        let bound =
            shm.is_some_and(|mount| is_bound(&mount) && mount.source().as_deref() == Some(Path::new(SHM)));
        let own_shm = shm.filter(|mount| !is_bound(mount));
        let options = own_shm.and_then(|mount| mount.options().clone()).map(|options| options.join(","));
        let own = super::super::tests::has(&contribution.spec, LinuxNamespaceType::Ipc);
        Ok((own, options, bound))
    }

    #[test]
    fn the_mode_decides_as_in_the_table() {
        let shm = |size: u64| Some(format!("nosuid,nodev,mode=1777,size={size}"));
        assert_eq!(prepared(false, Some(IpcMode::Private), Some(2)).unwrap(), (true, shm(2 << 20), false));
        assert_eq!(prepared(false, Some(IpcMode::Private), None).unwrap(), (true, shm(4096), false));
        assert_eq!(prepared(false, None, None).unwrap(), (true, None, false));
        assert_eq!(prepared(true, None, None).unwrap(), (true, shm(4096), false));
        assert_eq!(prepared(true, Some(IpcMode::ShareParent), None).unwrap(), (false, None, true));
        assert_eq!(prepared(false, Some(IpcMode::ShareParent), None).unwrap(), (false, None, false));
    }

    #[test]
    fn a_size_without_a_private_namespace_is_refused() {
        assert!(matches!(prepared(true, None, Some(1)), Err(IsolatorError::Refused(_))));
        assert!(matches!(
            prepared(true, Some(IpcMode::ShareParent), Some(1)),
            Err(IsolatorError::Refused(_))
        ));
    }

    #[test]
    fn a_mode_that_is_neither_is_refused() {
        assert!(matches!(prepared(true, Some(IpcMode::Unknown), None), Err(IsolatorError::Refused(_))));
    }

    #[test]
    fn the_operator_may_forbid_sharing_with_the_agent() {
        let linux = LinuxInfo { ipc_mode: Some(IpcMode::ShareParent.into()), ..LinuxInfo::default() };
        let info = ContainerInfo { linux_info: Some(linux), ..ContainerInfo::default() };
        let isolator = NamespacesIpc { own_at_top: true, default_size: None };
        let refused = isolator.prepare(&context(Some(info)), &mut Contribution::default());
        assert!(matches!(refused, Err(IsolatorError::Refused(_))));
    }
}
