//! Stacking layers by overlayfs, however many and wherever they are.
//!
//! `mount(2)` takes one page of options, in which the paths of some thirty to a hundred layers fit. Where they do not, there are two more ways,
//! tried in this order:
//!
//! | | since | |
//! | --- | --- | --- |
//! | [`by_parts`] | Linux 6.5 | one system call a layer, which has no limit in all |
//! | [`by_numbers`] | any | the layers are opened, and named by the numbers of their descriptors |
//!
//! The kernel itself stacks 500 at most.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::rootfs::{attach, enter_private_namespace, open_path, own};

/// One page, without what `mount(2)` needs of it.
const OPTIONS: usize = 4000;

/// Layers cannot be stacked.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The kernel refuses.
    #[error("{layers} layers cannot be stacked on {target} by overlayfs: {source}")]
    Mount {
        /// How many.
        layers: usize,
        /// Where.
        target: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be tried, which says nothing of whether it works.
    #[error("overlayfs cannot be tried in {path}: {source}")]
    Trial {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// They can be stacked, but files cannot be removed: the file system keeps no attributes or marks of overlayfs.
    #[error("overlayfs does not work in {path}: {source}")]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Stacks layers, under a directory that receives what is written and its scratch directory; without them, nothing can be written, and there
/// must be two layers at least.
///
/// For a process without threads: its working directory is another one meanwhile.
pub(crate) fn stack(
    lowers: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    target: &Path,
) -> Result<(), OverlayError> {
    let options = options(lowers, writable);
    let mounted = match options.len() {
        0..OPTIONS => {
            let options = Some(options.as_slice());
            mount(Some("overlay"), target, Some("overlay"), MsFlags::empty(), options)
                .map_err(io::Error::from)
        }
        // Whatever is wrong with the first way: if it is not the kernel's age, it is wrong with the second, too.
        _ => by_parts(lowers, writable, target).or_else(|_| by_numbers(lowers, writable, target)),
    };
    mounted.map_err(|source| OverlayError::Mount { layers: lowers.len(), target: target.to_owned(), source })
}

/// Whether layers can be stacked under what is written in this directory, as can be told by doing it. `lower` is one of the layers. The directory is made, and
/// left to be removed. Takes some milliseconds, in a thread that has a mount namespace of its own.
///
/// # Errors
/// [`OverlayError::Trial`] when nothing is known, another when it does not work.
pub fn try_overlay(directory: &Path, lower: &Path) -> Result<(), OverlayError> {
    let [seen, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| directory.join(name));
    let trial = |source| OverlayError::Trial { path: directory.to_owned(), source };
    for made in [&seen.join("removed/below"), &upper, &work, &merged] {
        fs::create_dir_all(made).map_err(trial)?;
    }
    let in_thread = || {
        enter_private_namespace().map_err(|error| trial(io::Error::other(error)))?;
        stack(&[seen, lower.to_owned()], Some((&upper, &work)), &merged)?;
        let removed = try_removing(&merged);
        // The namespace ends with the thread, but perhaps not at once.
        let _ = umount2(&merged, MntFlags::MNT_DETACH);
        removed.map_err(|source| OverlayError::Unusable { path: directory.to_owned(), source })
    };
    let joined = std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("try-overlay".to_owned()).spawn_scoped(scope, in_thread);
        thread.map(|thread| thread.join())
    });
    match joined.map_err(trial)? {
        Ok(tried) => tried,
        Err(_) => Err(trial(io::Error::other("the thread that tried it has died"))),
    }
}

/// Takes a whiteout, and an opaque directory in its place.
fn try_removing(merged: &Path) -> io::Result<()> {
    let removed = merged.join("removed");
    fs::remove_dir_all(&removed)?;
    fs::create_dir(&removed)?;
    match fs::read_dir(&removed)?.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::other("what was removed is still there")),
    }
}

fn options(lowers: &[PathBuf], writable: Option<(&Path, &Path)>) -> Vec<u8> {
    let mut options = Vec::new();
    if writable.is_some() {
        // The upper directory does not outlive the container, so unmounting need not sync the disk.
        options.extend_from_slice(b"volatile,");
    }
    options.extend_from_slice(b"lowerdir=");
    for (index, lower) in lowers.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        escape(lower, &mut options);
    }
    if let Some((upper, work)) = writable {
        options.extend_from_slice(b",upperdir=");
        escape(upper, &mut options);
        options.extend_from_slice(b",workdir=");
        escape(work, &mut options);
    }
    options
}

/// `,`, `:` and `\` separate options and layers, unless escaped.
fn escape(path: &Path, into: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b',' | b':' | b'\\') {
            into.push(b'\\');
        }
        into.push(*byte);
    }
}

const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;

/// The same with one system call a layer.
fn by_parts(lowers: &[PathBuf], writable: Option<(&Path, &Path)>, target: &Path) -> io::Result<()> {
    // SAFETY: the argument is a C string that lives through the call.
    let context = own(unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), 1) })?;
    let set = |command: u32, key: Option<&std::ffi::CStr>, value: Option<&Path>| -> io::Result<()> {
        let value = value.map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
        // SAFETY: key and value are null or C strings that live through the call.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                command,
                key.map_or(std::ptr::null(), std::ffi::CStr::as_ptr),
                value.as_ref().map_or(std::ptr::null(), |value| value.as_ptr()),
                0,
            )
        })?;
        Ok(())
    };
    for lower in lowers {
        set(FSCONFIG_SET_STRING, Some(c"lowerdir+"), Some(lower))?;
    }
    if let Some((upper, work)) = writable {
        set(FSCONFIG_SET_STRING, Some(c"upperdir"), Some(upper))?;
        set(FSCONFIG_SET_STRING, Some(c"workdir"), Some(work))?;
        set(FSCONFIG_SET_FLAG, Some(c"volatile"), None)?;
    }
    set(FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: takes integers only.
    let mounted = own(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 1, 0) })?;
    attach(&mounted, target)
}

/// The same with directories that are open, from within `/proc/self/fd`, where their numbers are their names: four bytes a layer at most, however long
/// the paths are, and nothing on a disk that a sudden end could leave.
fn by_numbers(lowers: &[PathBuf], writable: Option<(&Path, &Path)>, target: &Path) -> io::Result<()> {
    let here = File::open(".")?;
    let target = open_path(target)?;
    let lowers = lowers.iter().map(|path| open_path(path)).collect::<io::Result<Vec<_>>>()?;
    let writable = writable.map(|(upper, work)| Ok::<_, io::Error>((open_path(upper)?, open_path(work)?)));
    let writable = writable.transpose()?;

    let number = |file: &File| PathBuf::from(file.as_raw_fd().to_string());
    let names: Vec<_> = lowers.iter().map(number).collect();
    let pair = writable.as_ref().map(|(upper, work)| (number(upper), number(work)));
    let options = options(&names, pair.as_ref().map(|(upper, work)| (upper.as_path(), work.as_path())));

    nix::unistd::chdir("/proc/self/fd")?;
    let options = Some(options.as_slice());
    let mounted = mount(Some("overlay"), &number(&target), Some("overlay"), MsFlags::empty(), options);
    nix::unistd::fchdir(&here)?;
    Ok(mounted?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does something in a thread that has mounts and a working directory of its own.
    fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter_private_namespace().expect("root is needed");
                work()
            });
            thread.join().unwrap()
        })
    }

    struct Layers {
        top: tempfile::TempDir,
        lowers: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        target: PathBuf,
    }

    /// So many in directories with long names, each with a file of its own and one that all have.
    fn layers(count: usize) -> Layers {
        let top = tempfile::tempdir().unwrap();
        let long = top.path().join("x".repeat(120)).join("a,b:c\\".repeat(20));
        let lowers: Vec<_> = (0..count).map(|number| long.join(format!("layer-{number}"))).collect();
        for (number, lower) in lowers.iter().enumerate() {
            fs::create_dir_all(lower).unwrap();
            fs::write(lower.join(number.to_string()), "").unwrap();
            fs::write(lower.join("which"), number.to_string()).unwrap();
        }
        let [upper, work, target] = ["upper", "work", "target"].map(|name| long.join(name));
        for made in [&upper, &work, &target] {
            fs::create_dir(made).unwrap();
        }
        Layers { top, lowers, upper, work, target }
    }

    type Way = fn(&[PathBuf], Option<(&Path, &Path)>, &Path) -> io::Result<()>;

    fn check(way: Way, count: usize) {
        let Layers { top, lowers, upper, work, target } = layers(count);
        assert!(options(&lowers, Some((&upper, &work))).len() > 8 * OPTIONS);
        apart(|| {
            std::env::set_current_dir(top.path()).unwrap();
            way(&lowers, Some((&upper, &work)), &target).unwrap();
            assert_eq!(std::env::current_dir().unwrap(), top.path(), "the working directory is as before");
            assert_eq!(fs::read_dir(&target).unwrap().count(), count + 1);
            assert_eq!(fs::read_to_string(target.join("which")).unwrap(), "0", "the first is the topmost");
            fs::write(target.join("which"), "mine").unwrap();
            fs::remove_file(target.join("1")).unwrap();
            umount2(&target, MntFlags::empty()).unwrap();
            assert_eq!(fs::read_to_string(upper.join("which")).unwrap(), "mine");
            // Without a writable one.
            way(&lowers, None, &target).unwrap();
            assert_eq!(fs::read_dir(&target).unwrap().count(), count + 1);
            assert!(fs::write(target.join("which"), "").is_err());
            umount2(&target, MntFlags::empty()).unwrap();
        });
    }

    #[test]
    fn many_layers_with_long_names_are_stacked_by_numbers() {
        check(by_numbers, 127);
    }

    #[test]
    fn as_many_as_the_kernel_stacks_are_stacked_by_numbers() {
        check(by_numbers, 500);
    }

    #[test]
    fn they_are_stacked_whatever_the_kernel() {
        check(|lowers, writable, target| stack(lowers, writable, target).map_err(io::Error::other), 127);
    }

    #[test]
    fn more_are_an_error_and_change_nothing() {
        let Layers { top, lowers, upper, work, target } = layers(501);
        apart(|| {
            std::env::set_current_dir(top.path()).unwrap();
            let error = stack(&lowers, Some((&upper, &work)), &target).unwrap_err().to_string();
            assert!(error.starts_with("501 layers cannot be stacked on "), "{error}");
            assert_eq!(std::env::current_dir().unwrap(), top.path());
            assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
        });
    }

    #[test]
    fn separators_in_paths_are_escaped() {
        let mut text = Vec::new();
        escape(Path::new("/a,b:c\\d"), &mut text);
        assert_eq!(text, b"/a\\,b\\:c\\\\d");
    }

    #[test]
    fn whether_it_works_is_tried() {
        let (dir, lower) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
        let before = mounts();
        try_overlay(&dir.path().join("good"), lower.path()).unwrap();
        assert_eq!(mounts(), before);
        // The upper layer of an overlay cannot be on another one.
        let bad = dir.path().join("bad");
        fs::create_dir_all(bad.join("lower/a")).unwrap();
        for name in ["upper", "work", "merged"] {
            fs::create_dir(bad.join(name)).unwrap();
        }
        apart(|| {
            let merged = bad.join("merged");
            stack(&[bad.join("lower")], Some((&bad.join("upper"), &bad.join("work"))), &merged).unwrap();
            let tried = try_overlay(&merged.join("trial"), lower.path());
            assert!(matches!(tried, Err(OverlayError::Mount { .. })), "{tried:?}");
        });
    }
}
