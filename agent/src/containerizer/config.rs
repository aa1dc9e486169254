//! What a container is to be: [`ContainerConfig`].

use std::path::PathBuf;
use std::sync::Arc;

use tepui_api::resources::Resources;
use tepui_api::v1::{
    CommandInfo, ContainerId, ContainerInfo, Environment, ExecutorInfo, Image, TaskInfo, environment,
};
use tepui_isolators::{Composition, ContainerContext, Limits};

use super::error::Unsupported;
use crate::core::Launch;

/// What a container is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerConfig {
    /// Its id. It names the container's directories and cgroups.
    pub container_id: ContainerId,
    /// The task that it runs, if it runs one.
    pub task: Option<Arc<TaskInfo>>,
    /// The executor it belongs to.
    pub executor: Option<ExecutorInfo>,
    /// What was asked for.
    pub resources: Vec<tepui_api::v1::Resource>,
    /// Hard limits by resource name; infinity lifts one.
    pub limits: Limits,
    /// What runs in it.
    pub command: CommandInfo,
    /// Its image and the like.
    pub container: Option<ContainerInfo>,
    /// The variables that the agent sets; those of the image and of the command come on top.
    pub environment: Vec<(String, String)>,
    /// Who the command runs as; the agent's own user when absent.
    pub user: Option<String>,
    /// The sandbox on the host. Must exist, with `stdout` and `stderr` in it.
    pub sandbox: PathBuf,
    /// It has no program: it holds namespaces, cgroups and a sandbox for the containers nested in it.
    pub holder: bool,
}

impl ContainerConfig {
    /// The container of a command task or of an executor.
    #[must_use]
    pub(crate) fn of_launch(id: &ContainerId, launch: &Launch) -> Self {
        Self {
            container_id: id.clone(),
            task: launch.task().cloned(),
            executor: launch.executor().cloned(),
            resources: launch.resources.clone(),
            limits: launch.limits.clone(),
            command: launch.command().cloned().unwrap_or_default(),
            container: launch.container().cloned(),
            environment: launch.environment.clone(),
            user: launch.user.clone(),
            sandbox: launch.directory.clone(),
            holder: launch.is_holder(),
        }
    }

    /// A container of which only the id is known.
    pub(super) fn of_orphan(id: ContainerId) -> Self {
        Self {
            container_id: id,
            task: None,
            executor: None,
            resources: Vec::new(),
            limits: Limits::new(),
            command: CommandInfo::default(),
            container: None,
            environment: Vec::new(),
            user: None,
            sandbox: PathBuf::new(),
            holder: false,
        }
    }

    /// The image that it shall run on, instead of the host's root file system.
    #[must_use]
    pub fn image(&self) -> Option<&Image> {
        self.container.as_ref()?.mesos.as_ref()?.image.as_ref()
    }

    /// Whether its processes are in its parent's cgroups, rather than in some of its own (`LinuxInfo.share_cgroups`).
    #[must_use]
    pub fn shares_cgroups(&self) -> bool {
        let linux = self.container.as_ref().and_then(|container| container.linux_info.as_ref());
        self.container_id.parent.is_some() && linux.and_then(|linux| linux.share_cgroups).unwrap_or(true)
    }

    /// What isolators are told of it.
    pub(super) fn context(&self) -> ContainerContext {
        ContainerContext {
            container_id: self.container_id.clone(),
            executor: self.executor.clone(),
            task: self.task.as_deref().cloned(),
            container: self.container.clone(),
            requests: Resources::from_wire_lossy(&self.resources),
            limits: self.limits.clone(),
            sandbox: self.sandbox.clone(),
            user: self.user.clone(),
            has_rootfs: self.image().is_some(),
            volumes: Vec::new(),
        }
    }

    /// The variables of the command itself, without its secrets.
    pub(super) fn own_environment(&self) -> impl Iterator<Item = (&str, &str)> {
        own_variables(&self.command)
    }

    /// Refuses what would otherwise be passed over in silence, as none of the agent's isolators sees to it.
    pub(super) fn check(&self, isolators: &Composition) -> Result<(), Unsupported> {
        use tepui_api::v1::container_info::Type;
        if self.command.environment.iter().any(|all| all.variables.iter().any(is_secret))
            && !isolators.has("environment_secret")
        {
            return Err(Unsupported("a secret as an environment variable (isolator environment_secret)"));
        }
        if self
            .resources
            .iter()
            .any(|resource| resource.disk.as_ref().is_some_and(|disk| disk.volume.is_some()))
        {
            return Err(Unsupported("a persistent volume (Resource.disk.volume)"));
        }
        let of_task = self.task.as_ref().and_then(|task| task.labels.as_ref());
        let of_executor = self.executor.as_ref().and_then(|executor| executor.labels.as_ref());
        if let Some(words) =
            [of_task, of_executor].into_iter().flatten().find_map(|labels| isolators.unheeded(labels))
        {
            return Err(Unsupported(words));
        }
        let Some(container) = &self.container else { return Ok(()) };
        if self.holder && !container.volumes.is_empty() {
            return Err(Unsupported("volumes of an executor of type DEFAULT"));
        }
        if container.r#type() != Type::Mesos {
            return Err(Unsupported("a container of type DOCKER (--containerizers=docker)"));
        }
        for volume in &container.volumes {
            // One that is of no kind is refused by all of them.
            let isolator = tepui_isolators::volume_isolator(volume).unwrap_or("volume/host_path");
            if !isolators.has(isolator) {
                return Err(Unsupported(volume_text(isolator)));
            }
        }
        if container.network_infos.iter().any(|network| network.name.is_some())
            && !isolators.has("network/cni")
        {
            return Err(Unsupported("a network of its own (isolator network/cni)"));
        }
        if container.rlimit_info.is_some() && !isolators.has("posix/rlimits") {
            return Err(Unsupported("a resource limit (isolator posix/rlimits)"));
        }
        let Some(linux) = &container.linux_info else { return Ok(()) };
        if (linux.effective_capabilities.is_some()
            || linux.bounding_capabilities.is_some()
            || linux.capability_info.is_some())
            && !isolators.has("linux/capabilities")
        {
            return Err(Unsupported("a set of capabilities (isolator linux/capabilities)"));
        }
        if (linux.ipc_mode.is_some() || linux.shm_size.is_some()) && !isolators.has("namespaces/ipc") {
            return Err(Unsupported("an IPC mode or a size of /dev/shm (isolator namespaces/ipc)"));
        }
        if linux.share_pid_namespace() && !isolators.has("namespaces/pid") {
            return Err(Unsupported("the PID namespace of its parent (isolator namespaces/pid)"));
        }
        if linux.seccomp.as_ref().is_some_and(|seccomp| seccomp.profile_name.is_some())
            && !isolators.has("linux/seccomp")
        {
            return Err(Unsupported("a seccomp profile (isolator linux/seccomp)"));
        }
        Ok(())
    }
}

/// The variables of a command, without its secrets.
pub(super) fn own_variables(command: &CommandInfo) -> impl Iterator<Item = (&str, &str)> {
    let variables = command.environment.as_ref().map_or(&[][..], |Environment { variables }| variables);
    let open = variables.iter().filter(|variable| !is_secret(variable));
    open.map(|variable| (variable.name.as_str(), variable.value()))
}

fn is_secret(variable: &environment::Variable) -> bool {
    variable.r#type() == environment::variable::Type::Secret
}

fn volume_text(isolator: &str) -> &'static str {
    match isolator {
        "volume/sandbox_path" => "a volume in a sandbox (isolator volume/sandbox_path)",
        "volume/image" => "a volume of an image (isolator volume/image)",
        "volume/secret" => "a volume of a secret (isolator volume/secret)",
        "docker/volume" => "a volume of a Docker volume plugin (isolator docker/volume)",
        "volume/csi" => "a volume of a CSI plugin (isolator volume/csi)",
        _ => "a volume of the host (isolator volume/host_path)",
    }
}
