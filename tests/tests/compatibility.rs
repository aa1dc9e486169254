//! `docs/compatibility.md` names everything the API has, and no test that does not exist.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;

use tepui_tests::repository;

/// A section's title, the enum whose values it must have, and the file where that is.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("Scheduler calls", "scheduler/scheduler.proto", "Call.Type"),
    ("Scheduler events", "scheduler/scheduler.proto", "Event.Type"),
    ("Offer operations", "mesos.proto", "Offer.Operation.Type"),
    ("Operator calls to the coordinator", "master/master.proto", "Call.Type"),
    ("Operator events of the coordinator", "master/master.proto", "Event.Type"),
    ("Operator calls to the agent", "agent/agent.proto", "Call.Type"),
    ("Executor calls", "executor/executor.proto", "Call.Type"),
    ("Executor events", "executor/executor.proto", "Event.Type"),
    ("Task states", "mesos.proto", "TaskState"),
    ("Framework capabilities", "mesos.proto", "FrameworkInfo.Capability.Type"),
];

/// Rows of each section: the cells, the first one without its backticks.
fn page() -> BTreeMap<String, Vec<Vec<String>>> {
    let text = read_to_string(repository().join("docs/compatibility.md")).unwrap();
    let mut sections: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut section);
        } else if line.starts_with("| `") {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            sections.entry(section.clone()).or_default().push(cells);
        }
    }
    sections
}

fn name(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// Names within each block of a `.proto` file: an enum's values, or a message's fields.
fn blocks(file: &str) -> BTreeMap<String, BTreeSet<String>> {
    let text = read_to_string(repository().join("api/proto/mesos/v1").join(file)).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut path: Vec<String> = Vec::new();
    for line in text.lines().map(|line| line.split("//").next().unwrap_or_default().trim()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["message" | "enum", name, "{", rest @ ..] => {
                path.push((*name).to_owned());
                found.entry(path.join(".")).or_default();
                if rest.contains(&"}") {
                    path.pop();
                }
            }
            ["message" | "enum", name] => path.push(name.trim_end_matches("{}").to_owned()),
            ["}", ..] => {
                path.pop();
            }
            _ => {
                // `optional string name = 1;` or `VALUE = 1;`
                if let Some(at) =
                    words.iter().position(|word| *word == "=").filter(|at| *at > 0 && !path.is_empty())
                {
                    found.entry(path.join(".")).or_default().insert(words[at - 1].to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn every_value_of_the_api_is_on_the_page() {
    let page = page();
    for (section, file, of) in SECTIONS {
        let known: BTreeSet<String> =
            blocks(file)[*of].iter().filter(|value| *value != "UNKNOWN").cloned().collect();
        assert!(known.len() > 2, "{of} of {file} was not read");
        let listed: BTreeSet<String> = page[*section].iter().map(|row| name(&row[0]).to_owned()).collect();
        assert_eq!(listed, known, "{section}: what is listed, and what the API has");
    }
}

#[test]
fn every_field_of_a_listed_message_is_in_exactly_one_column() {
    let page = page();
    let files = ["mesos.proto", "scheduler/scheduler.proto", "master/master.proto", "agent/agent.proto"];
    let messages: BTreeMap<&str, _> = files.iter().map(|file| (*file, blocks(file))).collect();
    let rows = &page["Fields of messages that clients send"];
    assert!(rows.len() > 30, "messages are missing");
    for row in rows {
        let message = name(&row[0]);
        let (file, short) = match message.split_once('.') {
            Some(("scheduler", short)) => ("scheduler/scheduler.proto", short),
            Some(("master", short)) => ("master/master.proto", short),
            Some(("agent", short)) => ("agent/agent.proto", short),
            _ => ("mesos.proto", message),
        };
        let listed: Vec<&str> = row[1..].iter().flat_map(|cell| cell.split_whitespace()).map(name).collect();
        let once: BTreeSet<String> = listed.iter().map(|field| (*field).to_owned()).collect();
        assert_eq!(listed.len(), once.len(), "{message} has a field twice");
        assert_eq!(once, messages[file][short], "{message}: what is listed, and what the message has");
    }
}

#[test]
fn states_are_of_three_kinds_and_tests_exist() {
    let folder = repository().join("tests/e2e");
    for (section, rows) in page() {
        for row in rows.iter().filter(|_| !section.starts_with("Fields")) {
            let state = row[1].split(':').next().unwrap_or_default();
            assert!(["works", "partly", "no"].contains(&state), "{section}, {}: {state}", row[0]);
            assert!(
                state != "partly" || row[1].len() > 10,
                "{section}, {}: says not what is lacking",
                row[0]
            );
            let tests = row.get(2).map(String::as_str).unwrap_or_default();
            for test in tests.split(", ").map(name).filter(|test| !test.is_empty()) {
                assert_ne!(state, "no", "{section}, {}: has a test, but does not work", row[0]);
                let (file, test) = test.split_once("::").unwrap();
                let text = read_to_string(folder.join(file)).unwrap_or_default();
                assert!(
                    text.contains(&format!("def {test}(")),
                    "{section}, {}: there is no {file}::{test}",
                    row[0]
                );
            }
        }
    }
}
