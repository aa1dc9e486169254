//! The isolators that come with Tepui, one file each, named after them.

pub mod allowed_devices;
pub(crate) mod amounts;
pub mod cgroups_base;
pub mod cgroups_blkio;
pub mod cgroups_cpu;
pub mod cgroups_cpuset;
pub mod cgroups_devices;
pub mod cgroups_hugetlb;
pub mod cgroups_mem;
pub mod cgroups_net_cls;
pub mod cgroups_net_prio;
pub mod cgroups_perf_event;
pub mod cgroups_pids;
mod cpu_list;
pub mod disk_du;
pub mod disk_xfs;
pub mod docker_runtime;
pub mod docker_volume;
pub mod environment_secret;
pub mod filesystem_linux;
pub mod filesystem_posix;
pub mod gpu_nvidia;
pub mod labels;
pub mod linux_capabilities;
pub mod linux_devices;
pub mod linux_nnp;
pub mod linux_seccomp;
pub mod namespaces_ipc;
pub mod namespaces_pid;
pub mod network_cni;
pub mod network_ports;
pub mod posix_cpu;
pub mod posix_mem;
pub mod posix_rlimits;
mod proc_tree;
pub mod secrets;
mod sock_diag;
mod table;
pub mod volume_host_path;
pub mod volume_image;
pub mod volume_sandbox_path;
pub mod volume_secret;
pub mod volumes;
mod walk;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Process, Spec};

use crate::isolator::IsolatorError;

/// The process of the spec, of which an isolator sets what concerns it. The rest is the containerizer's.
fn process(spec: &mut Spec) -> Result<&mut Process, IsolatorError> {
    if spec.process().is_none() {
        let mut bare = Process::default();
        // The library's defaults are a small set, few open files, and no_new_privs.
        bare.set_capabilities(None).set_rlimits(None).set_no_new_privileges(None);
        spec.set_process(Some(bare));
    }
    spec.process_mut()
        .as_mut()
        .ok_or_else(|| IsolatorError::Failed("the runtime spec takes no process".to_owned()))
}

/// Gives the container a namespace of its own, if it has none yet.
fn own_namespace(spec: &mut Spec, kind: LinuxNamespaceType) {
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    if namespaces.iter().all(|namespace| namespace.typ() != kind) {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind);
        namespaces.push(namespace);
    }
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux));
}

/// Lets the container be in its parent's namespace.
fn shared_namespace(spec: &mut Spec, kind: LinuxNamespaceType) {
    if let Some(linux) = spec.linux_mut()
        && let Some(namespaces) = linux.namespaces_mut()
    {
        namespaces.retain(|namespace| namespace.typ() != kind);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use oci_spec::runtime::{Linux, LinuxNamespaceType, Spec};
    use tepui_api::resources::Resources;
    use tepui_api::v1::ContainerInfo;

    use crate::isolator::{ContainerContext, ContainerId};

    /// A container without anything of its own.
    pub fn context(container: Option<ContainerInfo>) -> ContainerContext {
        ContainerContext {
            container_id: ContainerId::new("c"),
            executor: None,
            task: None,
            container,
            requests: Resources::new(),
            limits: Default::default(),
            sandbox: "/sandbox".into(),
            user: None,
            has_rootfs: false,
            volumes: Vec::new(),
        }
    }

    /// A spec without namespaces, mounts and process, as an agent begins with.
    pub fn empty_spec() -> Spec {
        let mut linux = Linux::default();
        linux.set_namespaces(None);
        let mut spec = Spec::default();
        spec.set_linux(Some(linux));
        spec.set_mounts(None);
        // The library's default has a process with few capabilities.
        spec.set_process(None);
        spec
    }

    /// Whether the spec has a namespace, once.
    pub fn has(spec: &Spec, kind: LinuxNamespaceType) -> bool {
        let namespaces =
            spec.linux().as_ref().and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
        namespaces.iter().filter(|namespace| namespace.typ() == kind).count() == 1
    }
}
