//! From what a task asks for to what is to be attached: [`plan`].

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tepui_api::v1::{ContainerInfo, Labels, NetworkInfo};

use super::checkpoint::{Attachment, Checkpoint, Stage};
use super::config::{self, Config, Network, Networks};
use super::limits::Rates;
use super::{NetworkSettings, plugin};
use crate::isolator::ContainerContext;

/// What plugins find in `args`, as in Mesos.
const MESOS: &str = "org.apache.mesos";
/// The capability, and key of `runtimeConfig`, of `portmap` and its like.
const PORT_MAPPINGS: &str = "portMappings";
/// The plugin that limits rates by itself.
const BANDWIDTH: &str = "bandwidth";
/// Plugins that are known not to look into `args` for port mappings.
const DEAF: [&str; 17] = [
    "bandwidth",
    "bridge",
    "dhcp",
    "firewall",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
];

/// What a container's networks are to be; `None` for one that shares the host's. Errors are what the task is told.
pub(super) fn plan(
    context: &ContainerContext,
    settings: &NetworkSettings,
) -> Result<Option<Checkpoint>, String> {
    let asked = Rates::of_labels(labels(context))?;
    let names = named(context.container.as_ref());
    if names.is_empty() {
        return match asked.any() {
            true => Err("its labels limit its network, but it shares the host's: name a network".to_owned()),
            false => Ok(None),
        };
    }
    let rates = asked.and(Rates { egress: settings.egress_rate_limit, ingress: settings.ingress_rate_limit });
    let mut seen = BTreeSet::new();
    let mut attachments = Vec::new();
    for info in names {
        let name = info.name();
        if !seen.insert(name) {
            return Err(format!("it names the network '{name}' twice"));
        }
        let network = find(name, settings)?;
        let interface = format!("eth{}", attachments.len());
        attachments.push(attachment(info, interface, network, rates, settings)?);
    }
    let given = context.container.as_ref().and_then(|container| container.hostname.clone());
    let hostname =
        given.filter(|name| !name.is_empty()).unwrap_or_else(|| context.container_id.value.clone());
    Ok(Some(Checkpoint { hostname, rates, attachments }))
}

fn labels(context: &ContainerContext) -> Option<&Labels> {
    let task = context.task.as_ref().and_then(|task| task.labels.as_ref());
    task.or_else(|| context.executor.as_ref()?.labels.as_ref())
}

/// The networks that a container names. Those without a name are the host's, and passed over, as in Mesos.
fn named(container: Option<&ContainerInfo>) -> Vec<&NetworkInfo> {
    let all = container.into_iter().flat_map(|container| &container.network_infos);
    all.filter(|info| info.name.is_some()).collect()
}

fn find(name: &str, settings: &NetworkSettings) -> Result<Network, String> {
    let Some(directory) = &settings.config_dir else {
        return Err(format!(
            "this agent has no network '{name}': it was started without --network_cni_config_dir"
        ));
    };
    let networks = Networks::read(directory).map_err(|error| {
        format!("{} (--network_cni_config_dir) cannot be read: {error}", directory.display())
    })?;
    networks.named(name)
}

fn attachment(
    info: &NetworkInfo,
    interface: String,
    network: Network,
    rates: Rates,
    settings: &NetworkSettings,
) -> Result<Attachment, String> {
    if !info.port_mappings.is_empty() && !maps_ports(&network) {
        return Err(format!(
            "the network '{}' maps no ports: it has no plugin with the capability '{PORT_MAPPINGS}', such as portmap",
            network.name
        ));
    }
    for config in &network.plugins {
        plugin::find(config::kind(config), &settings.plugins_dirs)
            .map_err(|why| format!("the network '{}': {why}", network.name))?;
    }
    let own_limits = rates.any() && limited_by_plugin(&network)?;
    let plugins = network.plugins.into_iter();
    let plugins = plugins.map(|config| complete(config, info, rates, own_limits)).collect::<Result<_, _>>();
    Ok(Attachment {
        info: info.clone(),
        network: network.name,
        interface,
        version: network.version,
        checks: network.checks,
        plugins: plugins?,
        stage: Stage::Planned,
        result: None,
        limited_by_plugin: own_limits,
        egress_through: None,
    })
}

fn maps_ports(network: &Network) -> bool {
    let can = |config: &Config| {
        config::has_capability(config, PORT_MAPPINGS) || !DEAF.contains(&config::kind(config))
    };
    network.plugins.iter().any(can)
}

/// Whether the network has a plugin that keeps the limits.
fn limited_by_plugin(network: &Network) -> Result<bool, String> {
    let Some(config) = network.plugins.iter().find(|config| config::kind(config) == BANDWIDTH) else {
        return Ok(false);
    };
    if config::has_capability(config, BANDWIDTH) {
        return Ok(true);
    }
    Err(format!(
        "the network '{}' has limits of its own, which those of the agent or the task would undo: give its plugin \
         '{BANDWIDTH}' \"capabilities\": {{\"{BANDWIDTH}\": true}} in place of figures",
        network.name
    ))
}

/// A plugin's configuration with what concerns this container.
fn complete(mut config: Config, info: &NetworkInfo, rates: Rates, limited: bool) -> Result<Config, String> {
    let args = config.entry("args").or_insert_with(|| json!({}));
    let Value::Object(args) = args else { return Err("the plugin's 'args' are no object".to_owned()) };
    if args.contains_key(MESOS) {
        return Err(format!("the plugin's 'args' have '{MESOS}', which is for the agent to say"));
    }
    let shown = serde_json::to_value(info).map_err(|error| error.to_string())?;
    args.insert(MESOS.to_owned(), json!({"network_info": shown}));
    let mut runtime = Config::new();
    if config::has_capability(&config, PORT_MAPPINGS) && !info.port_mappings.is_empty() {
        runtime.insert(PORT_MAPPINGS.to_owned(), port_mappings(info));
    }
    if limited && config::kind(&config) == BANDWIDTH {
        runtime.insert(BANDWIDTH.to_owned(), bandwidth(rates));
    }
    if !runtime.is_empty() {
        config.insert("runtimeConfig".to_owned(), runtime.into());
    }
    Ok(config)
}

fn port_mappings(info: &NetworkInfo) -> Value {
    let mut all = Vec::new();
    for mapping in &info.port_mappings {
        let protocols = mapping.protocol.as_deref().filter(|text| !text.trim().is_empty()).unwrap_or("tcp");
        for protocol in protocols.split(',') {
            let protocol = protocol.trim().to_ascii_lowercase();
            all.push(json!({"hostPort": mapping.host_port, "containerPort": mapping.container_port, "protocol": protocol}));
        }
    }
    Value::Array(all)
}

/// In bits, as the plugin counts.
fn bandwidth(rates: Rates) -> Value {
    let mut figures = Config::new();
    for (name, rate) in [("egress", rates.egress), ("ingress", rates.ingress)] {
        if let Some(rate) = rate {
            let bucket = super::netlink::Bucket::of_rate(rate);
            figures.insert(format!("{name}Rate"), rate.saturating_mul(8).into());
            figures.insert(format!("{name}Burst"), u64::from(bucket.burst).saturating_mul(8).into());
        }
    }
    Value::Object(figures)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tepui_api::v1::network_info::PortMapping;
    use tepui_api::v1::{Label, TaskInfo};

    use super::super::super::tests::context;
    use super::*;

    fn settings(dir: &Path) -> NetworkSettings {
        for (name, json) in [
            (
                "a.conflist",
                json!({"cniVersion": "1.0.0", "name": "mapped", "plugins": [{"type": "bridge", "args": {"x": 1}}, {"type": "portmap", "capabilities": {"portMappings": true}}]}),
            ),
            ("b.conf", json!({"name": "plain", "type": "bridge"})),
            ("c.conf", json!({"name": "custom", "type": "mapper"})),
            ("d.conf", json!({"name": "reserved", "type": "bridge", "args": {"org.apache.mesos": {}}})),
            (
                "e.conflist",
                json!({"cniVersion": "1.0.0", "name": "slow", "plugins": [{"type": "bridge"}, {"type": "bandwidth", "capabilities": {"bandwidth": true}}]}),
            ),
            (
                "f.conflist",
                json!({"cniVersion": "1.0.0", "name": "fixed", "plugins": [{"type": "bridge"}, {"type": "bandwidth", "egressRate": 8}]}),
            ),
            ("g.conf", json!({"name": "absent", "type": "no-such-plugin"})),
        ] {
            fs::write(dir.join(name), json.to_string()).unwrap();
        }
        for plugin in ["bridge", "portmap", "mapper", "bandwidth"] {
            fs::write(dir.join(plugin), "").unwrap();
        }
        NetworkSettings {
            plugins_dirs: vec![dir.to_owned()],
            config_dir: Some(dir.to_owned()),
            ..NetworkSettings::default()
        }
    }

    fn on(names: &[&str], ports: bool) -> ContainerContext {
        let mapping =
            PortMapping { host_port: 8080, container_port: 80, protocol: Some("TCP,udp".to_owned()) };
        let info = |name: &&str| NetworkInfo {
            name: Some((*name).to_owned()),
            port_mappings: if ports { vec![mapping.clone()] } else { Vec::new() },
            ..NetworkInfo::default()
        };
        let mut container =
            ContainerInfo { network_infos: names.iter().map(info).collect(), ..ContainerInfo::default() };
        container.network_infos.insert(0, NetworkInfo::default());
        context(Some(container))
    }

    fn slowed(context: ContainerContext, value: &str) -> ContainerContext {
        let label =
            Label { key: super::super::limits::EGRESS_LABEL.to_owned(), value: Some(value.to_owned()) };
        let task = TaskInfo { labels: Some(Labels { labels: vec![label] }), ..TaskInfo::default() };
        ContainerContext { task: Some(task), ..context }
    }

    #[test]
    fn plugins_are_told_of_the_task() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(&on(&["mapped", "plain"], false), &settings(dir.path())).unwrap().unwrap();
        assert_eq!(plan.hostname, "c");
        let interfaces: Vec<_> =
            plan.attachments.iter().map(|one| (one.network.as_str(), one.interface.as_str())).collect();
        assert_eq!(interfaces, [("mapped", "eth0"), ("plain", "eth1")]);
        let args = &plan.attachments[0].plugins[0]["args"];
        assert_eq!(args, &json!({"x": 1, MESOS: {"network_info": {"name": "mapped"}}}));
        assert!(!plan.attachments[0].plugins[1].contains_key("runtimeConfig"));
    }

    #[test]
    fn ports_are_mapped_by_the_plugin_that_can() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let mapped = plan(&on(&["mapped"], true), &settings).unwrap().unwrap();
        let ports = |protocol: &str| json!({"hostPort": 8080, "containerPort": 80, "protocol": protocol});
        assert_eq!(
            mapped.attachments[0].plugins[1]["runtimeConfig"],
            json!({"portMappings": [ports("tcp"), ports("udp")]})
        );
        assert!(!mapped.attachments[0].plugins[0].contains_key("runtimeConfig"));
        assert!(plan(&on(&["plain"], true), &settings).unwrap_err().contains("maps no ports"));
        assert!(plan(&on(&["custom"], true), &settings).is_ok(), "it may look into args");
    }

    #[test]
    fn limits_go_to_a_plugin_that_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        let slow = plan(&slowed(on(&["slow"], false), "125KB"), &settings).unwrap().unwrap();
        assert!(slow.attachments[0].limited_by_plugin);
        assert_eq!(slow.attachments[0].plugins[1]["runtimeConfig"]["bandwidth"]["egressRate"], 1_024_000);
        assert!(
            plan(&slowed(on(&["fixed"], false), "125KB"), &settings)
                .unwrap_err()
                .contains("limits of its own")
        );
        assert!(plan(&on(&["fixed"], false), &settings).is_ok());
        assert!(
            !plan(&slowed(on(&["plain"], false), "125KB"), &settings).unwrap().unwrap().attachments[0]
                .limited_by_plugin
        );
    }

    #[test]
    fn what_cannot_be_is_refused_with_words() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        for (names, words) in [
            (vec!["nowhere"], "no network 'nowhere'"),
            (vec!["plain", "plain"], "twice"),
            (vec!["reserved"], "org.apache.mesos"),
            (vec!["absent"], "no program 'no-such-plugin'"),
        ] {
            let why = plan(&on(&names, false), &settings).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        assert!(plan(&slowed(on(&[], false), "125KB"), &settings).unwrap_err().contains("shares the host's"));
        assert_eq!(plan(&on(&[], false), &settings).unwrap(), None);
        let without = NetworkSettings::default();
        assert!(plan(&on(&["plain"], false), &without).unwrap_err().contains("--network_cni_config_dir"));
    }
}
