//! `tepui kill`: a signal for tasks' programs. KILL ends all their processes.
//!
//! Mesos' operators cannot kill a framework's task by a call to the master. What they can do is end its container on the agent (KILL_CONTAINER). The framework hears of
//! it as of any task that was ended by a signal, and may start another in its place.

use clap::Args;
use nix::sys::signal::Signal;
use tepui_api::v1::agent::{Call, call};

use super::Cluster;
use super::find::Leader;

/// Which tasks, and with which signal.
#[derive(Args)]
#[command(
    after_help = "The task's framework is told that it failed by this signal, and may start another one."
)]
pub struct KillArgs {
    #[command(flatten)]
    cluster: Cluster,
    /// The signal, by name or number
    #[arg(long, short, default_value = "KILL", value_parser = parse_signal)]
    signal: i32,
    /// The tasks: their ids or the beginnings of them, or their names
    #[arg(required = true)]
    tasks: Vec<String>,
}

fn parse_signal(text: &str) -> Result<i32, String> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64)
            .contains(&number)
            .then_some(number)
            .ok_or_else(|| "signals go from 1 to 64".to_owned());
    }
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    name.parse::<Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| "no such signal; TERM and KILL are some".to_owned())
}

/// Sends it; the names of the tasks are shown as it was sent, as Docker does.
pub(super) async fn kill(args: KillArgs) -> anyhow::Result<i32> {
    let mut leader = Leader::find(&args.cluster).await?;
    for meant in &args.tasks {
        let found = leader.task(meant, false).await?;
        let call = Call {
            r#type: Some(call::Type::KillContainer as i32),
            kill_container: Some(call::KillContainer {
                container_id: found.container()?,
                signal: Some(args.signal),
            }),
            ..Call::default()
        };
        found.agent.send("/api/v1", &call, None).await?;
        println!("{}", found.task.task_id);
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "sigterm", "15"] {
            assert_eq!(parse_signal(text), Ok(15), "{text}");
        }
        assert!(parse_signal("NONSENSE").is_err() && parse_signal("0").is_err());
    }
}
