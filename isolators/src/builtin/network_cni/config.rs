//! The networks that the operator has described: files in `--network_cni_config_dir`, read anew for each container.
//!
//! A `.conf` or `.json` file holds one plugin's configuration, a `.conflist` (or any file with `plugins`) a list of them. Files are taken in the order of their names;
//! of two that name the same network, the first holds. Rules: the CNI specification, "Network configuration format".

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// A plugin's configuration.
pub(super) type Config = Map<String, Value>;

/// Versions of the specification whose results are understood here, the oldest first.
pub(super) const VERSIONS: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];
/// The first version in which a plugin is told what those before it did.
const CHAINS: &str = "0.3.0";
/// The first version with CHECK, and in which DEL is told the result of ADD.
const CHECKS: &str = "0.4.0";
/// What a file without a version means.
const UNSAID: &str = "0.1.0";

/// Kinds of files that are read.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// A network as a file describes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Network {
    pub name: String,
    pub version: String,
    /// In the order of ADD. Each with the network's name and version.
    pub plugins: Vec<Config>,
    /// Whether CHECK may be called.
    pub checks: bool,
}

/// A file that describes no network.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub(super) struct Unusable {
    pub path: PathBuf,
    pub why: String,
}

/// All networks, and the files that describe none.
#[derive(Debug, Default)]
pub(super) struct Networks {
    pub known: Vec<Network>,
    pub unusable: Vec<Unusable>,
}

impl Networks {
    /// Reads the directory.
    pub fn read(directory: &Path) -> io::Result<Self> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if ENDINGS.contains(&ending) && path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        let mut networks = Self::default();
        for path in paths {
            match fs::read(&path).map_err(|error| error.to_string()).and_then(|text| parse(&text)) {
                Ok(network) if networks.known.iter().any(|known| known.name == network.name) => {
                    let why = format!("an earlier file describes the network '{}' already", network.name);
                    networks.unusable.push(Unusable { path, why });
                }
                Ok(network) => networks.known.push(network),
                Err(why) => networks.unusable.push(Unusable { path, why }),
            }
        }
        Ok(networks)
    }

    /// The network with this name, or words about what there is instead.
    pub fn named(mut self, name: &str) -> Result<Network, String> {
        if let Some(at) = self.known.iter().position(|network| network.name == name) {
            return Ok(self.known.swap_remove(at));
        }
        let known: Vec<&str> = self.known.iter().map(|network| network.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let mut text = format!("this agent has no network '{name}'; it has: {known}");
        if !self.unusable.is_empty() {
            let files: Vec<String> = self.unusable.iter().map(ToString::to_string).collect();
            text.push_str(&format!("; files that cannot be used: {}", files.join("; ")));
        }
        Err(text)
    }
}

impl Network {
    /// Whether plugins are told what those before them did.
    pub fn chains(&self) -> bool {
        is_at_least(&self.version, CHAINS)
    }
}

/// Whether DEL is told the result of ADD, and CHECK exists.
pub(super) fn knows_results(version: &str) -> bool {
    is_at_least(version, CHECKS)
}

fn is_at_least(version: &str, other: &str) -> bool {
    let place = |version: &str| VERSIONS.iter().position(|known| *known == version);
    place(version) >= place(other)
}

/// A plugin's `type`: the name of its program.
pub(super) fn kind(config: &Config) -> &str {
    config.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// Whether a plugin says that it takes part in something at run time.
pub(super) fn has_capability(config: &Config, name: &str) -> bool {
    config.get("capabilities").and_then(|all| all.get(name)).and_then(Value::as_bool).unwrap_or(false)
}

/// What a file describes.
fn parse(text: &[u8]) -> Result<Network, String> {
    let mut file: Config =
        serde_json::from_slice(text).map_err(|error| format!("it is no JSON object: {error}"))?;
    let name = string(&file, "name")?.ok_or("it has no 'name'")?.to_owned();
    if !is_name(&name) {
        return Err(format!(
            "'{name}' is no name for a network: use letters, digits, '_', '.' and '-', beginning with a letter or digit"
        ));
    }
    let said = string(&file, "cniVersion")?.map(str::to_owned);
    let version = said.clone().unwrap_or_else(|| UNSAID.to_owned());
    if !VERSIONS.contains(&version.as_str()) {
        return Err(format!(
            "the version '{version}' of CNI is not supported: use one of {}",
            VERSIONS.join(", ")
        ));
    }
    let disabled =
        file.get("disableCheck").is_some_and(|value| *value == Value::Bool(true) || value == "true");
    let checks = !disabled && knows_results(&version);
    let plugins = match file.remove("plugins") {
        None => vec![file],
        Some(Value::Array(list)) => list
            .into_iter()
            .map(|plugin| match plugin {
                Value::Object(mut plugin) => {
                    plugin.insert("name".to_owned(), name.clone().into());
                    if let Some(version) = &said {
                        plugin.insert("cniVersion".to_owned(), version.clone().into());
                    }
                    Ok(plugin)
                }
                _ => Err("one of its 'plugins' is no object".to_owned()),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err("its 'plugins' are no list".to_owned()),
    };
    let network = Network { name, version, plugins, checks };
    if network.plugins.is_empty() {
        return Err("its 'plugins' are empty".to_owned());
    }
    if network.plugins.len() > 1 && !network.chains() {
        return Err(format!("a list of several plugins needs \"cniVersion\" {CHAINS} or later"));
    }
    for plugin in &network.plugins {
        let kind = string(plugin, "type")?.unwrap_or_default();
        if kind.is_empty() || kind.contains('/') || kind.starts_with('.') {
            return Err(format!("a plugin's 'type' must be the name of a program, not '{kind}'"));
        }
    }
    Ok(network)
}

fn string<'a>(config: &'a Config, name: &str) -> Result<Option<&'a str>, String> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("its '{name}' is no string")),
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(json: &Value) -> Result<Network, String> {
        parse(json.to_string().as_bytes())
    }

    #[test]
    fn a_single_plugin_is_a_chain_of_one() {
        let network =
            of(&json!({"cniVersion": "0.2.0", "name": "a", "type": "bridge", "mtu": 9000})).unwrap();
        assert_eq!((network.name.as_str(), network.plugins.len(), network.checks), ("a", 1, false));
        assert_eq!(network.plugins[0]["mtu"], 9000);
        assert_eq!(of(&json!({"name": "a", "type": "x"})).unwrap().version, "0.1.0");
    }

    #[test]
    fn the_plugins_of_a_list_get_its_name_and_version() {
        let list = json!({"cniVersion": "1.0.0", "name": "l", "plugins": [{"type": "bridge"}, {"type": "portmap", "capabilities": {"portMappings": true}}]});
        let network = of(&list).unwrap();
        assert!(network.checks);
        for plugin in &network.plugins {
            assert_eq!((&plugin["name"], &plugin["cniVersion"]), (&json!("l"), &json!("1.0.0")));
        }
        assert!(has_capability(&network.plugins[1], "portMappings"));
        assert!(!has_capability(&network.plugins[0], "portMappings"));
        let mut unchecked = list;
        unchecked["disableCheck"] = json!(true);
        assert!(!of(&unchecked).unwrap().checks);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (file, words) in [
            (json!([]), "no JSON object"),
            (json!({"type": "bridge"}), "no 'name'"),
            (json!({"name": "../x", "type": "bridge"}), "no name for a network"),
            (json!({"name": "a"}), "'type'"),
            (json!({"name": "a", "type": "/bin/sh"}), "'type'"),
            (json!({"name": "a", "type": 1}), "no string"),
            (json!({"name": "a", "type": "x", "cniVersion": "7.0.0"}), "not supported"),
            (json!({"name": "a", "plugins": []}), "empty"),
            (
                json!({"name": "a", "cniVersion": "0.2.0", "plugins": [{"type": "x"}, {"type": "y"}]}),
                "0.3.0 or later",
            ),
        ] {
            let why = of(&file).unwrap_err();
            assert!(why.contains(words), "{file}: {why}");
        }
    }

    #[test]
    fn a_directory_is_read_in_order_and_what_is_unusable_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, json: Value| fs::write(dir.path().join(name), json.to_string()).unwrap();
        write("20-b.conf", json!({"name": "a", "type": "second"}));
        write("10-a.json", json!({"name": "a", "type": "first"}));
        write("30-c.conflist", json!({"name": "c", "cniVersion": "0.4.0", "plugins": [{"type": "x"}]}));
        write("40-d.txt", json!({"name": "d", "type": "x"}));
        fs::write(dir.path().join("50-e.conf"), "{").unwrap();
        let networks = Networks::read(dir.path()).unwrap();
        assert_eq!(networks.unusable.len(), 2);
        assert_eq!(kind(&networks.known[0].plugins[0]), "first");
        let error = networks.named("d").unwrap_err();
        assert!(error.contains("no network 'd'; it has: a, c") && error.contains("50-e.conf"), "{error}");
    }
}
