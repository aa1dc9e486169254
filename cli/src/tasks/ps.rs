//! `tepui ps`: the tasks of a cluster.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use tepui_api::v1::{Task, TaskState};

use super::Cluster;
use super::find::Leader;

/// Which tasks, and how.
#[derive(Args)]
pub struct PsArgs {
    #[command(flatten)]
    cluster: Cluster,
    /// Those that are over, too
    #[arg(short, long)]
    all: bool,
    /// How
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
    /// Only the ids
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

const HEAD: [&str; 8] = ["TASK ID", "NAME", "STATE", "FRAMEWORK", "AGENT", "CPUS", "MEM", "AGE"];
/// Which column is coloured.
const STATE: usize = 2;

/// Lists them.
pub(super) async fn ps(args: PsArgs) -> anyhow::Result<i32> {
    let mut leader = Leader::find(&args.cluster).await?;
    let (mut tasks, completed) = leader.tasks().await?;
    if args.all {
        tasks.extend(completed);
    }
    let mut out = std::io::stdout().lock();
    if args.quiet {
        for task in &tasks {
            writeln!(out, "{}", task.task_id)?;
        }
        return Ok(0);
    }
    if matches!(args.output, Output::Json) {
        serde_json::to_writer_pretty(&mut out, &tasks)?;
        writeln!(out)?;
        return Ok(0);
    }
    let frameworks: HashMap<_, _> = {
        let infos = leader.frameworks().await?.into_iter();
        infos.filter_map(|info| Some((info.id?, info.name))).collect()
    };
    let agents: HashMap<_, _> =
        leader.agents().await?.into_iter().filter_map(|(info, _)| Some((info.id?, info.hostname))).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let row = |task: &Task| {
        let known = |name: Option<&String>, id: &str| name.cloned().unwrap_or_else(|| id.to_owned());
        [
            task.task_id.value.clone(),
            task.name.clone(),
            short(task.state()),
            known(frameworks.get(&task.framework_id), &task.framework_id.value),
            known(agents.get(&task.agent_id), &task.agent_id.value),
            amount(task, "cpus").to_string(),
            amount(task, "mem").to_string(),
            age(task, now),
        ]
    };
    let rows: Vec<[String; 8]> = tasks.iter().map(row).collect();
    let colours = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let states: Vec<TaskState> = tasks.iter().map(Task::state).collect();
    out.write_all(table(&rows, colours.then_some(&states[..])).as_bytes())?;
    Ok(0)
}

fn short(state: TaskState) -> String {
    state.as_str_name().trim_start_matches("TASK_").to_owned()
}

fn amount(task: &Task, name: &str) -> f64 {
    let of = task.resources.iter().filter(|resource| resource.name == name);
    of.filter_map(|resource| resource.scalar.as_ref()).map(|scalar| scalar.value).sum()
}

/// Since it was first heard of.
fn age(task: &Task, now: f64) -> String {
    let Some(first) = task.statuses.iter().filter_map(|status| status.timestamp).reduce(f64::min) else {
        return "-".to_owned();
    };
    let seconds = (now - first).max(0.0);
    for (length, unit) in [(86_400.0, "d"), (3600.0, "h"), (60.0, "m")] {
        if seconds >= length {
            return format!("{:.0}{unit}", (seconds / length).floor());
        }
    }
    format!("{:.0}s", seconds.floor())
}

/// With colours if the states are given.
fn table(rows: &[[String; 8]], states: Option<&[TaskState]>) -> String {
    let mut widths = HEAD.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let mut line = |cells: [&str; 8], colour: Option<&str>| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count() + 2);
            match colour.filter(|_| column == STATE) {
                Some(colour) => line.push_str(&format!("\x1b[{colour}m{cell}\x1b[0m{padding}")),
                None => line.push_str(&format!("{cell}{padding}")),
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(HEAD, None);
    for (index, row) in rows.iter().enumerate() {
        let state = states.and_then(|states| states.get(index));
        line(row.each_ref().map(String::as_str), state.map(|state| colour(*state)));
    }
    text
}

fn colour(state: TaskState) -> &'static str {
    match state {
        TaskState::TaskRunning => "32",
        TaskState::TaskFailed | TaskState::TaskError | TaskState::TaskLost => "31",
        TaskState::TaskFinished => "2",
        _ => "33",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_in_line_and_colours_do_not_shift_them() {
        let row = ["a-long-task-id", "n", "RUNNING", "f", "h", "1", "32", "5s"].map(str::to_owned);
        let plain = table(std::slice::from_ref(&row), None);
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(lines[0].find("STATE"), lines[1].find("RUNNING"));
        assert!(!plain.contains('\x1b'));
        let coloured = table(&[row], Some(&[TaskState::TaskRunning]));
        assert_eq!(coloured.replace("\x1b[32m", "").replace("\x1b[0m", ""), plain);
    }

    #[test]
    fn ages_are_short() {
        let mut task = Task::default();
        assert_eq!(age(&task, 5.0), "-");
        task.statuses.push(tepui_api::v1::TaskStatus { timestamp: Some(100.0), ..Default::default() });
        assert_eq!((age(&task, 159.0).as_str(), age(&task, 7400.0).as_str()), ("59s", "2h"));
    }
}
