//! Follows the files that a task writes to, until its container has ended.
//!
//! Each begins at its present end. One that a logger has put aside and replaced is read to its end, then the new one from its start.

use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tepui_api::v1::ContainerId;
use tokio::sync::mpsc;

use crate::shell::backend::Backend;
use crate::shell::guest::Piece;

/// Between two looks while there is output, and the longest pause without.
const QUICK: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(200);
/// The largest piece, in bytes.
const PIECE: usize = 16 * 1024;
/// How many pieces wait for who reads them.
const WAITING: usize = 16;

/// Gives what comes.
pub(super) fn follow(
    workers: &tokio::runtime::Handle,
    backend: Arc<dyn Backend>,
    id: ContainerId,
    directory: &Path,
) -> mpsc::Receiver<Piece> {
    let (to, pieces) = mpsc::channel(WAITING);
    let files = [
        Followed::at_end(directory.join("stdout"), Piece::Out),
        Followed::at_end(directory.join("stderr"), Piece::Error),
    ];
    workers.spawn(until_the_end(backend, id, files, to));
    pieces
}

async fn until_the_end(
    backend: Arc<dyn Backend>,
    id: ContainerId,
    mut files: [Followed; 2],
    to: mpsc::Sender<Piece>,
) {
    let mut pause = QUICK;
    while !to.is_closed() {
        // Looked at before the files, so that what was written just before the end is read.
        let runs = matches!(backend.status(id.clone()).await, Ok(status) if status.executor_pid.is_some());
        let read = tokio::task::spawn_blocking(move || {
            let pieces: Vec<Piece> = files.iter_mut().flat_map(Followed::read).collect();
            (files, pieces)
        });
        let Ok((again, pieces)) = read.await else { return };
        files = again;
        if pieces.is_empty() {
            if !runs {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(SLOW);
            continue;
        }
        pause = QUICK;
        for piece in pieces {
            if to.send(piece).await.is_err() {
                return;
            }
        }
    }
}

struct Followed {
    path: PathBuf,
    open: Option<File>,
    kind: fn(Bytes) -> Piece,
}

impl Followed {
    fn at_end(path: PathBuf, kind: fn(Bytes) -> Piece) -> Self {
        let opened = open(&path).and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file));
        Self { path, open: opened.ok(), kind }
    }

    /// One piece, if there is something new.
    fn read(&mut self) -> Option<Piece> {
        loop {
            if self.open.is_none() {
                self.open = open(&self.path).ok();
            }
            let file = self.open.as_mut()?;
            let mut buffer = vec![0; PIECE];
            match file.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    buffer.truncate(length);
                    return Some((self.kind)(buffer.into()));
                }
                _ => {}
            }
            // Whether it has been replaced, or cut.
            let (now, ours) = (std::fs::symlink_metadata(&self.path).ok()?, file.metadata().ok()?);
            if is_same(&now, &ours) {
                if file.stream_position().is_ok_and(|at| at > ours.len()) {
                    file.seek(SeekFrom::Start(0)).ok()?;
                    continue;
                }
                return None;
            }
            self.open = None;
        }
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Not through a link: the directory belongs to the task's user. Nor a pipe, which would be waited on.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        std::fs::write(&path, "before").unwrap();
        let mut followed = Followed::at_end(path.clone(), Piece::Out);
        assert_eq!(followed.read(), None);
        let mut file = File::options().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"one").unwrap();
        std::fs::rename(&path, dir.path().join("stdout.1")).unwrap();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(followed.read(), Some(Piece::Out("one".into())));
        assert_eq!(followed.read(), Some(Piece::Out("two".into())));
        assert_eq!(followed.read(), None);
        std::fs::write(&path, "3").unwrap();
        assert_eq!(followed.read(), Some(Piece::Out("3".into())), "it was cut");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_eq!(followed.read(), None, "links are not followed");
    }
}
