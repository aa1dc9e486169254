//! Touching the disk as the user whose sandbox it is.
//!
//! What a user could not read is not fetched for it, and what is fetched belongs to it. Mesos' fetcher is a process that becomes
//! the user; here a thread takes the user's identity where files are concerned (`setfsuid(2)`), for as long as it lives. With it
//! go the capabilities by which root passes over permissions and makes devices. Nobody can trace or signal
//! the thread by that: its other ids stay the agent's.

use std::ffi::CString;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use tokio::sync::oneshot;

use super::error::{Failure, FetchError};

/// Who files are read and written as; the agent itself without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity(Option<Ids>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ids {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

// === impl Identity ===

impl Identity {
    /// Looks a user up. Blocks on the system's user database.
    pub(super) fn of(name: Option<&str>) -> Result<Self, FetchError> {
        let Some(name) = name else { return Ok(Self(None)) };
        let failed = |reason: String| FetchError::User { user: name.to_owned(), reason };
        let user = User::from_name(name).map_err(|errno| failed(errno.to_string()))?;
        let user = user.ok_or_else(|| failed("there is no such user on this agent".to_owned()))?;
        if user.uid == geteuid() {
            return Ok(Self(None));
        }
        let c_name = CString::new(name).map_err(|error| failed(error.to_string()))?;
        let groups = getgrouplist(&c_name, user.gid).map_err(|errno| failed(errno.to_string()))?;
        Ok(Self(Some(Ids { uid: user.uid, gid: user.gid, groups })))
    }

    /// Does something that blocks, on a thread of its own, as this user.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let ids = self.0.clone();
        let (sender, answer) = oneshot::channel();
        let thread = std::thread::Builder::new().name("agent-fetch".to_owned());
        let spawned = thread.spawn(move || {
            let taken = ids.as_ref().map_or(Ok(()), Ids::take);
            let done = taken.map_err(|error| Failure::Worker(error.to_string())).and_then(|()| work());
            // Who asked may be gone.
            let _ = sender.send(done);
        });
        spawned.map_err(|error| Failure::Worker(error.to_string()))?;
        answer.await.unwrap_or_else(|_| Err(Failure::Worker("a thread of it ended".to_owned())))
    }
}

// === impl Ids ===

impl Ids {
    /// Has the calling thread, and none other, touch files as this user until it ends.
    fn take(&self) -> io::Result<()> {
        let groups: Vec<libc::gid_t> = self.groups.iter().map(|group| group.as_raw()).collect();
        // The call itself, as the C library's function would change all threads of the process.
        // SAFETY: takes a number and that many group ids, which live through the call.
        Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })?;
        nix::unistd::setfsgid(self.gid);
        nix::unistd::setfsuid(self.uid);
        // They tell the former id and nothing else: only asking again shows whether it has changed.
        let (gid, uid) = (nix::unistd::setfsgid(self.gid), nix::unistd::setfsuid(self.uid));
        if (gid, uid) == (self.gid, self.uid) {
            Ok(())
        } else {
            Err(io::Error::other("the system does not let it take the user's identity"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    #[tokio::test]
    async fn a_thread_is_the_user_and_no_other_thread_is() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let (secret, own) = (dir.path().join("secret"), dir.path().join("own"));
        std::fs::write(&secret, "x").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let nobody = Identity::of(Some("nobody")).unwrap();
        let (path, made) = (secret.clone(), own.clone());
        let read = nobody.run(move || {
            std::fs::write(&made, "y").unwrap();
            Ok(std::fs::read(&path).map_err(|error| error.kind()))
        });
        assert_eq!(read.await.unwrap().unwrap_err(), io::ErrorKind::PermissionDenied);
        let nobody = User::from_name("nobody").unwrap().unwrap();
        assert_eq!(own.metadata().unwrap().uid(), nobody.uid.as_raw());
        assert_eq!(std::fs::read(&secret).unwrap(), b"x");
        let root = Identity::of(Some("root")).unwrap();
        assert_eq!(root.run(move || Ok(std::fs::read(&secret).unwrap())).await.unwrap(), b"x");
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_an_error() {
        let own = Identity::of(None).unwrap();
        let panics: Result<(), _> = own.run(|| panic!("as a test wants it")).await;
        assert!(matches!(panics, Err(Failure::Worker(_))));
        assert!(matches!(Identity::of(Some("no-such-user")), Err(FetchError::User { .. })));
    }
}
