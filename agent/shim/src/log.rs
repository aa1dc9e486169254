//! What `libcontainer` logs as errors, written to the shim's log.
//!
//! Its error values lose their causes on the way from the container's first process to the shim; its log lines have them.
//! The zygote was forked before the agent set up its own logging, so there is nothing to inherit. The log's descriptor is
//! its own, since the first process' standard error soon is the sandbox's; it closes when the program is executed.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The longest part of the log that goes into a message, in bytes.
const MOST: u64 = 1000;

/// Writes errors to a file, one a line.
struct ErrorLog(File);

/// Has errors written to `file` from here on.
pub(crate) fn begin(file: File) {
    // Refused if there is a log already, which is as well.
    let _ = tracing::subscriber::set_global_default(ErrorLog(file));
}

/// The first line logged, which is about the innermost cause.
pub(crate) fn first_words(file: &str) -> Option<String> {
    let mut line = Vec::new();
    BufReader::new(File::open(file).ok()?).take(MOST).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8_lossy(&line).trim().to_owned();
    (!line.is_empty()).then_some(line)
}

impl Subscriber for ErrorLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let _ = (&self.0).write_all(format!("{}{}\n", line.message, line.fields).as_bytes());
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
