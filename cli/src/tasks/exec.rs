//! `tepui exec`: a command in the container of a task.

use clap::Args;
use tepui_api::client::{Client, EventStream};
use tepui_api::v1::agent::{Call, ProcessIo, Response, call};
use tepui_api::v1::{CommandInfo, ContainerId, ContainerInfo, Environment, container_info, environment};
use tokio::signal::unix::{SignalKind, signal};

use super::Cluster;
use super::find::Leader;
use super::stream::{self, Typed};
use super::terminal::{self, Raw};

/// Which command, where and how.
#[derive(Args)]
#[command(after_help = "The exit code is the command's own; 128 and more for a signal that ended it.

Examples:
  tepui exec web-1 -- ps aux
  tepui exec -it web-1 -- sh
  tar c . | tepui exec -i web-1 -- tar x -C /srv")]
pub struct ExecArgs {
    #[command(flatten)]
    cluster: Cluster,
    /// Send what this command reads to the other's standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Environment variable; NAME alone takes this shell's value. May be repeated
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// User to run as; the task's own without it
    #[arg(long, short)]
    user: Option<String>,
    /// The task: its id or the beginning of it, or its name
    task: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Runs it; its exit code.
pub(super) async fn exec(args: ExecArgs) -> anyhow::Result<i32> {
    let found = Leader::find(&args.cluster).await?.task(&args.task, false).await?;
    let id = ContainerId {
        value: format!("exec-{}", uuid::Uuid::new_v4()),
        parent: Some(Box::new(found.container()?)),
    };
    let launch = call::LaunchNestedContainerSession {
        container_id: id.clone(),
        command: Some(command(&args)),
        container: args.tty.then(|| ContainerInfo {
            r#type: container_info::Type::Mesos as i32,
            tty_info: Some(terminal::size().unwrap_or_default()),
            ..ContainerInfo::default()
        }),
    };
    let launch = Call {
        r#type: Some(call::Type::LaunchNestedContainerSession as i32),
        launch_nested_container_session: Some(launch),
        ..Call::default()
    };
    let output: EventStream<ProcessIo> = found.agent.subscribe("/api/v1", &launch).await?;
    let raw = if args.tty && args.interactive { Raw::take() } else { None };
    let typed = match (args.interactive, args.tty) {
        (true, true) => Typed::Terminal,
        (true, false) => Typed::Stdin,
        (false, _) => Typed::Nothing,
    };
    let sending = async {
        // The output tells how it ends; input that is not taken is no reason to look away.
        let _ = stream::send(&found.agent, &id, typed, false).await;
        std::future::pending::<std::convert::Infallible>().await
    };
    let shown = tokio::select! {
        shown = stream::show(output) => shown,
        never = sending => match never {},
        () = pass_interrupts(&found.agent, &id) => return Ok(130),
    };
    drop(raw);
    shown?;
    status(&found.agent, &id).await
}

fn command(args: &ExecArgs) -> CommandInfo {
    let variable = |entry: &String| match entry.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => std::env::var(entry).ok().map(|value| (entry.clone(), value)),
    };
    let variables = args.env.iter().filter_map(variable).map(|(name, value)| environment::Variable {
        name,
        value: Some(value),
        ..environment::Variable::default()
    });
    let variables: Vec<_> = variables.collect();
    CommandInfo {
        shell: Some(false),
        value: args.command.first().cloned(),
        arguments: args.command.clone(),
        user: args.user.clone(),
        environment: (!variables.is_empty()).then_some(Environment { variables }),
        ..CommandInfo::default()
    }
}

/// Ctrl-C, where no terminal passes it on: the first time the command is interrupted, the second time it is left, which ends it.
async fn pass_interrupts(agent: &Client, id: &ContainerId) {
    let Ok(mut interrupts) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    interrupts.recv().await;
    let call = Call {
        r#type: Some(call::Type::KillNestedContainer as i32),
        kill_nested_container: Some(call::KillNestedContainer {
            container_id: id.clone(),
            signal: Some(libc::SIGINT),
        }),
        ..Call::default()
    };
    if let Err(error) = agent.send("/api/v1", &call, None).await {
        eprintln!("tepui: the command could not be interrupted: {error}");
    }
    interrupts.recv().await;
}

async fn status(agent: &Client, id: &ContainerId) -> anyhow::Result<i32> {
    let call = Call {
        r#type: Some(call::Type::WaitNestedContainer as i32),
        wait_nested_container: Some(call::WaitNestedContainer { container_id: id.clone() }),
        ..Call::default()
    };
    let answer: Response = agent.call("/api/v1", &call).await?;
    match answer.wait_nested_container.and_then(|wait| wait.exit_status) {
        Some(status) => Ok(exit_code(status)),
        None => anyhow::bail!("the task ended before the command"),
    }
}

/// From what wait(2) tells to what a shell would.
fn exit_code(status: i32) -> i32 {
    let signal = status & 0x7f;
    if signal == 0 { status >> 8 & 0xff } else { 128 + signal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_told_as_shells_do() {
        assert_eq!((exit_code(7 << 8), exit_code(0), exit_code(9), exit_code(0x8b)), (7, 0, 137, 139));
    }
}
