//! A whole coordinator as its clients see it, over real connections: schedulers, operators, agents. One program, since
//! linking the coordinator once takes longer than running all of these.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod link;
mod operator;
mod restart;
mod scheduler;
mod slow_reader;
mod support;
mod v0;
