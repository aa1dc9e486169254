//! What a Docker container is created as: a task's words in the engine's.
//!
//! The rules are those by which Mesos puts together its `docker run` (`Docker::RunOptions::create`): which fields exclude one another, which
//! resources become which limits, what a relative path is relative to. [`parameters`] are further options of `docker run`, put into the
//! same body after all else, so that they win as they do on a command line. Nothing here speaks to the engine.

mod parameters;
mod values;

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, DeviceRequest, HostConfig, HostConfigLogConfig, Mount,
    MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig, PortBinding,
};
use tepui_api::resources::Resources;
use tepui_api::v1::container_info::docker_info::Network;
use tepui_api::v1::container_info::{DockerInfo, docker_info};
use tepui_api::v1::{CommandInfo, ContainerInfo, Volume, environment, volume};
use tepui_isolators::{ContainerDns, Limits};

/// Shares of a whole CPU, and the least there may be; as in Mesos.
const SHARES_PER_CPU: f64 = 1024.0;
const MIN_SHARES: i64 = 2;
/// Microseconds; as in Mesos.
const CFS_PERIOD: f64 = 100_000.0;
const MIN_CFS_QUOTA: i64 = 1000;
/// Bytes; as in Mesos.
const MIN_MEMORY: i64 = 32 << 20;
/// To the engine, that there is no limit.
const NO_LIMIT: i64 = -1;
/// What the engine keeps of a container's output, which the agent copies into the sandbox as it comes.
const LOG_SIZE: &str = "16m";
const LOG_FILES: &str = "4";

/// What a container is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The container's name at the engine.
    pub name: &'a str,
    /// The task's, with `docker`.
    pub container: &'a ContainerInfo,
    pub command: &'a CommandInfo,
    /// The variables of an executor, which the command's own come on top of. A task has those of the command only, as in Mesos.
    pub environment: &'a [(String, String)],
    pub resources: &'a Resources,
    pub limits: &'a Limits,
    /// The sandbox on the host.
    pub sandbox: &'a Path,
    /// Where the container finds it.
    pub sandbox_directory: &'a str,
    /// `--cgroups_enable_cfs`.
    pub enable_cfs: bool,
    /// `--default_container_dns`.
    pub dns: &'a ContainerDns,
    pub labels: &'a HashMap<String, String>,
}

/// Why a container cannot be created as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpecError {
    /// Fields that contradict one another, or miss one.
    #[error("{0}")]
    Fields(String),
    /// A parameter that the engine has no place for.
    #[error("the parameter '{0}' is no option of 'docker run'")]
    Unknown(String),
    /// A parameter that makes no sense for a task.
    #[error("the parameter '{key}' cannot be used: {reason}")]
    Refused {
        /// Which.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// A parameter's value is not of its form.
    #[error("the parameter '{key}' cannot be '{value}': use {form}")]
    Value {
        /// Which.
        key: String,
        /// What it was given.
        value: String,
        /// What it takes.
        form: &'static str,
    },
}

fn fields(words: impl Into<String>) -> SpecError {
    SpecError::Fields(words.into())
}

/// The `DockerInfo` of a container; there is one in all that is asked of this containerizer.
pub(super) fn docker_info(container: &ContainerInfo) -> Result<&DockerInfo, SpecError> {
    container.docker.as_ref().ok_or_else(|| fields("the container is of type DOCKER, but has no 'docker'"))
}

/// The body of the engine's `POST /containers/create`.
pub(super) fn create_body(request: &Request) -> Result<ContainerCreateBody, SpecError> {
    let docker = docker_info(request.container)?;
    let network = network(request.container, docker)?;
    let mut host = HostConfig {
        privileged: docker.privileged.filter(|privileged| *privileged),
        network_mode: Some(network.clone()),
        // Whatever is written is copied into the sandbox; this is for how long the copy may be behind.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_SIZE.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        ..HostConfig::default()
    };
    amounts(request.resources, request.limits, request.enable_cfs, &mut host);
    volumes(request, docker, &mut host)?;
    let exposed = ports(request, docker, &network, &mut host)?;
    name_servers(request.dns, docker, &network, &mut host);
    let (entrypoint, cmd) = command(request.command)?;
    let hostname = request.container.hostname.clone();
    if hostname.is_some() && network == "host" {
        return Err(fields("a container in the host's network cannot have a hostname of its own"));
    }
    let mut body = ContainerCreateBody {
        image: Some(docker.image.clone()),
        hostname,
        env: Some(variables(request)),
        entrypoint,
        cmd,
        labels: Some(request.labels.clone()),
        exposed_ports: Some(exposed).filter(|ports| !ports.is_empty()),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    parameters::apply(&docker.parameters, &mut body)?;
    Ok(body)
}

/// The name of the network mode, as the engine has it.
fn network(container: &ContainerInfo, docker: &DockerInfo) -> Result<String, SpecError> {
    // Mesos' default on Linux.
    Ok(match docker.network() {
        Network::Host => "host".to_owned(),
        Network::Bridge => "bridge".to_owned(),
        Network::None => "none".to_owned(),
        Network::User => match container.network_infos.as_slice() {
            [] => return Err(fields("a network of mode USER needs its name in 'network_infos'")),
            [info] => {
                info.name.clone().ok_or_else(|| fields("the network in 'network_infos' has no name"))?
            }
            _ => return Err(fields("a Docker container can be created in one network only")),
        },
    })
}

/// The body of the engine's `POST /containers/{id}/update`: other amounts for a container that runs.
pub(super) fn update_body(resources: &Resources, limits: &Limits, enable_cfs: bool) -> ContainerUpdateBody {
    let mut host = HostConfig::default();
    amounts(resources, limits, enable_cfs, &mut host);
    ContainerUpdateBody {
        cpu_shares: host.cpu_shares,
        // To the engine 0 is no change, and -1 no limit.
        cpu_quota: Some(host.cpu_quota.unwrap_or(NO_LIMIT)),
        memory: Some(host.memory.unwrap_or(NO_LIMIT)),
        // What the engine takes when a container is created; it must never be below the limit.
        memory_swap: Some(host.memory.map_or(NO_LIMIT, |memory| memory.saturating_mul(2))),
        memory_reservation: host.memory_reservation,
        ..ContainerUpdateBody::default()
    }
}

/// CPU and memory. Limits that are infinite are none.
#[expect(clippy::cast_possible_truncation, reason = "amounts of one machine")]
fn amounts(resources: &Resources, limits: &Limits, enable_cfs: bool, host: &mut HostConfig) {
    let limit = |name: &str| limits.get(name).copied();
    let quota = |cpus: f64| ((CFS_PERIOD * cpus) as i64).max(MIN_CFS_QUOTA);
    let cpus = resources.cpus().map(|cpus| cpus.as_f64());
    host.cpu_shares = cpus.map(|cpus| ((SHARES_PER_CPU * cpus) as i64).max(MIN_SHARES));
    host.cpu_quota = match limit("cpus") {
        Some(limit) if limit.is_infinite() => None,
        Some(limit) => Some(quota(limit)),
        None => cpus.filter(|_| enable_cfs).map(quota),
    };
    let bytes = |megabytes: f64| (megabytes as i64).saturating_mul(1 << 20).max(MIN_MEMORY);
    #[expect(clippy::cast_precision_loss, reason = "megabytes of one machine")]
    let mem = resources.mem().map(|mem| mem.0 as f64);
    match limit("mem") {
        Some(limit) => {
            host.memory = Some(limit).filter(|limit| limit.is_finite()).map(bytes);
            host.memory_reservation = mem.map(bytes);
            if let Some(mem) = mem.filter(|mem| *mem < limit) {
                host.oom_score_adj =
                    u64::try_from(bytes(mem)).ok().and_then(tepui_isolators::oom_score_adj).map(i64::from);
            }
        }
        None => host.memory = mem.map(bytes),
    }
    let gpus = resources.gpus().map_or(0, |gpus| gpus.as_f64() as i64);
    if gpus > 0 {
        host.device_requests = Some(vec![DeviceRequest {
            count: Some(gpus),
            capabilities: Some(vec![vec!["gpu".to_owned()]]),
            ..DeviceRequest::default()
        }]);
    }
}

/// What the task and Mesos' executor of Docker containers set.
fn variables(request: &Request) -> Vec<String> {
    let given = request.command.environment.iter().flat_map(|all| &all.variables);
    let given: Vec<(String, String)> = given
        .filter(|variable| variable.r#type() == environment::variable::Type::Value)
        .map(|variable| (variable.name.clone(), variable.value().to_owned()))
        .collect();
    let mut all = request.environment.to_vec();
    all.retain(|(name, _)| given.iter().all(|(over, _)| over != name));
    all.extend(given);
    let role = request.resources.allocations().into_keys().next();
    let own = [
        ("MESOS_SANDBOX", Some(request.sandbox_directory.to_owned())),
        ("MESOS_CONTAINER_NAME", Some(request.name.to_owned())),
        ("MESOS_ALLOCATION_ROLE", role.map(|role| role.to_string())),
    ];
    for (name, value) in own {
        all.retain(|(known, _)| known != name || value.is_none());
        all.extend(value.map(|value| (name.to_owned(), value)));
    }
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What takes the place of the image's entrypoint, and the words that follow it.
type Words = (Option<Vec<String>>, Option<Vec<String>>);

fn command(command: &CommandInfo) -> Result<Words, SpecError> {
    if command.shell() {
        let line =
            command.value.clone().ok_or_else(|| fields("the command is for the shell but has no value"))?;
        return Ok((Some(vec!["/bin/sh".to_owned()]), Some(vec!["-c".to_owned(), line])));
    }
    let words: Vec<String> = command.value.iter().chain(&command.arguments).cloned().collect();
    // Without a word, the image's own follow its entrypoint.
    Ok((None, Some(words).filter(|words| !words.is_empty())))
}

fn volumes(request: &Request, docker: &DockerInfo, host: &mut HostConfig) -> Result<(), SpecError> {
    let mut driver = docker.volume_driver.clone();
    let mut binds = vec![format!("{}:{}", request.sandbox.display(), request.sandbox_directory)];
    for volume in &request.container.volumes {
        let inside = if volume.container_path.starts_with('/') {
            volume.container_path.clone()
        } else {
            format!("{}/{}", request.sandbox_directory, volume.container_path)
        };
        if let Some(mount) = mount_with_options(volume, &inside) {
            host.mounts.get_or_insert_default().push(mount);
            continue;
        }
        let source = source(request, docker, volume, &mut driver)?;
        let mode = match volume.mode() {
            volume::Mode::Rw => "rw",
            volume::Mode::Ro => "ro",
        };
        if source.contains(':') || inside.contains(':') {
            return Err(fields(format!(
                "the volume '{source}' at '{inside}' has a colon in its name, which the engine cannot tell from a separator"
            )));
        }
        binds.push(format!("{source}:{inside}:{mode}"));
    }
    host.binds = Some(binds);
    host.volume_driver = driver;
    Ok(())
}

/// A volume that its driver shall make with options, unless it is there: these the engine takes with a mount only, each of which has a driver of its own.
fn mount_with_options(volume: &Volume, inside: &str) -> Option<Mount> {
    let named = volume.source.as_ref()?.docker_volume.as_ref()?;
    let options = &named.driver_options.as_ref()?.parameter;
    let options: HashMap<_, _> = options.iter().map(|one| (one.key.clone(), one.value.clone())).collect();
    if options.is_empty() {
        return None;
    }
    let config = MountVolumeOptionsDriverConfig { name: named.driver.clone(), options: Some(options) };
    Some(Mount {
        target: Some(inside.to_owned()),
        source: Some(named.name.clone()),
        typ: Some(MountType::VOLUME),
        read_only: Some(volume.mode() == volume::Mode::Ro),
        volume_options: Some(MountVolumeOptions {
            driver_config: Some(config),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    })
}

/// Where a volume comes from: a path of the host, or the name of one that a driver makes.
fn source(
    request: &Request,
    docker: &DockerInfo,
    volume: &Volume,
    driver: &mut Option<String>,
) -> Result<String, SpecError> {
    let in_sandbox = |path: &str| request.sandbox.join(path).display().to_string();
    let leaves =
        |path: &str| Path::new(path).components().any(|part| part == std::path::Component::ParentDir);
    if let Some(path) = &volume.host_path {
        let absolute = path.starts_with('/');
        if !absolute && !volume.container_path.starts_with('/') {
            return Err(fields(format!(
                "both paths of a volume are relative, '{path}' and '{}': the one is in the sandbox already",
                volume.container_path
            )));
        }
        if absolute || docker.volume_driver.is_some() {
            return Ok(path.clone());
        }
        if leaves(path) {
            return Err(fields(format!("the path '{path}' of a volume leads out of the sandbox")));
        }
        return Ok(in_sandbox(path));
    }
    let Some(source) = &volume.source else {
        return Err(fields(format!(
            "the volume at '{}' has neither 'host_path' nor 'source'",
            volume.container_path
        )));
    };
    if let Some(named) = &source.docker_volume {
        if let Some(wanted) = &named.driver {
            if driver.as_ref().is_some_and(|other| other != wanted) {
                return Err(fields("the engine takes one volume driver for a container"));
            }
            *driver = Some(wanted.clone());
        }
        return Ok(named.name.clone());
    }
    match &source.sandbox_path {
        Some(path) if path.r#type() != volume::source::sandbox_path::Type::Parent && !leaves(&path.path) => {
            Ok(in_sandbox(&path.path))
        }
        _ => Err(fields(format!(
            "the source of the volume at '{}' is not one for a Docker container: use host_path, DOCKER_VOLUME or a SANDBOX_PATH of its own",
            volume.container_path
        ))),
    }
}

/// Port mappings; gives the ports that are to be exposed for them.
fn ports(
    request: &Request,
    docker: &DockerInfo,
    network: &str,
    host: &mut HostConfig,
) -> Result<Vec<String>, SpecError> {
    if docker.port_mappings.is_empty() {
        return Ok(Vec::new());
    }
    if matches!(network, "host" | "none") {
        return Err(fields("port mappings need a network of mode BRIDGE or USER"));
    }
    let Some(given) = request.resources.ports() else {
        return Err(fields("port mappings need the host's ports among the task's resources"));
    };
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for docker_info::PortMapping { host_port, container_port, protocol } in &docker.port_mappings {
        if !given.has(u64::from(*host_port)) {
            return Err(fields(format!(
                "the port {host_port} of the host is not among the task's resources"
            )));
        }
        let protocol = protocol.as_deref().unwrap_or("tcp").to_ascii_lowercase();
        let binding = PortBinding { host_ip: None, host_port: Some(host_port.to_string()) };
        let of_port = bindings.entry(format!("{container_port}/{protocol}")).or_default();
        of_port.get_or_insert_default().push(binding);
    }
    let exposed = bindings.keys().cloned().collect();
    host.port_bindings = Some(bindings);
    Ok(exposed)
}

/// The agent's name servers, for a network of a mode that has some, unless the task names its own.
fn name_servers(all: &ContainerDns, docker: &DockerInfo, network: &str, host: &mut HostConfig) {
    let own = |key: &str| matches!(key, "dns" | "dns-search" | "dns-opt" | "dns-option");
    if docker.parameters.iter().any(|parameter| own(&parameter.key)) {
        return;
    }
    let Some(dns) = (match docker.network() {
        Network::Bridge => all.of_docker_bridge(),
        Network::User => all.of_docker_network(network),
        Network::Host | Network::None => None,
    }) else {
        return;
    };
    let some = |list: &[String]| Some(list.to_vec()).filter(|list| !list.is_empty());
    host.dns = some(&dns.nameservers);
    host.dns_search = some(&dns.search);
    host.dns_options = some(&dns.options);
}

#[cfg(test)]
mod tests;
