//! `tepui attach`: what a task writes from now on, and its terminal if it has one.

use clap::Args;
use tepui_api::client::EventStream;
use tepui_api::v1::agent::{Call, ProcessIo, call};

use super::Cluster;
use super::find::Leader;
use super::stream::{self, Over, Typed};
use super::terminal::Raw;

/// Which task, and how.
#[derive(Args)]
#[command(
    after_help = "A task that was launched with a terminal (ContainerInfo.tty_info) gets what is typed; Ctrl-P Ctrl-Q leaves it. \
Of other tasks the output is shown; Ctrl-C leaves them."
)]
pub struct AttachArgs {
    #[command(flatten)]
    cluster: Cluster,
    /// Only show what it writes
    #[arg(long)]
    no_stdin: bool,
    /// The task: its id or the beginning of it, or its name
    task: String,
}

/// Until the task ends or the user leaves.
pub(super) async fn attach(args: AttachArgs) -> anyhow::Result<i32> {
    let found = Leader::find(&args.cluster).await?.task(&args.task, false).await?;
    let id = found.container()?;
    let attach = Call {
        r#type: Some(call::Type::AttachContainerOutput as i32),
        attach_container_output: Some(call::AttachContainerOutput { container_id: id.clone() }),
        ..Call::default()
    };
    let output: EventStream<ProcessIo> = found.agent.subscribe("/api/v1", &attach).await?;
    let has_terminal = found.task.container.as_ref().is_some_and(|container| container.tty_info.is_some());
    if !has_terminal || args.no_stdin {
        stream::show(output).await?;
        return Ok(0);
    }
    let raw = Raw::take();
    let over = tokio::select! {
        over = stream::show(output) => over,
        over = stream::send(&found.agent, &id, Typed::Terminal, true) => over,
    };
    drop(raw);
    if over? == Over::Left {
        eprintln!();
    }
    Ok(0)
}
