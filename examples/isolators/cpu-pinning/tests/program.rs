//! The program is an agent, with all its flags.
#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::process::Command;

#[test]
fn it_has_the_flags_of_an_agent() {
    let help = Command::new(env!("CARGO_BIN_EXE_tepui-agent-pinning")).arg("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    for flag in ["--work_dir", "--isolation", "--isolator_plugin", "--logging_level"] {
        assert!(text.contains(flag), "{flag} is not in {text}");
    }
    assert!(text.contains("tepui-agent-pinning"), "it says its own name");
}

#[test]
fn a_flag_that_is_none_is_refused() {
    let refused =
        Command::new(env!("CARGO_BIN_EXE_tepui-agent-pinning")).arg("--work_dri=/x").output().unwrap();
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && text.contains("did you mean --work_dir?"), "{text}");
}
