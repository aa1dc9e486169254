//! Tests of the project as a whole.
//!
//! `tests/run` is the one command that installs what they need and runs them all. What needs no running
//! cluster is a Rust test of this crate, in `tests/tests/`: what may be linked, how crates may depend on each other, and
//! whether the documents say what the code does. What needs one is in `tests/e2e/`, in Python, because the clients that
//! Mesos' users have are there: `functional` (calls and commands), `conformance` (the shapes that a real Mesos answered),
//! `isolation` (limits that bite, and nothing left behind) and `recovery` (`kill -9` of everything).

use std::path::PathBuf;
use std::process::Command;

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// What cargo says of the workspace's packages and how they resolve, features and targets as on this machine.
///
/// # Panics
/// When cargo cannot be run; a test has no use for less.
#[must_use]
#[expect(clippy::expect_used, reason = "only tests call this, and without cargo there is nothing to test")]
pub fn cargo_metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu", "--offline"])
        .current_dir(repository())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}
