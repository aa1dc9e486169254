//! What a container writes, copied from the engine into its sandbox.
//!
//! The engine keeps the output, each piece with the time it came; this follows it and appends to `stdout` and `stderr`. How far the copy is stands in
//! a file beside it: the lengths of both, and the time of the last piece. It is written after the pieces. An agent that starts anew cuts the
//! files to those lengths and goes on after that time, so that nothing is missing and nothing is there twice.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use chrono::DateTime;
use futures_util::StreamExt as _;

use super::engine::{Engine, EngineError};

/// Pieces that are written at once.
const BATCH: usize = 256;
/// Between attempts, when the engine is not there.
const PAUSE: Duration = Duration::from_secs(1);
/// A time as the engine writes it: `2026-11-26T12:00:00.000000000Z`.
const TIME: usize = 30;

/// Follows the output until the container has ended and all is copied.
pub(super) async fn follow(engine: Arc<Engine>, name: String, sandbox: PathBuf, mark: PathBuf) {
    let opened = tokio::task::spawn_blocking(move || Copy::resume(&sandbox, &mark)).await;
    let mut copy = match opened.map_err(io::Error::other).flatten() {
        Ok(copy) => copy,
        Err(error) => {
            tracing::error!(container = name, %error, "the container's output cannot be copied into its sandbox");
            return;
        }
    };
    loop {
        match attempt(&engine, &name, copy).await {
            (_, Ok(())) => return,
            (_, Err(Trouble::NoLogs(error))) => {
                tracing::warn!(container = name, %error, "the engine does not give the container's output: its log driver keeps none");
                return;
            }
            (_, Err(Trouble::Disk(error))) => {
                tracing::error!(container = name, %error, "the container's output cannot be copied into its sandbox");
                return;
            }
            (so_far, Err(Trouble::Engine(error))) => {
                tracing::debug!(container = name, %error, "the container's output is followed again");
                copy = so_far;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

enum Trouble {
    /// There is nothing to follow, nor will there be.
    NoLogs(EngineError),
    Disk(io::Error),
    Engine(EngineError),
}

async fn attempt(engine: &Engine, name: &str, mut copy: Copy) -> (Copy, Result<(), Trouble>) {
    const WHAT: &str = "give the container's output";
    let api = match engine.api().await {
        Ok(api) => api,
        Err(error) => return (copy, Err(Trouble::Engine(error))),
    };
    let mut options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).timestamps(true);
    if let Some(since) = copy.since() {
        options = options.since(since);
    }
    let mut pieces = std::pin::pin!(api.logs(name, Some(options.build())).ready_chunks(BATCH));
    while let Some(batch) = pieces.next().await {
        let mut failed = None;
        let mut good = Vec::with_capacity(batch.len());
        for piece in batch {
            match piece {
                Ok(piece) => good.push(piece),
                Err(error) => failed = Some(engine.error(WHAT, &error)),
            }
        }
        let written = tokio::task::spawn_blocking(move || {
            let outcome = copy.write(&good);
            (copy, outcome)
        });
        let outcome;
        (copy, outcome) = match written.await {
            Ok(written) => written,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The agent ends, and this with it.
            Err(_) => std::future::pending().await,
        };
        if let Err(error) = outcome {
            return (copy, Err(Trouble::Disk(error)));
        }
        match failed {
            None => {}
            Some(error @ (EngineError::NotFound { .. } | EngineError::Refused { .. })) => {
                return (copy, Err(Trouble::NoLogs(error)));
            }
            Some(error) => return (copy, Err(Trouble::Engine(error))),
        }
    }
    (copy, Ok(()))
}

/// The files, and how far they are.
struct Copy {
    stdout: File,
    stderr: File,
    mark: File,
    lengths: [u64; 2],
    /// When the last piece came, in the engine's words; they sort as times do.
    last: String,
}

impl Copy {
    /// Opens the files, and cuts off what was written but not noted.
    fn resume(sandbox: &Path, mark: &Path) -> io::Result<Self> {
        let open = |name: &str| OpenOptions::new().append(true).create(true).open(sandbox.join(name));
        let (stdout, stderr) = (open("stdout")?, open("stderr")?);
        if let Some(parent) = mark.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let known = std::fs::read(mark).ok().as_deref().and_then(read_mark);
        let mark = OpenOptions::new().write(true).create(true).truncate(false).open(mark)?;
        let (lengths, last) = match known {
            Some((lengths, last)) => {
                for (file, length) in [&stdout, &stderr].into_iter().zip(lengths) {
                    if file.metadata()?.len() > length {
                        file.set_len(length)?;
                    }
                }
                (lengths, last)
            }
            None => ([stdout.metadata()?.len(), stderr.metadata()?.len()], String::new()),
        };
        let copy = Self { stdout, stderr, mark, lengths, last };
        copy.note()?;
        Ok(copy)
    }

    /// The second from which the engine is asked; what came in it before is passed over.
    fn since(&self) -> Option<i32> {
        let last = DateTime::parse_from_rfc3339(&self.last).ok()?;
        i32::try_from(last.timestamp()).ok()
    }

    fn write(&mut self, pieces: &[LogOutput]) -> io::Result<()> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        for piece in pieces {
            let all = piece.as_ref();
            let Some((time, text)) = all.split_at_checked(TIME) else { continue };
            let Ok(time) = std::str::from_utf8(time) else { continue };
            if *time <= *self.last {
                continue;
            }
            time.clone_into(&mut self.last);
            let text = text.strip_prefix(b" ").unwrap_or(text);
            match piece {
                LogOutput::StdErr { .. } => err.extend_from_slice(text),
                _ => out.extend_from_slice(text),
            }
        }
        self.stdout.write_all(&out)?;
        self.stderr.write_all(&err)?;
        self.lengths[0] += out.len() as u64;
        self.lengths[1] += err.len() as u64;
        self.note()
    }

    /// In one write, which a process that dies has made or not.
    fn note(&self) -> io::Result<()> {
        let mut record = [0; 16 + TIME];
        record[..8].copy_from_slice(&self.lengths[0].to_le_bytes());
        record[8..16].copy_from_slice(&self.lengths[1].to_le_bytes());
        record[16..16 + self.last.len()].copy_from_slice(self.last.as_bytes());
        self.mark.write_all_at(&record, 0)
    }
}

fn read_mark(record: &[u8]) -> Option<([u64; 2], String)> {
    let (stdout, rest) = record.split_first_chunk::<8>()?;
    let (stderr, last) = rest.split_first_chunk::<8>()?;
    let last = std::str::from_utf8(last.get(..TIME)?).ok()?.trim_end_matches('\0').to_owned();
    Some(([u64::from_le_bytes(*stdout), u64::from_le_bytes(*stderr)], last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(second: u8, text: &str) -> LogOutput {
        let message = format!("2026-11-26T12:00:{second:02}.000000001Z {text}").into_bytes().into();
        LogOutput::StdOut { message }
    }

    #[test]
    fn a_copy_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("marks/m");
        let read = || std::fs::read_to_string(dir.path().join("stdout")).unwrap();
        let mut copy = Copy::resume(dir.path(), &mark).unwrap();
        assert_eq!(copy.since(), None);
        copy.write(&[piece(1, "one\n"), piece(2, "two\n")]).unwrap();
        // What is written, but not noted, when the agent dies.
        copy.stdout.write_all(b"thr").unwrap();
        drop(copy);
        let mut copy = Copy::resume(dir.path(), &mark).unwrap();
        assert_eq!(read(), "one\ntwo\n");
        assert_eq!(copy.since(), Some(1_795_694_402));
        copy.write(&[piece(2, "two\n"), piece(3, "three\n")]).unwrap();
        assert_eq!(read(), "one\ntwo\nthree\n");
        // Nonsense from the engine is no reason to end.
        copy.write(&[LogOutput::Console { message: "x".into() }]).unwrap();
        assert_eq!(read(), "one\ntwo\nthree\n");
    }
}
