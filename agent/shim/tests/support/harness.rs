//! A test harness for tests that need a zygote: `main` must fork it before there is a second thread, which the usual
//! harness does not allow.
//!
//! Understands what `cargo test` and `cargo nextest` pass: `--list --format terse`, `--ignored`, `--exact`, and names or parts of names.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A test's name and what it does.
pub type Test<C> = (&'static str, fn(&C));

/// Names a list of functions as tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name)),*] };
}

/// Runs those of `tests` that the command line chooses, one after the other, each with a context of its own, and
/// after each `check`, which panics if something was left behind.
pub fn run<C>(tests: &[Test<C>], mut context: impl FnMut() -> C, check: impl Fn(&C)) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    // None is marked to be passed over.
    let chosen = tests.iter().filter(|(name, _)| !has("--ignored") && wanted(name, &arguments));
    if has("--list") {
        chosen.for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    let mut passed = 0;
    for (name, test) in chosen {
        let done = catch_unwind(AssertUnwindSafe(|| {
            let context = context();
            test(&context);
            check(&context);
        }));
        println!("test {name} ... {}", if done.is_ok() { "ok" } else { "FAILED" });
        match done {
            Ok(()) => passed += 1,
            Err(_) => failed.push(*name),
        }
    }
    println!("\ntest result: {passed} passed; {} failed {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

fn wanted(name: &str, arguments: &[String]) -> bool {
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let mut names = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--format" | "--color" | "--test-threads" | "--skip" => {
                rest.next();
            }
            flag if flag.starts_with('-') => {}
            part => names.push(part),
        }
    }
    names.is_empty() || names.iter().any(|part| if exact { name == *part } else { name.contains(part) })
}
