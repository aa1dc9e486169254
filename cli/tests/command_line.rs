//! The binary itself: what it says of its own use. `tests/run` also takes the binary for the end-to-end tests from here,
//! since cargo builds it beside a program that tests it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Command, Output};

fn tepui(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tepui")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn help_names_every_part() {
    let output = tepui(&["--help"]);
    assert!(output.status.success());
    for part in ["coordinator", "agent", "run"] {
        assert!(text(&output.stdout).contains(part), "{}", text(&output.stdout));
    }
}

#[test]
fn each_server_lists_its_flags() {
    for (server, flag) in [("coordinator", "--registry"), ("agent", "--isolation")] {
        let output = tepui(&[server, "--help"]);
        assert!(output.status.success());
        assert!(text(&output.stdout).contains(flag), "{}", text(&output.stdout));
    }
}

#[test]
fn an_unknown_flag_is_named() {
    for server in ["coordinator", "agent"] {
        let output = tepui(&[server, "--no_such_flag=1"]);
        assert!(!output.status.success());
        assert!(
            text(&output.stderr).contains("no-such-flag") || text(&output.stderr).contains("no_such_flag")
        );
    }
}

#[test]
fn a_flag_of_mesos_that_is_not_built_says_so() {
    let output = tepui(&["agent", "--modules=/etc/modules.json"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("modules"), "{}", text(&output.stderr));
}
