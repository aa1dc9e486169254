//! The flags that say what becomes of containers' output.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use clap::Args;
use serde::Deserialize;
use tepui_shim::Rotation;

use super::FlagError;
use crate::containerizer::logger;

/// What Mesos calls the rotating logger.
const MODULE: &str = "org_apache_mesos_LogrotateContainerLogger";

/// The flags that say what becomes of containers' output.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Containers")]
pub struct LoggerFlags {
    /// What keeps containers' output: "sandbox", which lets it grow; or "logrotate", also called
    /// org_apache_mesos_LogrotateContainerLogger, which begins a new file when one is full
    #[arg(long = "container_logger", value_name = "NAME", default_value = "sandbox")]
    pub container_logger: ContainerLogger,

    /// Parameters of the rotating logger, in Mesos' form: JSON, or the path of a file with it. No other module can be had
    #[arg(long = "modules", value_name = "JSON|PATH")]
    pub modules: Option<Modules>,
}

/// What keeps containers' output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerLogger {
    /// Files of the sandbox, which grow.
    Sandbox,
    /// Files of the sandbox, which are rotated.
    Logrotate,
}

/// `--modules`, as far as there are any.
#[derive(Debug, Clone, PartialEq)]
pub struct Modules {
    /// As it was given.
    text: String,
    rotation: Rotation,
}

// Mesos' message `Modules`, as JSON.

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    libraries: Vec<Library>,
}

#[derive(Deserialize)]
struct Library {
    #[serde(default)]
    modules: Vec<Module>,
}

#[derive(Deserialize)]
struct Module {
    name: String,
    #[serde(default)]
    parameters: Vec<Parameter>,
}

#[derive(Deserialize)]
struct Parameter {
    key: String,
    value: String,
}

// === impl LoggerFlags ===

impl LoggerFlags {
    /// How containers' output is rotated, if it is.
    #[must_use]
    pub fn rotation(&self) -> Option<Rotation> {
        match self.container_logger {
            ContainerLogger::Sandbox => None,
            ContainerLogger::Logrotate => {
                Some(self.modules.as_ref().map_or(logger::DEFAULT, |modules| modules.rotation))
            }
        }
    }

    /// Each flag, with its value as text, sorted by name.
    pub(super) fn table(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("container_logger", Some(self.container_logger.to_string())),
            ("modules", self.modules.as_ref().map(|modules| modules.text.clone())),
        ]
    }
}

// === impl ContainerLogger ===

impl FromStr for ContainerLogger {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        match text {
            "sandbox" => Ok(Self::Sandbox),
            "logrotate" | MODULE => Ok(Self::Logrotate),
            _ => Err(FlagError::Unknown(
                text.to_owned(),
                "sandbox, or logrotate (org_apache_mesos_LogrotateContainerLogger)",
            )),
        }
    }
}

impl fmt::Display for ContainerLogger {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Sandbox => "sandbox",
            Self::Logrotate => "logrotate",
        })
    }
}

// === impl Modules ===

impl FromStr for Modules {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let path = text.strip_prefix("file://").unwrap_or(text);
        let json = if Path::new(path).is_absolute() {
            std::fs::read_to_string(path).map_err(|error| FlagError::Modules(format!("{path}: {error}")))?
        } else {
            text.to_owned()
        };
        let document: Document = serde_json::from_str(&json)
            .map_err(|error| FlagError::Modules(format!("no JSON of modules as Mesos has it: {error}")))?;
        let mut rotation = logger::DEFAULT;
        for module in document.libraries.iter().flat_map(|library| &library.modules) {
            if !matches!(module.name.as_str(), MODULE | "logrotate") {
                return Err(FlagError::Modules(format!(
                    "the module '{}' cannot be loaded, as Mesos' modules are bound to its C++ ABI; {MODULE} is built in",
                    module.name
                )));
            }
            for Parameter { key, value } in &module.parameters {
                // Where Mesos finds its programs, and how it runs them.
                if matches!(key.as_str(), "launcher_dir" | "logrotate_path" | "libprocess_num_worker_threads")
                {
                    continue;
                }
                if key == "environment_variable_prefix" {
                    if value != logger::PREFIX {
                        let words = format!("the prefix of variables is always {}", logger::PREFIX);
                        return Err(FlagError::Modules(words));
                    }
                    continue;
                }
                logger::set(&mut rotation, key, value)
                    .map_err(|error| FlagError::Modules(error.to_string()))?;
            }
        }
        Ok(Self { text: text.to_owned(), rotation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_shim::LogLimits;

    #[test]
    fn an_operator_s_modules_are_read() {
        let text = r#"{"libraries": [{"file": "/usr/lib/liblogrotate_container_logger.so", "modules": [{
            "name": "org_apache_mesos_LogrotateContainerLogger",
            "parameters": [{"key": "launcher_dir", "value": "/usr/libexec/mesos"}, {"key": "max_stdout_size", "value": "1MB"},
                {"key": "logrotate_stderr_options", "value": "rotate 5"}]}]}]}"#;
        let modules: Modules = text.parse().unwrap();
        assert_eq!(modules.rotation.stdout, LogLimits { max_size: 1 << 20, keep: 0 });
        assert_eq!(modules.rotation.stderr, LogLimits { max_size: 10 << 20, keep: 5 });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("modules.json");
        std::fs::write(&path, text).unwrap();
        assert_eq!(path.display().to_string().parse::<Modules>().unwrap().rotation, modules.rotation);
        for (bad, words) in [
            ("{", "no JSON"),
            ("/no/such/file", "No such file"),
            (r#"{"libraries":[{"modules":[{"name":"x"}]}]}"#, "'x' cannot be loaded"),
            (&text.replace("max_stdout_size", "max_size"), "no setting 'max_size'"),
            (&text.replace("rotate 5", "compress"), "'compress' is not supported"),
        ] {
            let error = bad.parse::<Modules>().unwrap_err().to_string();
            assert!(error.contains(words), "{bad}: {error}");
        }
        assert!("journald".parse::<ContainerLogger>().is_err());
        assert_eq!(MODULE.parse::<ContainerLogger>().unwrap(), ContainerLogger::Logrotate);
    }
}
