//! The flags that concern containers, in the containerizers' words.

use std::time::Duration;

use tepui_api::resources::Resources;
use tepui_images::{RegistryLocation, StoreOptions};
use tepui_isolators::{
    CapabilitiesSettings, DiskXfsSettings, GpuSettings, NetworkPortsSettings, SeccompSettings,
};

use super::StartError;
use crate::containerizer::{docker, native};
use crate::flags::Settings;
use crate::gpus::Gpus;
use crate::resources;

/// How long a shim may take to answer, at least. Mesos' two seconds are for executors, which are the frameworks'; that shims are
/// slow on a machine that is busy is no reason to lose tasks.
const SHIM_PATIENCE: Duration = Duration::from_secs(10);

/// What the containerizer is told.
///
/// # Errors
/// When `--docker_registry` or `--resources` is wrong.
pub(super) fn settings(settings: &Settings) -> Result<native::Settings, StartError> {
    let security = &settings.security;
    let names = settings.isolation.split(',').map(str::trim).filter(|name| !name.is_empty());
    Ok(native::Settings {
        rotation: settings.logger.rotation(),
        runtime_dir: settings.runtime_dir(),
        work_dir: settings.work_dir.clone(),
        isolation: names.map(str::to_owned).collect(),
        isolators: tepui_isolators::Settings {
            cgroups_root: settings.cgroups_root.clone().into(),
            cgroups_enable_cfs: settings.cgroups_enable_cfs,
            cgroups_limit_swap: settings.cgroups_limit_swap,
            cgroups_cpu_enable_pids_and_tids_count: settings.cgroups_cpu_enable_pids_and_tids_count,
            revocable_cpu_low_priority: settings.revocable_cpu_low_priority,
            scratch_dir: native::scratch_dir(&settings.work_dir),
            container_disk_watch_interval: settings.container_disk_watch_interval.0,
            enforce_container_disk_quota: settings.enforce_container_disk_quota,
            disallow_sharing_agent_pid_namespace: settings.disallow_sharing_agent_pid_namespace,
            disallow_sharing_agent_ipc_namespace: settings.disallow_sharing_agent_ipc_namespace,
            default_container_shm_size: settings.default_container_shm_size.map(|size| size.0),
            disk_xfs: disk_xfs(settings),
            network_ports: network_ports(settings)?,
            capabilities: CapabilitiesSettings {
                effective: security.effective_capabilities.as_ref().map(|list| list.0.clone()),
                bounding: security.bounding_capabilities.as_ref().map(|list| list.0.clone()),
            },
            gpu: GpuSettings {
                devices: security.nvidia_gpu_devices.as_ref().map(|list| list.0.clone()),
                state_dir: settings.runtime_dir().join("isolators/gpu/nvidia"),
                ..GpuSettings::default()
            },
            seccomp: SeccompSettings {
                config_dir: security.seccomp_config_dir.clone(),
                profile_name: security.seccomp_profile_name.clone(),
            },
            cgroups: settings.cgroups.settings(),
            volumes: settings.volumes.settings(&settings.runtime_dir()),
            network: settings.network.settings(&settings.runtime_dir(), &settings.work_dir),
        },
        image_store_dir: settings.docker_store_dir.clone(),
        image_options: StoreOptions {
            registry: RegistryLocation::parse(&settings.docker_registry)?,
            registry_options: settings.registries.options(),
            credentials: settings.registries.credentials(),
            ..StoreOptions::default()
        },
        image_backend: settings.provisioner.image_provisioner_backend,
        ignore_image_runtime: settings.volumes.docker_ignore_runtime,
        sandbox_directory: settings.sandbox_directory.clone(),
        shim_patience: settings.executor_reregistration_timeout.0.max(SHIM_PATIENCE),
    })
}

/// What the Docker containerizer is told.
pub(super) fn docker(settings: &Settings) -> docker::Settings {
    let flags = &settings.containerizer;
    docker::Settings {
        rotation: settings.logger.rotation(),
        socket: flags.docker_socket.clone(),
        work_dir: settings.work_dir.clone(),
        runtime_dir: settings.runtime_dir(),
        sandbox_directory: settings.sandbox_directory.clone(),
        enable_cfs: settings.cgroups_enable_cfs,
        dns: settings.network.default_container_dns.clone().unwrap_or_default(),
        kill_orphans: flags.docker_kill_orphans,
        remove_delay: flags.docker_remove_delay.0,
        credentials: settings.registries.credentials(),
    }
}

fn disk_xfs(settings: &Settings) -> DiskXfsSettings {
    let flags = &settings.disk;
    DiskXfsSettings {
        work_dir: settings.work_dir.clone(),
        project_range: flags.xfs_project_range.0.clone(),
        kill_containers: flags.xfs_kill_containers,
        quota_headroom: flags.xfs_quota_headroom.0,
        project_watch_interval: settings.disk_watch_interval.0,
    }
}

fn network_ports(settings: &Settings) -> Result<NetworkPortsSettings, StartError> {
    let flags = &settings.ports;
    let offered = resources::detect(
        settings.resources.as_deref(),
        &settings.default_role,
        &settings.work_dir,
        Gpus::of(settings),
    )?;
    Ok(NetworkPortsSettings {
        watch_interval: flags.container_ports_watch_interval.0,
        enforce: flags.enforce_container_ports,
        agent_range_only: flags.check_agent_port_range_only,
        isolated_range: flags.container_ports_isolated_range.as_ref().map(|ports| ports.0.clone()),
        agent_ports: Resources::from_wire_lossy(&offered).ports().unwrap_or_default(),
    })
}
