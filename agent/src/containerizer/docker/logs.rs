//! What a container writes, copied from the engine into its sandbox.
//!
//! The engine keeps the output, each piece with the time it came; this follows it and appends to `stdout` and `stderr`. How far the copy is stands in
//! a file beside it: the lengths of both, and the time of the last piece. It is written after the pieces. An agent that starts anew cuts the
//! files to those lengths and goes on after that time, so that nothing is missing and nothing is there twice.
//!
//! A file that has a limit is rotated between two pieces, and only when all before is noted; its new length, of nothing, is noted before
//! anything is written to it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use chrono::DateTime;
use futures_util::StreamExt as _;
use tepui_shim::{LogFile, Rotation};

use super::engine::{Engine, EngineError};

/// Pieces that are written at once.
const BATCH: usize = 256;
/// Between attempts, when the engine is not there.
const PAUSE: Duration = Duration::from_secs(1);
/// A time as the engine writes it: `2026-11-26T12:00:00.000000000Z`.
const TIME: usize = 30;

/// Where output is copied to.
pub(super) struct Place {
    pub(super) sandbox: PathBuf,
    /// Where it is noted how far the copy is.
    pub(super) mark: PathBuf,
    pub(super) rotation: Option<Rotation>,
}

/// Follows the output until the container has ended and all is copied.
pub(super) async fn follow(engine: Arc<Engine>, name: String, place: Place) {
    let opened = tokio::task::spawn_blocking(move || Copy::resume(&place)).await;
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
    /// Standard output, and standard error.
    files: [LogFile; 2],
    mark: File,
    /// When the last piece came, in the engine's words; they sort as times do.
    last: String,
}

impl Copy {
    /// Opens the files, and cuts off what was written but not noted.
    fn resume(place: &Place) -> io::Result<Self> {
        let Place { sandbox, mark, rotation } = place;
        // A new file belongs to whom the sandbox does.
        let owner = sandbox.metadata().map(|metadata| (metadata.uid(), metadata.gid()))?;
        let open = |name: &str, limits| LogFile::open(&sandbox.join(name), Some(owner), limits);
        let mut files = [
            open("stdout", rotation.map(|rotation| rotation.stdout))?,
            open("stderr", rotation.map(|rotation| rotation.stderr))?,
        ];
        if let Some(parent) = mark.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let known = std::fs::read(mark).ok().as_deref().and_then(read_mark);
        let mark = OpenOptions::new().write(true).create(true).truncate(false).open(mark)?;
        let last = match known {
            Some((lengths, last)) => {
                // One that is shorter was rotated, and nothing has been written to it since.
                for (file, length) in files.iter_mut().zip(lengths) {
                    if file.size() > length {
                        file.truncate(length)?;
                    }
                }
                last
            }
            None => String::new(),
        };
        let copy = Self { files, mark, last };
        copy.note()?;
        Ok(copy)
    }

    /// The second from which the engine is asked; what came in it before is passed over.
    fn since(&self) -> Option<i32> {
        let last = DateTime::parse_from_rfc3339(&self.last).ok()?;
        i32::try_from(last.timestamp()).ok()
    }

    fn write(&mut self, pieces: &[LogOutput]) -> io::Result<()> {
        let mut unwritten = [Vec::new(), Vec::new()];
        for piece in pieces {
            let all = piece.as_ref();
            let Some((time, text)) = all.split_at_checked(TIME) else { continue };
            let Ok(time) = std::str::from_utf8(time) else { continue };
            if *time <= *self.last {
                continue;
            }
            let text = text.strip_prefix(b" ").unwrap_or(text);
            let which = usize::from(matches!(piece, LogOutput::StdErr { .. }));
            let more = (unwritten[which].len() + text.len()) as u64;
            if !self.files[which].has_room(more) {
                self.flush(&mut unwritten)?;
                if self.files[which].size() > 0 && !self.files[which].has_room(text.len() as u64) {
                    self.files[which].rotate()?;
                    self.note()?;
                }
            }
            time.clone_into(&mut self.last);
            unwritten[which].extend_from_slice(text);
        }
        self.flush(&mut unwritten)
    }

    fn flush(&mut self, unwritten: &mut [Vec<u8>; 2]) -> io::Result<()> {
        for (file, bytes) in self.files.iter_mut().zip(unwritten) {
            file.append(bytes)?;
            bytes.clear();
        }
        self.note()
    }

    /// In one write, which a process that dies has made or not.
    fn note(&self) -> io::Result<()> {
        let mut record = [0; 16 + TIME];
        record[..8].copy_from_slice(&self.files[0].size().to_le_bytes());
        record[8..16].copy_from_slice(&self.files[1].size().to_le_bytes());
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
    use tepui_shim::LogLimits;

    fn piece(second: u8, text: &str) -> LogOutput {
        let message = format!("2026-11-26T12:00:{second:02}.000000001Z {text}").into_bytes().into();
        LogOutput::StdOut { message }
    }

    fn place(dir: &tempfile::TempDir, rotation: Option<Rotation>) -> Place {
        Place { sandbox: dir.path().to_owned(), mark: dir.path().join("marks/m"), rotation }
    }

    #[test]
    fn a_copy_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(&dir, None);
        let read = || std::fs::read_to_string(dir.path().join("stdout")).unwrap();
        let mut copy = Copy::resume(&place).unwrap();
        assert_eq!(copy.since(), None);
        copy.write(&[piece(1, "one\n"), piece(2, "two\n")]).unwrap();
        // What is written, but not noted, when the agent dies.
        copy.files[0].append(b"thr").unwrap();
        drop(copy);
        let mut copy = Copy::resume(&place).unwrap();
        assert_eq!(read(), "one\ntwo\n");
        assert_eq!(copy.since(), Some(1_795_694_402));
        copy.write(&[piece(2, "two\n"), piece(3, "three\n")]).unwrap();
        assert_eq!(read(), "one\ntwo\nthree\n");
        // Nonsense from the engine is no reason to end.
        copy.write(&[LogOutput::Console { message: "x".into() }]).unwrap();
        assert_eq!(read(), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_copy_is_rotated_and_goes_on_after_that_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let limits = LogLimits { max_size: 8, keep: 1 };
        let place = place(&dir, Some(Rotation { stdout: limits, stderr: limits }));
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let mut copy = Copy::resume(&place).unwrap();
        copy.write(&[piece(1, "one\n"), piece(2, "two\n"), piece(3, "three\n")]).unwrap();
        assert_eq!((read("stdout.1"), read("stdout")), ("one\ntwo\n".into(), "three\n".into()));
        // The agent dies right after a rotation, before it is noted.
        copy.files[0].rotate().unwrap();
        drop(copy);
        let mut copy = Copy::resume(&place).unwrap();
        copy.write(&[piece(3, "three\n"), piece(4, "four\n"), piece(5, "longer than a file\n")]).unwrap();
        assert_eq!((read("stdout.1"), read("stdout")), ("four\n".into(), "longer than a file\n".into()));
        drop(copy);
        Copy::resume(&place).unwrap();
        assert_eq!(read("stdout"), "longer than a file\n");
    }

    #[test]
    fn a_link_in_place_of_the_output_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other");
        std::fs::write(&other, "other").unwrap();
        std::os::unix::fs::symlink(&other, dir.path().join("stdout")).unwrap();
        assert!(Copy::resume(&place(&dir, None)).is_err());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "other");
    }
}
