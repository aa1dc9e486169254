//! Commands that run in a container beside its own, by the engine's exec.
//!
//! The engine can start such a command and tell its exit code, but not end it. So each has a variable of its own in its environment, by
//! which its processes are found on this machine and killed, whatever sessions they have made. The engine shows no
//! signal that ended a command but as exit code 128 + its number, and that is what is told.

use std::sync::Arc;

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tepui_api::v1::{CommandInfo, ContainerId};
use tepui_shim::WindowSize;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::DockerContainerizer;
use super::engine::{Engine, EngineError};
use crate::containerizer::config::own_variables;
use crate::shell::backend::Inside;
use crate::shell::guest::{Guest, Input, Piece, Resize};

/// How many pieces of output wait for who reads them.
const WAITING: usize = 16;
/// The variable that marks a command's processes.
const MARK: &str = "TEPUI_EXEC_ID";
/// So often processes are looked for that others may have made meanwhile.
const ROUNDS: u32 = 100;

impl DockerContainerizer {
    /// Runs a command in a container to its end. Its output is not kept: the container's own files hold what the engine has of the container's program.
    ///
    /// # Errors
    /// When the container does not run, the engine does not answer, or the time is up: the command was killed then.
    pub async fn run_inside(&self, id: &ContainerId, inside: Inside) -> Result<i32, String> {
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let engine = &self.inner.engine;
        let mark = Marked::new(&self.inner.owner());
        let name = container.name();
        let running = run(engine, &name, options(&inside.command, &mark)?);
        let ended = match inside.timeout {
            None => running.await,
            Some(timeout) => match tokio::time::timeout(timeout, running).await {
                Ok(ended) => ended,
                // Dropped, the mark ends them.
                Err(_) => {
                    return Err(format!("the command did not end within {timeout:?} and was killed"));
                }
            },
        };
        ended.map_err(|error| error.to_string())
    }
}

async fn run(engine: &Engine, name: &str, options: CreateExecOptions<String>) -> Result<i32, EngineError> {
    const WHAT: &str = "run a command in the container";
    let api = engine.api().await?;
    let exec = engine.ask(WHAT, api.create_exec(name, options)).await?;
    let started = engine.ask(WHAT, api.start_exec(&exec.id, None::<StartExecOptions>)).await?;
    if let StartExecResults::Attached { mut output, .. } = started {
        while let Some(piece) = output.next().await {
            piece.map_err(|error| engine.error(WHAT, &error))?;
        }
    }
    status(engine, &exec.id).await
}

impl DockerContainerizer {
    /// Begins to run a command in a container, on pipes or a terminal.
    pub(super) async fn guest(
        &self,
        id: &ContainerId,
        command: &CommandInfo,
        terminal: Option<WindowSize>,
    ) -> Result<Guest, String> {
        const WHAT: &str = "run a command in the container";
        let container = self.inner.get(id).ok_or_else(|| format!("there is no container {id}"))?;
        let mark = Arc::new(Marked::new(&self.inner.owner()));
        let asked = CreateExecOptions {
            attach_stdin: Some(true),
            tty: Some(terminal.is_some()),
            ..options(command, &mark)?
        };
        let engine = Arc::clone(&self.inner.engine);
        let begin = async {
            let api = engine.api().await?;
            let exec = engine.ask(WHAT, api.create_exec(&container.name(), asked)).await?;
            let start = StartExecOptions { tty: terminal.is_some(), ..StartExecOptions::default() };
            let started = engine.ask(WHAT, api.start_exec(&exec.id, Some(start))).await?;
            Ok::<_, EngineError>((api.clone(), exec.id, started))
        };
        let (api, exec, started) = begin.await.map_err(|error| error.to_string())?;
        let StartExecResults::Attached { output, input } = started else {
            return Err("the engine did not attach to the command".to_owned());
        };
        let resize: Option<Resize> = terminal.map(|size| {
            let exec = exec.clone();
            let resize: Resize = Box::new(move |WindowSize { rows, columns }| {
                let (api, exec) = (api.clone(), exec.clone());
                Box::pin(async move {
                    let size = ResizeExecOptions { height: rows, width: columns };
                    api.resize_exec(&exec, size).await.map_err(|error| error.to_string())
                })
            });
            // The engine takes no size at the start.
            tokio::spawn(resize(size));
            resize
        });
        let (pieces, output_pieces) = mpsc::channel(WAITING);
        let (signals, asked) = mpsc::unbounded_channel();
        let (tell, end) = oneshot::channel();
        tokio::spawn(async move {
            let ended = tokio::select! {
                () = copy(output, pieces) => status(&engine, &exec).await.map_err(|error| error.to_string()),
                () = signalled(asked, &mark) => return,
            };
            // What it has left ends with it.
            drop(mark);
            let _ = tell.send(ended);
        });
        let input = Input { writer: Box::new(input), resize };
        Ok(Guest { input, output: output_pieces, signals, end })
    }
}

async fn copy(
    mut from: impl futures_util::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
    to: mpsc::Sender<Piece>,
) {
    while let Some(Ok(piece)) = from.next().await {
        let piece = match piece {
            LogOutput::StdErr { message } => Piece::Error(message),
            other => Piece::Out(other.into_bytes()),
        };
        if to.send(piece).await.is_err() {
            return;
        }
    }
}

/// Passes signals on until nobody is left who could send any.
async fn signalled(mut asked: mpsc::UnboundedReceiver<i32>, mark: &Arc<Marked>) {
    while let Some(number) = asked.recv().await {
        let mark = Arc::clone(mark);
        // Looks through all processes of the machine.
        let sent = tokio::task::spawn_blocking(move || {
            Signal::try_from(number).map_or(0, |signal| mark.signal(signal))
        });
        let _ = sent.await;
    }
}

/// How a command has ended whose output has.
pub(super) async fn status(engine: &Engine, exec: &str) -> Result<i32, EngineError> {
    const WHAT: &str = "tell how a command in the container ended";
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);
    loop {
        let inspected = engine.ask(WHAT, engine.api().await?.inspect_exec(exec)).await?;
        if inspected.running != Some(true) {
            let code = inspected.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(1);
            return Ok((code & 0xff) << 8);
        }
        // It may have closed its output and go on.
        tokio::time::sleep(PAUSE).await;
    }
}

/// What the engine is asked for.
pub(super) fn options(command: &CommandInfo, mark: &Marked) -> Result<CreateExecOptions<String>, String> {
    let value = command.value.clone().unwrap_or_default();
    if value.is_empty() {
        return Err("there is no command: its value is empty".to_owned());
    }
    let argv = if command.shell() {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), value]
    } else {
        // The engine has no zeroth argument apart from the executable.
        std::iter::once(value).chain(command.arguments.iter().skip(1).cloned()).collect()
    };
    let variables = own_variables(command).map(|(name, value)| format!("{name}={value}"));
    Ok(CreateExecOptions {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: Some(variables.chain([mark.variable()]).collect()),
        cmd: Some(argv),
        user: command.user.clone(),
        ..CreateExecOptions::default()
    })
}

/// The processes of one command. Killed when this is dropped, should any be left.
pub(super) struct Marked(String);

impl Marked {
    /// `owner` is the agent's: by it the next agent knows those of this one, should it be killed.
    pub(super) fn new(owner: &str) -> Self {
        Self(format!("{}{}", of_owner(owner), Uuid::new_v4()))
    }

    fn variable(&self) -> String {
        self.0.clone()
    }

    /// Sends a signal to all of them; tells how many there were.
    pub(super) fn signal(&self, signal: Signal) -> usize {
        let wanted = self.0.as_bytes();
        signal_all(signal, |variable| variable == wanted)
    }
}

/// How the marks of an agent's commands begin.
fn of_owner(owner: &str) -> String {
    format!("{MARK}={owner}:")
}

/// Kills what an earlier process of the agent with this owner has left. Those commands end with the agent.
pub(super) fn end_those_of(owner: &str) {
    let prefix = of_owner(owner).into_bytes();
    for _ in 0..ROUNDS {
        if signal_all(Signal::SIGKILL, |variable| variable.starts_with(&prefix)) == 0 {
            break;
        }
    }
}

/// Sends a signal to all processes with a variable that is meant; tells how many there were.
fn signal_all(signal: Signal, meant: impl Fn(&[u8]) -> bool) -> usize {
    let mut sent = 0;
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(&meant) {
            sent += usize::from(kill(Pid::from_raw(pid), signal).is_ok());
        }
    }
    sent
}

impl Drop for Marked {
    fn drop(&mut self) {
        // A process may have made another while the others were looked through.
        for _ in 0..ROUNDS {
            if self.signal(Signal::SIGKILL) == 0 {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_by_their_mark() {
        let owner = format!("/test/{}", Uuid::new_v4());
        let mark = Marked::new(&owner);
        let start = || {
            let value = mark.0.strip_prefix("TEPUI_EXEC_ID=").unwrap();
            std::process::Command::new("sleep").arg("600").env(MARK, value).spawn().unwrap()
        };
        let mut child = start();
        // Its environment is this process' own until it runs its program.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while mark.signal(Signal::SIGCONT) == 0 {
            assert!(std::time::Instant::now() < deadline, "it is not found");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        end_those_of("/test/another");
        assert!(child.try_wait().unwrap().is_none());
        end_those_of(&owner);
        assert!(!child.wait().unwrap().success(), "by the next agent");
        let mut child = start();
        while mark.signal(Signal::SIGCONT) == 0 {
            assert!(std::time::Instant::now() < deadline, "it is not found");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        drop(mark);
        assert!(!child.wait().unwrap().success(), "and when nobody waits for it");
    }

    #[test]
    fn a_command_is_asked_for_as_it_is_meant() {
        let mark = Marked::new("/w");
        let line = CommandInfo { value: Some("echo a".to_owned()), ..CommandInfo::default() };
        assert_eq!(options(&line, &mark).unwrap().cmd.unwrap(), ["/bin/sh", "-c", "echo a"]);
        let plain = CommandInfo {
            shell: Some(false),
            value: Some("/bin/echo".to_owned()),
            arguments: vec!["echo".to_owned(), "a".to_owned()],
            ..CommandInfo::default()
        };
        assert_eq!(options(&plain, &mark).unwrap().cmd.unwrap(), ["/bin/echo", "a"]);
        assert!(options(&CommandInfo::default(), &mark).is_err());
    }
}
