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
        let runs = super::runs(&*backend, &id).await;
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
            let ours = file.metadata().ok()?;
            // Looked at before it is read: nothing is written any more to what another has taken the place of.
            let replaced = !is_at(&ours, &self.path);
            let mut buffer = vec![0; PIECE];
            match file.read(&mut buffer) {
                Ok(length) if length > 0 => {
                    buffer.truncate(length);
                    return Some((self.kind)(buffer.into()));
                }
                _ => {}
            }
            if replaced {
                self.open = Some(next_after(&ours, &self.path)?);
                continue;
            }
            // Whether it has been cut.
            let length = file.metadata().ok()?.len();
            if file.stream_position().is_ok_and(|at| at <= length) {
                return None;
            }
            file.seek(SeekFrom::Start(0)).ok()?;
        }
    }
}

/// The file that a logger began when it had put this one aside, if it is there yet: it may have done so more than once meanwhile.
fn next_after(ours: &Metadata, path: &Path) -> Option<File> {
    let former = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        PathBuf::from(name)
    };
    let is_there = |number: &u32| std::fs::symlink_metadata(former(*number)).ok();
    loop {
        let put_aside = (1..).map_while(|number| is_there(&number)).position(|there| is_same(&there, ours));
        let newer = match put_aside {
            Some(before) => before,
            // The oldest was removed: those that were written later are left.
            None => (1..)
                .map_while(|number| is_there(&number))
                .take_while(|there| modified(there) > modified(ours))
                .count(),
        };
        let number = u32::try_from(newer).ok()?;
        let next = open(&former(number)).ok()?;
        // Unless they have moved on while we looked.
        let stay = put_aside.is_none() || is_at(ours, &former(number + 1));
        let next_is = next.metadata().ok()?;
        if stay && is_at(&next_is, &former(number)) {
            return (!is_same(&next_is, ours)).then_some(next);
        }
    }
}

fn modified(file: &Metadata) -> (i64, i64) {
    (file.mtime(), file.mtime_nsec())
}

/// Whether this is the file at that place.
fn is_at(file: &Metadata, path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| is_same(&there, file))
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
    fn files_that_were_replaced_meanwhile_are_read_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stdout");
        let former = |number: u32| dir.path().join(format!("stdout.{number}"));
        let rotate = |keep: u32, text: &str| {
            for number in (1..keep).rev() {
                let _ = std::fs::rename(former(number), former(number + 1));
            }
            std::fs::rename(&path, former(1)).unwrap();
            std::fs::write(&path, text).unwrap();
        };
        let read_all = |followed: &mut Followed| {
            let mut all = String::new();
            while let Some(piece) = followed.read() {
                let Piece::Out(bytes) = piece else { panic!() };
                all.push_str(std::str::from_utf8(&bytes).unwrap());
            }
            all
        };
        for number in 1..=3 {
            std::fs::write(former(number), "old").unwrap();
        }
        std::fs::write(&path, "").unwrap();
        let mut followed = Followed::at_end(path.clone(), Piece::Out);
        std::fs::write(&path, "a").unwrap();
        for text in ["b", "c", "d"] {
            rotate(5, text);
        }
        assert_eq!(read_all(&mut followed), "abcd");
        // So often that what was read last is removed, and something is lost.
        for text in ["e", "f", "g", "h"] {
            // The clock of files is a coarse one.
            std::thread::sleep(Duration::from_millis(20));
            rotate(2, text);
        }
        assert_eq!(read_all(&mut followed), "fgh");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(followed.read(), None);
        std::fs::write(&path, "anew").unwrap();
        assert_eq!(read_all(&mut followed), "anew");
    }

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
