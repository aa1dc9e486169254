//! Calling a plugin: a program that reads its configuration from standard input and is told the rest by `CNI_*` variables.
//!
//! A plugin, and every program that it calls in turn, has a variable that names the container's directory here. So whatever of them is left when
//! the agent was killed, or a plugin had to be, can be found and ended before anything is detached.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::config::{self, Config};

/// Names the container's directory to all that a plugin starts.
const MARK: &str = "TEPUI_CNI_CONTAINER";
/// Where plugins find programs such as iptables if the agent itself has no PATH.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// No plugin has more to say.
const LONGEST_OUTPUT: u64 = 1 << 20;
/// How much of what a plugin says is told to people.
const SHOWN: usize = 400;
/// How long what is left of a plugin has to come to its end by itself, and how long it may take to die.
const GRACE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// One call of a plugin.
pub(super) struct Call<'a> {
    /// `ADD`, `CHECK` or `DEL`.
    pub verb: &'static str,
    pub container: &'a str,
    /// The container's directory.
    pub directory: &'a Path,
    /// The network namespace, if it is still there.
    pub namespace: Option<&'a Path>,
    /// Its name in the container.
    pub interface: &'a str,
    pub network: &'a str,
    pub config: &'a Config,
    /// What was done before, for plugins that are to know.
    pub previous: Option<&'a Value>,
    /// `--network_cni_plugins_dir`.
    pub search: &'a [PathBuf],
    pub patience: Duration,
}

/// A plugin did not do what it was called for.
#[derive(Debug, thiserror::Error)]
#[error("the CNI plugin '{plugin}' of the network '{network}' failed at {verb}: {why}")]
pub(super) struct PluginError {
    verb: &'static str,
    plugin: String,
    network: String,
    why: String,
}

impl Call<'_> {
    /// Makes the call; gives what the plugin printed.
    pub async fn make(&self) -> Result<Vec<u8>, PluginError> {
        self.attempt().await.map_err(|why| self.failed(why))
    }

    /// An error of this call.
    pub fn failed(&self, why: String) -> PluginError {
        let plugin = config::kind(self.config).to_owned();
        PluginError { verb: self.verb, plugin, network: self.network.to_owned(), why }
    }

    async fn attempt(&self) -> Result<Vec<u8>, String> {
        let kind = config::kind(self.config);
        let program = find(kind, self.search)?;
        let input = self.input()?;
        let mut child = Command::new(&program)
            .env_clear()
            .envs(self.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // One that does not read what it is told says so by its result.
                let _ = stdin.write_all(&input).await;
            }
        };
        let talk = async { tokio::join!(write, read(stdout), read(stderr), child.wait()) };
        let Ok(((), output, errors, status)) = tokio::time::timeout(self.patience, talk).await else {
            end_leftovers(self.directory, Duration::ZERO).await?;
            return Err(format!("it did not answer within {} s and was ended", self.patience.as_secs_f64()));
        };
        let status = status.map_err(|error| format!("its end is not known: {error}"))?;
        if status.success() { Ok(output) } else { Err(complaint(&output, &errors, &status.to_string())) }
    }

    fn input(&self) -> Result<Vec<u8>, String> {
        let mut config = self.config.clone();
        if let Some(previous) = self.previous {
            config.insert("prevResult".to_owned(), previous.clone());
        }
        serde_json::to_vec(&config).map_err(|error| error.to_string())
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let search = self.search.iter().map(|directory| directory.as_os_str());
        vec![
            ("CNI_COMMAND", self.verb.into()),
            ("CNI_CONTAINERID", self.container.into()),
            ("CNI_NETNS", self.namespace.unwrap_or(Path::new("")).into()),
            ("CNI_IFNAME", self.interface.into()),
            ("CNI_PATH", search.collect::<Vec<_>>().join(":".as_ref())),
            ("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into())),
            (MARK, self.directory.into()),
        ]
    }
}

async fn read(from: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(from) = from {
        let _ = from.take(LONGEST_OUTPUT).read_to_end(&mut text).await;
    }
    text
}

/// The program of a plugin.
pub(super) fn find(kind: &str, search: &[PathBuf]) -> Result<PathBuf, String> {
    let found = search.iter().map(|directory| directory.join(kind)).find(|program| program.is_file());
    found.ok_or_else(|| {
        let places: Vec<String> = search.iter().map(|directory| directory.display().to_string()).collect();
        format!("there is no program '{kind}' in {} (--network_cni_plugins_dir)", places.join(":"))
    })
}

/// What a plugin that failed says: the error of the specification, or else whatever it printed.
fn complaint(output: &[u8], errors: &[u8], status: &str) -> String {
    if let Ok(said) = serde_json::from_slice::<Value>(output)
        && let Some(message) = said.get("msg").and_then(Value::as_str)
    {
        let details = said.get("details").and_then(Value::as_str).filter(|details| !details.is_empty());
        let code = said.get("code").and_then(Value::as_u64).map(|code| format!(" (code {code})"));
        let details = details.map(|details| format!(": {details}"));
        return format!(
            "{}{}{}",
            shown(message.as_bytes()),
            details.unwrap_or_default(),
            code.unwrap_or_default()
        );
    }
    format!("{status}; it printed '{}', and as errors '{}'", shown(output), shown(errors))
}

/// The beginning of what a plugin printed.
pub(super) fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Waits for plugins of a container that are left, and what they have called, and ends those that do not end within `grace`.
pub(super) async fn end_leftovers(directory: &Path, grace: Duration) -> Result<(), String> {
    let mark = [MARK.as_bytes(), b"=", directory.as_os_str().as_bytes()].concat();
    let begin = Instant::now();
    loop {
        let mark = mark.clone();
        let left = tokio::task::spawn_blocking(move || marked(&mark)).await;
        let left = left.map_err(|error| error.to_string())?;
        if left.is_empty() {
            return Ok(());
        }
        if begin.elapsed() >= grace {
            for pid in &left {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
        }
        if begin.elapsed() > grace + PATIENCE {
            return Err(format!("processes of CNI plugins do not end: {left:?}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// As [`end_leftovers`], after a restart of the agent: a plugin in the middle of something may finish it.
pub(super) async fn await_leftovers(directory: &Path) -> Result<(), String> {
    end_leftovers(directory, GRACE).await
}

/// Living processes with the mark in their environment.
fn marked(mark: &[u8]) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // That of a zombie is empty.
    let has_mark = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
    };
    pids.filter(has_mark).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    struct Scene(tempfile::TempDir);

    impl Scene {
        fn new(script: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let program = dir.path().join("plug");
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            Scene(dir)
        }

        async fn add(&self, patience: Duration) -> Result<String, String> {
            let Value::Object(config) = json!({"name": "net", "type": "plug"}) else { unreachable!() };
            let search = [self.0.path().join("absent"), self.0.path().to_owned()];
            let previous = json!({"ips": []});
            let call = Call {
                verb: "ADD",
                container: "c1",
                directory: self.0.path(),
                namespace: Some(Path::new("/ns")),
                interface: "eth0",
                network: "net",
                config: &config,
                previous: Some(&previous),
                search: &search,
                patience,
            };
            call.make().await.map(|out| shown(&out)).map_err(|error| error.to_string())
        }
    }

    #[tokio::test]
    async fn a_plugin_is_told_all_it_needs() {
        let scene =
            Scene::new("echo $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME; echo $CNI_PATH; cat");
        let said = scene.add(PATIENCE).await.unwrap();
        let dir = scene.0.path().display();
        let (variables, input) = said.split_at(said.find('{').unwrap());
        assert_eq!(variables, format!("ADD c1 /ns eth0\n{dir}/absent:{dir}\n"));
        let input: Value = serde_json::from_str(input).unwrap();
        assert_eq!(input, json!({"name": "net", "type": "plug", "prevResult": {"ips": []}}));
    }

    #[tokio::test]
    async fn errors_name_plugin_and_network() {
        let said = |script: &'static str| async move { Scene::new(script).add(PATIENCE).await.unwrap_err() };
        let error = said(r#"echo '{"code": 7, "msg": "no room", "details": "pool is empty"}'; exit 1"#).await;
        assert_eq!(
            error,
            "the CNI plugin 'plug' of the network 'net' failed at ADD: no room: pool is empty (code 7)"
        );
        let error = said("echo oh; echo dear >&2; exit 3").await;
        assert!(error.contains("exit status: 3; it printed 'oh', and as errors 'dear'"), "{error}");
    }

    #[tokio::test]
    async fn a_plugin_that_hangs_is_ended_with_all_that_it_has_called() {
        let scene = Scene::new("setsid sleep 1000 & sleep 1000");
        let error = scene.add(Duration::from_millis(300)).await.unwrap_err();
        assert!(error.contains("'plug' of the network 'net'") && error.contains("within 0.3 s"), "{error}");
        let mark = format!("{MARK}={}", scene.0.path().display());
        assert_eq!(marked(mark.as_bytes()), Vec::<i32>::new());
    }
}
