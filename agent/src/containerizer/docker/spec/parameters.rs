//! `DockerInfo.parameters`: the options of `docker run` (of Docker 20.10), in the engine's fields.
//!
//! Mesos hands each on as `--KEY=VALUE`. An option that is given again adds to a list, or takes the place of what was there, as it does on a
//! command line. What the client itself does (attaching, files of its own, pulling) has no place in a task and is refused with the reason.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointIpamConfig, EndpointSettings, HealthConfig,
    HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountTmpfsOptions, MountType,
    MountVolumeOptions, MountVolumeOptionsDriverConfig, NetworkingConfig, PortBinding,
    ResourcesBlkioWeightDevice, ResourcesUlimits, ThrottleDevice,
};
use tepui_api::v1::Parameter;

use super::SpecError;
use super::values::{boolean, nanoseconds, pair, size};

/// Puts the parameters into the body.
pub(super) fn apply(parameters: &[Parameter], body: &mut ContainerCreateBody) -> Result<(), SpecError> {
    let mut first_network = true;
    for Parameter { key, value } in parameters {
        let option = Given { key, value };
        if matches!(key.as_str(), "net" | "network") {
            // The first takes the place of `network`; Docker 20.10 creates containers in one only.
            if !first_network {
                return Err(option.refused("a Docker container can be created in one network only"));
            }
            first_network = false;
        }
        option.apply(body)?;
    }
    Ok(())
}

/// One parameter.
#[derive(Clone, Copy)]
struct Given<'a> {
    key: &'a str,
    value: &'a str,
}

impl Given<'_> {
    fn apply(self, body: &mut ContainerCreateBody) -> Result<(), SpecError> {
        if self.of_client()? {
            return Ok(());
        }
        if self.of_container(body)? {
            return Ok(());
        }
        let host = body.host_config.get_or_insert_default();
        if self.of_cpu_and_memory(host)? || self.of_disks(host)? || self.of_isolation(host)? {
            return Ok(());
        }
        if self.of_networks(body)? {
            return Ok(());
        }
        Err(SpecError::Unknown(self.key.to_owned()))
    }

    /// What is for the client, not for the engine.
    fn of_client(self) -> Result<bool, SpecError> {
        match self.key {
            // The container is removed in any case.
            "rm" | "disable-content-trust" | "sig-proxy" | "quiet" | "q" => {
                self.truth()?;
                Ok(true)
            }
            "attach" | "a" | "detach" | "d" | "detach-keys" => {
                Err(self.refused("the agent attaches to the container's output itself"))
            }
            "cidfile" | "env-file" | "label-file" => Err(self.refused("it names a file of a client's")),
            "name" => Err(self.refused("the agent names its containers, to find them again")),
            "restart" if matches!(self.value, "no" | "") => Ok(true),
            "restart" => Err(self.refused("the framework decides what follows when its task ends")),
            "isolation" | "cpu-count" | "cpu-percent" | "io-maxbandwidth" | "io-maxiops" => {
                Err(self.refused("it is for Windows"))
            }
            "platform" | "pull" => Err(self.refused("use 'force_pull_image'")),
            "kernel-memory" => Err(self.refused("kernels do not limit it any more")),
            _ => Ok(false),
        }
    }

    /// What a container is, apart from its host.
    fn of_container(self, body: &mut ContainerCreateBody) -> Result<bool, SpecError> {
        let value = || self.value.to_owned();
        match self.key {
            "hostname" | "h" => body.hostname = Some(value()),
            "domainname" => body.domainname = Some(value()),
            "user" | "u" => body.user = Some(value()),
            "tty" | "t" => body.tty = Some(self.truth()?),
            "interactive" | "i" => body.open_stdin = Some(self.truth()?),
            "env" | "e" => {
                let (name, _) = self.pair()?;
                let all = body.env.get_or_insert_default();
                all.retain(|known| known.split_once('=').is_none_or(|(known, _)| known != name));
                all.push(value());
            }
            "entrypoint" => body.entrypoint = Some(vec![value()]),
            "workdir" | "w" => body.working_dir = Some(value()),
            "label" | "l" => {
                let (name, value) = self.value.split_once('=').unwrap_or((self.value, ""));
                body.labels.get_or_insert_default().insert(name.to_owned(), value.to_owned());
            }
            "stop-signal" => body.stop_signal = Some(value()),
            "stop-timeout" => body.stop_timeout = Some(self.number()?),
            "expose" => {
                let port = if self.value.contains('/') { value() } else { format!("{}/tcp", self.value) };
                body.exposed_ports.get_or_insert_default().push(port);
            }
            "health-cmd" => self.health(body).test = Some(vec!["CMD-SHELL".to_owned(), value()]),
            "health-interval" => self.health(body).interval = Some(self.duration()?),
            "health-timeout" => self.health(body).timeout = Some(self.duration()?),
            "health-start-period" => self.health(body).start_period = Some(self.duration()?),
            "health-retries" => self.health(body).retries = Some(self.number()?),
            "no-healthcheck" => {
                if self.truth()? {
                    body.healthcheck =
                        Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() });
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn of_cpu_and_memory(self, host: &mut HostConfig) -> Result<bool, SpecError> {
        let value = || self.value.to_owned();
        match self.key {
            "cpu-shares" | "c" => host.cpu_shares = Some(self.number()?),
            "cpu-period" => host.cpu_period = Some(self.number()?),
            "cpu-quota" => host.cpu_quota = Some(self.number()?),
            "cpu-rt-period" => host.cpu_realtime_period = Some(self.number()?),
            "cpu-rt-runtime" => host.cpu_realtime_runtime = Some(self.number()?),
            "cpus" => {
                let cpus: f64 = self.parsed("a number of CPUs, such as 1.5")?;
                #[expect(clippy::cast_possible_truncation, reason = "billionths of the CPUs of one machine")]
                let nano = (cpus * 1e9) as i64;
                host.nano_cpus = Some(nano);
                // The engine takes one of the two.
                host.cpu_quota = None;
            }
            "cpuset-cpus" => host.cpuset_cpus = Some(value()),
            "cpuset-mems" => host.cpuset_mems = Some(value()),
            "memory" | "m" => host.memory = Some(self.size()?),
            "memory-reservation" => host.memory_reservation = Some(self.size()?),
            "memory-swap" if self.value == "-1" => host.memory_swap = Some(-1),
            "memory-swap" => host.memory_swap = Some(self.size()?),
            "memory-swappiness" => host.memory_swappiness = Some(self.number()?),
            "oom-kill-disable" => host.oom_kill_disable = Some(self.truth()?),
            "oom-score-adj" => host.oom_score_adj = Some(self.number()?),
            "pids-limit" => host.pids_limit = Some(self.number()?),
            "shm-size" => host.shm_size = Some(self.size()?),
            "ulimit" => {
                let form = "NAME=SOFT[:HARD]";
                let (name, limits) = self.pair()?;
                let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
                let (soft, hard) = (soft.parse().ok(), hard.parse().ok());
                if soft.is_none() || hard.is_none() {
                    return Err(self.wrong(form));
                }
                let limit = ResourcesUlimits { name: Some(name.to_owned()), soft, hard };
                host.ulimits.get_or_insert_default().push(limit);
            }
            "gpus" => {
                let count = match self.value {
                    "all" => -1,
                    _ => self.parsed("a number, or 'all'")?,
                };
                host.device_requests = Some(vec![DeviceRequest {
                    count: Some(count),
                    capabilities: Some(vec![vec!["gpu".to_owned()]]),
                    ..DeviceRequest::default()
                }]);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn of_disks(self, host: &mut HostConfig) -> Result<bool, SpecError> {
        let value = || self.value.to_owned();
        match self.key {
            "volume" | "v" if self.value.contains(':') => host.binds.get_or_insert_default().push(value()),
            "volume" | "v" => {
                let mount = Mount { target: Some(value()), typ: Some(MountType::VOLUME), ..Mount::default() };
                host.mounts.get_or_insert_default().push(mount);
            }
            "volume-driver" => host.volume_driver = Some(value()),
            "volumes-from" => host.volumes_from.get_or_insert_default().push(value()),
            "mount" => host.mounts.get_or_insert_default().push(self.mount()?),
            "tmpfs" => {
                let (path, options) = self.value.split_once(':').unwrap_or((self.value, ""));
                host.tmpfs.get_or_insert_default().insert(path.to_owned(), options.to_owned());
            }
            "device" => {
                let mut parts = self.value.split(':');
                let on_host = parts.next().unwrap_or_default().to_owned();
                let (second, third) = (parts.next(), parts.next());
                // `/dev/a:rwm` gives permissions only.
                let (inside, permissions) = match (second, third) {
                    (Some(second), None) if !second.starts_with('/') => (None, Some(second)),
                    other => other,
                };
                if !on_host.starts_with('/') || parts.next().is_some() {
                    return Err(self.wrong("/dev/ON_HOST[:/dev/INSIDE][:rwm]"));
                }
                host.devices.get_or_insert_default().push(DeviceMapping {
                    path_in_container: Some(inside.map_or_else(|| on_host.clone(), str::to_owned)),
                    path_on_host: Some(on_host),
                    cgroup_permissions: Some(permissions.unwrap_or("rwm").to_owned()),
                });
            }
            "device-cgroup-rule" => host.device_cgroup_rules.get_or_insert_default().push(value()),
            "blkio-weight" => host.blkio_weight = Some(self.parsed("a weight between 10 and 1000")?),
            "blkio-weight-device" => {
                let (path, weight) = self.path_and("PATH:WEIGHT")?;
                let weight = weight.parse().map_err(|_| self.wrong("PATH:WEIGHT"))?;
                let device = ResourcesBlkioWeightDevice { path: Some(path), weight: Some(weight) };
                host.blkio_weight_device.get_or_insert_default().push(device);
            }
            "device-read-bps" => {
                host.blkio_device_read_bps.get_or_insert_default().push(self.throttle(true)?)
            }
            "device-write-bps" => {
                host.blkio_device_write_bps.get_or_insert_default().push(self.throttle(true)?)
            }
            "device-read-iops" => {
                host.blkio_device_read_iops.get_or_insert_default().push(self.throttle(false)?)
            }
            "device-write-iops" => {
                host.blkio_device_write_iops.get_or_insert_default().push(self.throttle(false)?);
            }
            "storage-opt" => self.insert(&mut host.storage_opt)?,
            "read-only" => host.readonly_rootfs = Some(self.truth()?),
            "log-driver" => {
                host.log_config = Some(HostConfigLogConfig { typ: Some(value()), config: None });
            }
            "log-opt" => self.insert(&mut host.log_config.get_or_insert_default().config)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn of_isolation(self, host: &mut HostConfig) -> Result<bool, SpecError> {
        let value = || self.value.to_owned();
        match self.key {
            "privileged" => host.privileged = Some(self.truth()?),
            "cap-add" => host.cap_add.get_or_insert_default().push(value()),
            "cap-drop" => host.cap_drop.get_or_insert_default().push(value()),
            "security-opt" => host.security_opt.get_or_insert_default().push(value()),
            "group-add" => host.group_add.get_or_insert_default().push(value()),
            "sysctl" => self.insert(&mut host.sysctls)?,
            "cgroup-parent" => host.cgroup_parent = Some(value()),
            "cgroupns" => {
                host.cgroupns_mode = Some(match self.value {
                    "host" => HostConfigCgroupnsModeEnum::HOST,
                    "private" => HostConfigCgroupnsModeEnum::PRIVATE,
                    _ => return Err(self.wrong("'host' or 'private'")),
                });
            }
            "ipc" => host.ipc_mode = Some(value()),
            "pid" => host.pid_mode = Some(value()),
            "uts" => host.uts_mode = Some(value()),
            "userns" => host.userns_mode = Some(value()),
            "init" => host.init = Some(self.truth()?),
            "runtime" => host.runtime = Some(value()),
            "link" => host.links.get_or_insert_default().push(value()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn of_networks(self, body: &mut ContainerCreateBody) -> Result<bool, SpecError> {
        let value = || self.value.to_owned();
        let host = body.host_config.get_or_insert_default();
        match self.key {
            "net" | "network" => host.network_mode = Some(value()),
            "dns" => host.dns.get_or_insert_default().push(value()),
            "dns-search" => host.dns_search.get_or_insert_default().push(value()),
            "dns-opt" | "dns-option" => host.dns_options.get_or_insert_default().push(value()),
            "add-host" => {
                if !self.value.contains(':') {
                    return Err(self.wrong("HOST:IP"));
                }
                host.extra_hosts.get_or_insert_default().push(value());
            }
            "publish-all" | "P" => host.publish_all_ports = Some(self.truth()?),
            "publish" | "p" => {
                let (port, binding) = self.published()?;
                let all = host.port_bindings.get_or_insert_default();
                all.entry(port.clone()).or_default().get_or_insert_default().push(binding);
                body.exposed_ports.get_or_insert_default().push(port);
            }
            "ip" => self.endpoint(body).ipam_config.get_or_insert_default().ipv4_address = Some(value()),
            "ip6" => self.endpoint(body).ipam_config.get_or_insert_default().ipv6_address = Some(value()),
            "link-local-ip" => {
                let ipam: &mut EndpointIpamConfig = self.endpoint(body).ipam_config.get_or_insert_default();
                ipam.link_local_ips.get_or_insert_default().push(value());
            }
            "network-alias" | "net-alias" => {
                self.endpoint(body).aliases.get_or_insert_default().push(value())
            }
            "mac-address" => self.endpoint(body).mac_address = Some(value()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    // --- parts of values

    fn refused(self, reason: &'static str) -> SpecError {
        SpecError::Refused { key: self.key.to_owned(), reason }
    }

    fn wrong(self, form: &'static str) -> SpecError {
        SpecError::Value { key: self.key.to_owned(), value: self.value.to_owned(), form }
    }

    fn parsed<T: std::str::FromStr>(self, form: &'static str) -> Result<T, SpecError> {
        self.value.parse().map_err(|_| self.wrong(form))
    }

    fn number(self) -> Result<i64, SpecError> {
        self.parsed("a whole number")
    }

    fn truth(self) -> Result<bool, SpecError> {
        boolean(self.value).ok_or_else(|| self.wrong("true or false"))
    }

    fn size(self) -> Result<i64, SpecError> {
        size(self.value).ok_or_else(|| self.wrong("a size, such as 512m"))
    }

    fn duration(self) -> Result<i64, SpecError> {
        nanoseconds(self.value).ok_or_else(|| self.wrong("a duration, such as 1m30s"))
    }

    fn pair(&self) -> Result<(&str, &str), SpecError> {
        pair(self.value).ok_or_else(|| self.wrong("NAME=VALUE"))
    }

    fn insert(self, map: &mut Option<HashMap<String, String>>) -> Result<(), SpecError> {
        let (name, value) = self.pair()?;
        map.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn path_and(&self, form: &'static str) -> Result<(String, &str), SpecError> {
        let (path, rest) = self.value.rsplit_once(':').ok_or_else(|| self.wrong(form))?;
        Ok((path.to_owned(), rest))
    }

    fn throttle(self, bytes: bool) -> Result<ThrottleDevice, SpecError> {
        let form = if bytes { "PATH:SIZE" } else { "PATH:NUMBER" };
        let (path, rate) = self.path_and(form)?;
        let rate = if bytes { size(rate) } else { rate.parse().ok() };
        Ok(ThrottleDevice { path: Some(path), rate: Some(rate.ok_or_else(|| self.wrong(form))?) })
    }

    fn health(self, body: &mut ContainerCreateBody) -> &mut HealthConfig {
        body.healthcheck.get_or_insert_default()
    }

    /// Of the network that the container is created in.
    fn endpoint(self, body: &mut ContainerCreateBody) -> &mut EndpointSettings {
        let network =
            body.host_config.as_ref().and_then(|host| host.network_mode.clone()).unwrap_or_default();
        let networks: &mut NetworkingConfig = body.networking_config.get_or_insert_default();
        networks.endpoints_config.get_or_insert_default().entry(network).or_default()
    }

    /// `[[IP:]HOST_PORT:]CONTAINER_PORT[/PROTOCOL]`; an IPv6 address stands in brackets.
    fn published(self) -> Result<(String, PortBinding), SpecError> {
        let form = "[[IP:]HOST_PORT:]CONTAINER_PORT[/PROTOCOL]";
        let (ports, protocol) = self.value.split_once('/').unwrap_or((self.value, "tcp"));
        let (on_host, inside) = match ports.rsplit_once(':') {
            Some((on_host, inside)) => (Some(on_host), inside),
            None => (None, ports),
        };
        let (ip, on_host) = match on_host.and_then(|text| text.rsplit_once(':')) {
            Some((ip, port)) => (Some(ip.trim_matches(['[', ']']).to_owned()), Some(port)),
            None => (None, on_host),
        };
        let is_port = |text: &str| text.parse::<u16>().is_ok();
        if !is_port(inside) || on_host.is_some_and(|port| !port.is_empty() && !is_port(port)) {
            return Err(self.wrong(form));
        }
        let binding = PortBinding { host_ip: ip, host_port: on_host.map(str::to_owned) };
        Ok((format!("{inside}/{protocol}"), binding))
    }

    /// `type=bind,source=/a,target=/b,readonly`.
    fn mount(self) -> Result<Mount, SpecError> {
        let form = "type=bind|volume|tmpfs,source=…,target=…[,readonly][,volume-driver=…][,volume-opt=NAME=VALUE][,tmpfs-size=…][,tmpfs-mode=…]";
        let wrong = || self.wrong(form);
        let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
        for part in self.value.split(',') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let driver = |volume: &mut Option<MountVolumeOptions>,
                          change: &dyn Fn(&mut MountVolumeOptionsDriverConfig)| {
                change(volume.get_or_insert_default().driver_config.get_or_insert_default());
            };
            match name {
                "type" => {
                    mount.typ = Some(match value {
                        "bind" => MountType::BIND,
                        "volume" => MountType::VOLUME,
                        "tmpfs" => MountType::TMPFS,
                        _ => return Err(wrong()),
                    });
                }
                "source" | "src" => mount.source = Some(value.to_owned()),
                "target" | "destination" | "dst" => mount.target = Some(value.to_owned()),
                "readonly" | "ro" => mount.read_only = Some(boolean(value).ok_or_else(wrong)?),
                "volume-driver" => driver(&mut mount.volume_options, &|of| of.name = Some(value.to_owned())),
                "volume-nocopy" => {
                    let no_copy = boolean(value).ok_or_else(wrong)?;
                    mount.volume_options.get_or_insert_default().no_copy = Some(no_copy);
                }
                "volume-opt" => {
                    let (name, value) = pair(value).ok_or_else(wrong)?;
                    driver(&mut mount.volume_options, &|of| {
                        of.options.get_or_insert_default().insert(name.to_owned(), value.to_owned());
                    });
                }
                "tmpfs-size" => {
                    let bytes = size(value).ok_or_else(wrong)?;
                    let options: &mut MountTmpfsOptions = mount.tmpfs_options.get_or_insert_default();
                    options.size_bytes = Some(bytes);
                }
                "tmpfs-mode" => {
                    let mode = i64::from_str_radix(value, 8).map_err(|_| wrong())?;
                    mount.tmpfs_options.get_or_insert_default().mode = Some(mode);
                }
                _ => return Err(wrong()),
            }
        }
        let inside = mount.target.as_deref().is_some_and(|target| target.starts_with('/'));
        if inside { Ok(mount) } else { Err(wrong()) }
    }
}
