//! From what a user gives (command line, environment, configuration file) to what clap parses.
//!
//! Flags have Mesos' names and forms: `--work_dir=D`, `--work-dir D`, `--no-hostname_lookup`, and a
//! value `file:///path` stands for the contents of that file. A flag may also be an environment
//! variable `TEPUI_WORK_DIR` or a key in the TOML file named by `--config`; the command line wins over
//! the environment, and the environment over the file. All of it becomes one list of
//! `--name=value`, weakest first, in which the last one counts.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{ArgAction, Command};

/// A flag that Mesos has and Tepui has not: its name, and what to do instead.
pub type Absent = (&'static str, &'static str);

/// Why flags could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    /// Mesos has it, Tepui has not.
    #[error("--{name} is a flag of Mesos that Tepui does not implement: {why}")]
    NotImplemented {
        /// Its name.
        name: String,
        /// What to do instead.
        why: &'static str,
    },
    /// Neither has it.
    #[error("unknown flag --{name}{hint}; `{command} --help` lists the flags")]
    Unknown {
        /// Its name.
        name: String,
        /// The nearest one that exists.
        hint: String,
        /// What it is a flag of, such as `tepui agent`.
        command: String,
    },
    /// A value is missing.
    #[error("--{0} needs a value: --{0}=VALUE")]
    NoValue(String),
    /// A file that was named cannot be read.
    #[error("cannot read {path} for {what}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// What named it.
        what: String,
        /// Why not.
        error: std::io::Error,
    },
    /// The configuration file is not TOML of flags.
    #[error("{path} is not a configuration of Tepui: {error}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: String,
    },
    /// A stray word.
    #[error("unexpected argument '{0}': flags are given as --name=value")]
    Stray(String),
    /// Not UTF-8.
    #[error("the argument {0:?} is not UTF-8")]
    NotText(OsString),
}

/// Turns everything the user gave for this subcommand into arguments for clap.
///
/// # Errors
/// When a flag is not known, lacks its value, or a file cannot be read.
pub fn gather(
    command: &Command,
    absent: &[Absent],
    given: &[OsString],
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<String>, FlagError> {
    let known = Known { command, absent };
    let line = known.command_line(given)?;
    let config = match line.iter().rev().find(|(name, _)| name == "config") {
        Some((_, path)) => Some(PathBuf::from(path)),
        None => env("TEPUI_CONFIG").map(PathBuf::from),
    };
    let mut all = Vec::new();
    if let Some(path) = config {
        all.extend(known.config_file(&path)?);
    }
    all.extend(known.environment(env)?);
    all.extend(line);
    all.into_iter()
        .filter(|(name, _)| name != "config")
        .map(|(name, value)| {
            if name == "help" {
                Ok("--help".to_owned())
            } else {
                Ok(format!("--{name}={}", contents(&name, value)?))
            }
        })
        .collect()
}

/// The value itself, or what is in the file it names (as Mesos' flags have it).
fn contents(name: &str, value: String) -> Result<String, FlagError> {
    let Some(path) = value.strip_prefix("file://") else { return Ok(value) };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end_matches('\n').to_owned()),
        Err(error) => Err(FlagError::File { path: path.into(), what: format!("--{name}"), error }),
    }
}

struct Known<'a> {
    command: &'a Command,
    absent: &'a [Absent],
}

impl Known<'_> {
    /// Pairs of flag and value, in the order given.
    fn command_line(&self, given: &[OsString]) -> Result<Vec<(String, String)>, FlagError> {
        let mut pairs = Vec::new();
        let mut rest = given.iter();
        while let Some(word) = rest.next() {
            let text = word.to_str().ok_or_else(|| FlagError::NotText(word.clone()))?;
            if text == "-h" || text == "--help" {
                pairs.push(("help".to_owned(), String::new()));
                continue;
            }
            let body = text.strip_prefix("--").ok_or_else(|| FlagError::Stray(text.to_owned()))?;
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let name = name.replace('-', "_");
            let (name, value) = self.resolve(&name, value)?;
            let value = match value {
                Some(value) => value,
                None => match rest.next() {
                    Some(next) => next.to_str().ok_or_else(|| FlagError::NotText(next.clone()))?.to_owned(),
                    None => return Err(FlagError::NoValue(name)),
                },
            };
            pairs.push((name, value));
        }
        Ok(pairs)
    }

    /// The flag's own name, and its value where the form alone says it (`--x`, `--no-x`).
    fn resolve(&self, name: &str, value: Option<String>) -> Result<(String, Option<String>), FlagError> {
        if name == "config" {
            return Ok((name.to_owned(), value));
        }
        if let Some(flag) = self.find(name) {
            let value = value.or_else(|| is_boolean(flag).then(|| "true".to_owned()));
            return Ok((flag.get_long().unwrap_or(name).to_owned(), value));
        }
        if let Some(flag) = name.strip_prefix("no_").and_then(|name| self.find(name))
            && value.is_none()
            && is_boolean(flag)
        {
            return Ok((flag.get_long().unwrap_or(name).to_owned(), Some("false".to_owned())));
        }
        let bare = name.strip_prefix("no_").unwrap_or(name);
        if let Some((name, why)) = self.absent.iter().find(|(absent, _)| *absent == name || *absent == bare) {
            return Err(FlagError::NotImplemented { name: (*name).to_owned(), why });
        }
        let command = self.command.get_name().to_owned();
        Err(FlagError::Unknown { name: name.to_owned(), hint: self.hint(name), command })
    }

    fn find(&self, name: &str) -> Option<&clap::Arg> {
        self.command.get_arguments().find(|arg| {
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|all| all.contains(&name))
        })
    }

    fn hint(&self, name: &str) -> String {
        let flags = self.command.get_arguments().filter_map(clap::Arg::get_long);
        let near = flags.map(|flag| (distance(name, flag), flag)).min();
        match near {
            Some((distance, flag)) if distance <= 1 + name.len() / 4 => format!(", did you mean --{flag}?"),
            _ => String::new(),
        }
    }

    fn environment(
        &self,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Vec<(String, String)>, FlagError> {
        let mut pairs = Vec::new();
        for flag in self.command.get_arguments().filter_map(clap::Arg::get_long) {
            let Some(value) = env(&format!("TEPUI_{}", flag.to_uppercase())) else { continue };
            let value = value.into_string().map_err(FlagError::NotText)?;
            pairs.push((flag.to_owned(), value));
        }
        Ok(pairs)
    }

    fn config_file(&self, path: &Path) -> Result<Vec<(String, String)>, FlagError> {
        let text = std::fs::read_to_string(path).map_err(|error| FlagError::File {
            path: path.to_owned(),
            what: "--config".to_owned(),
            error,
        })?;
        let wrong = |error: String| FlagError::Config { path: path.to_owned(), error };
        let table: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let mut pairs = Vec::new();
        for (key, value) in table {
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(flag) => flag.to_string(),
                toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                    return Err(wrong(format!("{key} must be a string, a number or true or false")));
                }
            };
            let (name, value) = self.resolve(&key.replace('-', "_"), Some(value))?;
            pairs.push((name, value.unwrap_or_default()));
        }
        Ok(pairs)
    }
}

fn is_boolean(flag: &clap::Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue | ArgAction::SetFalse)
        || flag.get_value_parser().type_id() == clap::builder::ValueParser::bool().type_id()
}

/// Levenshtein's distance, for hints.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = if x == *y { diagonal } else { 1 + diagonal.min(row[j]).min(row[j + 1]) };
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}

/// The process's environment.
#[must_use]
pub fn process_env(name: &str) -> Option<OsString> {
    std::env::var_os(OsStr::new(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    fn command() -> Command {
        Command::new("agent")
            .arg(Arg::new("work_dir").long("work_dir"))
            .arg(Arg::new("master").long("master").alias("coordinator"))
            .arg(Arg::new("strict").long("strict").value_parser(clap::value_parser!(bool)))
    }

    fn gathered(given: &[&str], env: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let given: Vec<OsString> = given.iter().map(OsString::from).collect();
        let env =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        gather(&command(), &[("modules", "write an isolator plugin")], &given, env).map_err(|e| e.to_string())
    }

    #[test]
    fn all_forms_of_a_flag_are_one() {
        for given in
            [["--work_dir=/a"].as_slice(), &["--work-dir=/a"], &["--work_dir", "/a"], &["--work-dir", "/a"]]
        {
            assert_eq!(gathered(given, &[]), Ok(vec!["--work_dir=/a".to_owned()]), "{given:?}");
        }
        assert_eq!(gathered(&["--coordinator=h:1"], &[]), Ok(vec!["--master=h:1".to_owned()]));
        assert_eq!(gathered(&["--strict"], &[]), Ok(vec!["--strict=true".to_owned()]));
        assert_eq!(gathered(&["--no-strict"], &[]), Ok(vec!["--strict=false".to_owned()]));
        assert_eq!(gathered(&["--strict=false"], &[]), Ok(vec!["--strict=false".to_owned()]));
    }

    #[test]
    fn the_command_line_comes_after_the_environment() {
        let args = gathered(&["--work_dir=/b"], &[("TEPUI_WORK_DIR", "/a"), ("TEPUI_OTHER", "x")]);
        assert_eq!(args, Ok(vec!["--work_dir=/a".to_owned(), "--work_dir=/b".to_owned()]));
    }

    #[test]
    fn a_file_of_flags_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        std::fs::write(&file, "work-dir = \"/c\"\nstrict = true\n").unwrap();
        let args = gathered(&["--config", file.to_str().unwrap(), "--work_dir=/b"], &[]).unwrap();
        assert_eq!(args, ["--strict=true", "--work_dir=/c", "--work_dir=/b"]);
        std::fs::write(&file, "nonsense = 1").unwrap();
        assert!(gathered(&["--config", file.to_str().unwrap()], &[]).unwrap_err().contains("nonsense"));
    }

    #[test]
    fn what_is_not_known_says_so() {
        assert!(gathered(&["--modules=x"], &[]).unwrap_err().contains("does not implement"));
        let error = gathered(&["--work_dri=x"], &[]).unwrap_err();
        assert!(error.contains("unknown flag --work_dri") && error.contains("--work_dir"), "{error}");
        assert!(gathered(&["--work_dir"], &[]).unwrap_err().contains("needs a value"));
        assert!(gathered(&["stray"], &[]).unwrap_err().contains("stray"));
    }

    #[test]
    fn a_value_can_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("master");
        std::fs::write(&file, "h:5050\n").unwrap();
        let given = format!("--master=file://{}", file.display());
        assert_eq!(gathered(&[&given], &[]), Ok(vec!["--master=h:5050".to_owned()]));
    }
}
