use std::collections::BTreeMap;

use super::*;
use tepui_api::v1::{Environment, NetworkInfo, Parameter, Parameters};

struct Asked {
    container: ContainerInfo,
    command: CommandInfo,
    resources: &'static str,
    limits: Limits,
    dns: ContainerDns,
}

impl Asked {
    fn new(change: impl FnOnce(&mut DockerInfo)) -> Self {
        let mut docker = DockerInfo { image: "busybox".into(), ..DockerInfo::default() };
        change(&mut docker);
        Self {
            container: ContainerInfo { docker: Some(docker), ..ContainerInfo::default() },
            command: CommandInfo { value: Some("true".into()), ..CommandInfo::default() },
            resources: "cpus:0.5;mem:64;ports:[31000-31002]",
            limits: BTreeMap::new(),
            dns: ContainerDns::default(),
        }
    }

    fn body(&self) -> Result<ContainerCreateBody, SpecError> {
        create_body(&Request {
            name: "mesos-1",
            container: &self.container,
            command: &self.command,
            environment: &[],
            resources: &Resources::parse(self.resources, "*").unwrap(),
            limits: &self.limits,
            sandbox: Path::new("/w/sandbox"),
            sandbox_directory: "/mnt/mesos/sandbox",
            enable_cfs: true,
            dns: &self.dns,
            labels: &HashMap::new(),
        })
    }

    fn host(&self) -> HostConfig {
        self.body().unwrap().host_config.unwrap()
    }

    fn error(&self) -> String {
        self.body().unwrap_err().to_string()
    }
}

fn with(key: &str, value: &str) -> Asked {
    Asked::new(|docker| docker.parameters = vec![Parameter { key: key.into(), value: value.into() }])
}

#[test]
fn a_shell_line_replaces_the_entrypoint_and_words_follow_it() {
    let mut asked = Asked::new(|_| {});
    let body = asked.body().unwrap();
    assert_eq!(body.entrypoint, Some(vec!["/bin/sh".to_owned()]));
    assert_eq!(body.cmd, Some(vec!["-c".to_owned(), "true".to_owned()]));
    asked.command = CommandInfo {
        shell: Some(false),
        value: Some("a".into()),
        arguments: vec!["b".into()],
        ..CommandInfo::default()
    };
    let body = asked.body().unwrap();
    assert_eq!((body.entrypoint, body.cmd), (None, Some(vec!["a".to_owned(), "b".to_owned()])));
    asked.command = CommandInfo { shell: Some(false), ..CommandInfo::default() };
    let body = asked.body().unwrap();
    assert_eq!((body.entrypoint, body.cmd), (None, None));
    asked.command = CommandInfo::default();
    assert!(asked.error().contains("no value"));
}

#[test]
fn resources_and_limits_become_the_engine_s() {
    let mut asked = Asked::new(|_| {});
    let host = asked.host();
    assert_eq!((host.cpu_shares, host.cpu_quota), (Some(512), Some(50_000)));
    assert_eq!((host.memory, host.memory_reservation), (Some(64 << 20), None));
    asked.limits = BTreeMap::from([("cpus".to_owned(), 2.0), ("mem".to_owned(), 128.0)]);
    let host = asked.host();
    assert_eq!((host.cpu_shares, host.cpu_quota), (Some(512), Some(200_000)));
    assert_eq!((host.memory, host.memory_reservation), (Some(128 << 20), Some(64 << 20)));
    assert!(host.oom_score_adj.is_some_and(|score| (1..1000).contains(&score)));
    asked.limits = BTreeMap::from([("cpus".to_owned(), f64::INFINITY), ("mem".to_owned(), f64::INFINITY)]);
    let host = asked.host();
    assert_eq!((host.cpu_quota, host.memory), (None, None));
    asked.resources = "cpus:0.001;mem:1";
    asked.limits.clear();
    let host = asked.host();
    assert_eq!((host.cpu_shares, host.cpu_quota, host.memory), (Some(2), Some(1000), Some(32 << 20)));
}

#[test]
fn networks_and_ports_go_together() {
    assert_eq!(Asked::new(|_| {}).host().network_mode.as_deref(), Some("host"));
    let mapped = |network: Network, host_port: u32| {
        Asked::new(|docker| {
            docker.network = Some(network as i32);
            docker.port_mappings = vec![docker_info::PortMapping {
                host_port,
                container_port: 80,
                protocol: Some("UDP".into()),
            }];
        })
    };
    let body = mapped(Network::Bridge, 31000).body().unwrap();
    assert_eq!(body.exposed_ports, Some(vec!["80/udp".to_owned()]));
    assert!(body.host_config.unwrap().port_bindings.unwrap().contains_key("80/udp"));
    assert!(mapped(Network::Bridge, 80).error().contains("80 of the host is not among"));
    assert!(mapped(Network::Host, 31000).error().contains("BRIDGE or USER"));
    let mut user = mapped(Network::User, 31001);
    assert!(user.error().contains("network_infos"));
    user.container.network_infos = vec![NetworkInfo { name: Some("mine".into()), ..NetworkInfo::default() }];
    assert_eq!(user.host().network_mode.as_deref(), Some("mine"));
    let mut named = Asked::new(|_| {});
    named.container.hostname = Some("h".into());
    assert!(named.error().contains("hostname"));
}

#[test]
fn name_servers_are_the_agent_s_unless_the_task_names_some() {
    let dns = r#"{"docker": [{"network_mode": "BRIDGE", "dns": {"nameservers": ["10.0.0.1"]}},
                             {"network_mode": "USER", "network_name": "mine", "dns": {"search": ["a.b"]}}]}"#;
    let mut asked = Asked::new(|docker| docker.network = Some(Network::Bridge as i32));
    asked.dns = dns.parse().unwrap();
    assert_eq!(asked.host().dns, Some(vec!["10.0.0.1".to_owned()]));
    let docker = asked.container.docker.as_mut().unwrap();
    docker.parameters = vec![Parameter { key: "dns".into(), value: "10.0.0.2".into() }];
    assert_eq!(asked.host().dns, Some(vec!["10.0.0.2".to_owned()]));
    let mut asked = Asked::new(|docker| docker.network = Some(Network::User as i32));
    asked.dns = dns.parse().unwrap();
    asked.container.network_infos = vec![NetworkInfo { name: Some("mine".into()), ..NetworkInfo::default() }];
    assert_eq!(asked.host().dns_search, Some(vec!["a.b".to_owned()]));
}

#[test]
fn volumes_are_bound_where_mesos_binds_them() {
    let volume = |host: &str, inside: &str| Volume {
        mode: volume::Mode::Ro as i32,
        host_path: Some(host.into()),
        container_path: inside.into(),
        ..Volume::default()
    };
    let mut asked = Asked::new(|_| {});
    asked.container.volumes = vec![volume("/a", "/b"), volume("c", "/d"), volume("/e", "f")];
    let expected =
        ["/w/sandbox:/mnt/mesos/sandbox", "/a:/b:ro", "/w/sandbox/c:/d:ro", "/e:/mnt/mesos/sandbox/f:ro"];
    assert_eq!(asked.host().binds.unwrap(), expected);
    for (wrong, words) in [
        (volume("a", "b"), "relative"),
        (volume("../a", "/b"), "out of the sandbox"),
        (volume("/a:/x", "/b"), "colon"),
    ] {
        asked.container.volumes = vec![wrong];
        assert!(asked.error().contains(words), "{}", asked.error());
    }
    let named =
        volume::source::DockerVolume { name: "v".into(), driver: Some("d".into()), ..Default::default() };
    let source = volume::Source { docker_volume: Some(named), ..Default::default() };
    asked.container.volumes = vec![Volume {
        mode: volume::Mode::Rw as i32,
        container_path: "/v".into(),
        source: Some(source),
        ..Volume::default()
    }];
    let host = asked.host();
    assert_eq!((host.binds.unwrap()[1].as_str(), host.volume_driver.as_deref()), ("v:/v:rw", Some("d")));
    // With options each has a driver of its own.
    let option = Parameter { key: "size".into(), value: "1".into() };
    let source = asked.container.volumes[0].source.as_mut().unwrap();
    source.docker_volume.as_mut().unwrap().driver_options = Some(Parameters { parameter: vec![option] });
    let host = asked.host();
    let mount = host.mounts.unwrap().remove(0);
    assert_eq!((mount.source.as_deref(), mount.target.as_deref()), (Some("v"), Some("/v")));
    let config = mount.volume_options.unwrap().driver_config.unwrap();
    assert_eq!((config.name.as_deref(), config.options.unwrap()["size"].as_str()), (Some("d"), "1"));
    assert_eq!((host.binds.unwrap().len(), host.volume_driver), (1, None));
}

#[test]
fn variables_of_mesos_win() {
    let mut asked = Asked::new(|_| {});
    let variable = |name: &str, value: &str| environment::Variable {
        name: name.into(),
        value: Some(value.into()),
        ..environment::Variable::default()
    };
    let variables = vec![variable("A", "1"), variable("MESOS_SANDBOX", "x")];
    asked.command.environment = Some(Environment { variables });
    let env = asked.body().unwrap().env.unwrap();
    assert_eq!(env[..3], ["A=1", "MESOS_SANDBOX=/mnt/mesos/sandbox", "MESOS_CONTAINER_NAME=mesos-1"]);
}

#[test]
fn parameters_are_the_options_of_docker_run() {
    assert_eq!(with("memory", "1g").host().memory, Some(1 << 30));
    assert_eq!(with("cpus", "1.5").host().nano_cpus, Some(1_500_000_000));
    assert_eq!(with("net", "none").host().network_mode.as_deref(), Some("none"));
    assert_eq!(with("cap-add", "NET_ADMIN").host().cap_add, Some(vec!["NET_ADMIN".to_owned()]));
    assert_eq!(with("user", "1000").body().unwrap().user.as_deref(), Some("1000"));
    assert_eq!(
        with("env", "MESOS_SANDBOX=/x").body().unwrap().env.unwrap().last().unwrap(),
        "MESOS_SANDBOX=/x"
    );
    let ulimit = with("ulimit", "nofile=10:20").host().ulimits.unwrap().remove(0);
    assert_eq!((ulimit.soft, ulimit.hard), (Some(10), Some(20)));
    let device = with("device", "/dev/fuse:rw").host().devices.unwrap().remove(0);
    assert_eq!(device.path_in_container.as_deref(), Some("/dev/fuse"));
    assert_eq!(device.cgroup_permissions.as_deref(), Some("rw"));
    let mount =
        with("mount", "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700").host().mounts.unwrap().remove(0);
    assert_eq!(mount.tmpfs_options.unwrap().size_bytes, Some(1 << 20));
    let body = with("publish", "127.0.0.1:8080:80/udp").body().unwrap();
    let bindings = body.host_config.unwrap().port_bindings.unwrap().remove("80/udp").unwrap().unwrap();
    assert_eq!(bindings[0].host_ip.as_deref(), Some("127.0.0.1"));
    let endpoints =
        with("ip", "10.1.0.7").body().unwrap().networking_config.unwrap().endpoints_config.unwrap();
    assert_eq!(endpoints["host"].ipam_config.as_ref().unwrap().ipv4_address.as_deref(), Some("10.1.0.7"));
}

#[test]
fn what_is_wrong_with_a_parameter_is_named() {
    assert_eq!(with("colour", "red").error(), "the parameter 'colour' is no option of 'docker run'");
    assert_eq!(
        with("memory", "much").error(),
        "the parameter 'memory' cannot be 'much': use a size, such as 512m"
    );
    assert!(with("name", "x").error().contains("'name' cannot be used"));
    assert!(with("restart", "always").error().contains("framework decides"));
    assert!(with("restart", "no").body().is_ok());
    for (key, value) in [("mount", "target"), ("publish", "a:b"), ("ulimit", "nofile=x"), ("device", "fuse")]
    {
        assert!(with(key, value).error().contains("cannot be"), "{key}");
    }
    let twice = Asked::new(|docker| {
        let parameter = |value: &str| Parameter { key: "network".into(), value: value.into() };
        docker.parameters = vec![parameter("a"), parameter("b")];
    });
    assert!(twice.error().contains("one network"));
}
