//! `volume/host_path`: a file or directory of the host in a container.
//!
//! The path must exist on the host. With `--host_path_volume_force_creation`, a colon-separated list of directories, what does
//! not exist at or beneath one of them is made as a directory; no link beneath them is followed on that way, as a task might have put
//! it there. Mount propagation BIDIRECTIONAL needs a shared mount on the host (`mount_namespaces(7)`).
//!
//! Always there with `filesystem/linux`. Rules: Mesos' `docs/container-volume.md`,
//! `src/slave/containerizer/mesos/isolators/volume/host_path.cpp`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::volumes::{Kind, make_directories, mount, plain, volumes};
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{Answer, ContainerContext, Contribution, Isolator, IsolatorError, done};
use crate::volume::{VolumeSource, VolumeTarget};

struct VolumeHostPath {
    /// `--host_path_volume_force_creation`.
    creation: Vec<PathBuf>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let creation = parts.settings.volumes.host_path_force_creation.clone();
    match creation.iter().find(|dir| plain(&dir.to_string_lossy()).is_err() || !dir.is_absolute()) {
        Some(wrong) => Err(MakeError::Setting(format!(
            "'{}' in --host_path_volume_force_creation is not the absolute path of a directory below '/': the flag is a list of \
             those, split by colons",
            wrong.display()
        ))),
        None => Ok(Arc::new(VolumeHostPath { creation })),
    }
}

impl VolumeHostPath {
    fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        for volume in volumes(context) {
            let (volume, Kind::HostPath { path, bidirectional }) = volume? else { continue };
            let source = PathBuf::from(path);
            if !source.exists() {
                self.create(path)?;
            }
            if bidirectional && !is_shared(&source)? {
                return Err(IsolatorError::Refused(format!(
                    "mounts cannot be propagated from the container to the host beneath '{path}', as it is not on a shared mount"
                )));
            }
            let mut made = mount(volume, VolumeSource::Host(source.clone()), context)?;
            made.shared = bidirectional;
            // It is there already, and as it is asked for.
            let already = made.target == VolumeTarget::Existing(source) && !made.read_only && !made.shared;
            if !already {
                contribution.volumes.push(made);
            }
        }
        Ok(())
    }

    fn create(&self, shown: &str) -> Result<(), IsolatorError> {
        let path = if shown == "/" { PathBuf::from("/") } else { Path::new("/").join(plain(shown)?) };
        let Some(top) = self.creation.iter().find(|top| path.starts_with(top)) else {
            return Err(IsolatorError::Refused(format!(
                "the path '{shown}' of a HOST_PATH volume does not exist, and is in no directory that \
                 --host_path_volume_force_creation names"
            )));
        };
        let beneath = path.strip_prefix(top).unwrap_or(&path);
        fs::create_dir_all(top).and_then(|()| make_directories(top, beneath, None)).map_err(|error| {
            IsolatorError::Failed(format!("the path '{shown}' of a HOST_PATH volume cannot be made: {error}"))
        })
    }
}

/// Whether the mount that a path is on is shared.
fn is_shared(path: &Path) -> Result<bool, IsolatorError> {
    let failed = |error: std::io::Error| {
        IsolatorError::Failed(format!("the mount of '{}' cannot be found: {error}", path.display()))
    };
    let path = path.canonicalize().map_err(failed)?;
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
    Ok(mount_of(&path, &table).is_some_and(|optional| optional.contains("shared:")))
}

/// The optional fields of the mount that a path is on (`proc_pid_mountinfo(5)`): of those at the longest path, the last made.
fn mount_of<'a>(path: &Path, table: &'a str) -> Option<&'a str> {
    let mounts = table.lines().filter_map(|line| {
        let (fields, _) = line.split_once(" - ")?;
        let mut fields = fields.splitn(7, ' ');
        let point = PathBuf::from(unescape(fields.nth(4)?));
        // Without any, nothing follows the mount's options.
        Some((point, fields.nth(1).unwrap_or_default()))
    });
    let above = mounts.filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.components().count()).map(|(_, optional)| optional)
}

/// Spaces and the like are octal there.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

impl Isolator for VolumeHostPath {
    fn name(&self) -> &str {
        "volume/host_path"
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(VolumeHostPath::prepare(self, context, contribution))
    }
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::volume::Mode;
    use tepui_api::v1::{ContainerInfo, Volume};

    use super::super::tests::context;
    use super::*;
    use crate::volume::VolumeMount;

    fn prepared(
        creation: &[&Path],
        host_path: &Path,
        at: &str,
        mode: Mode,
    ) -> Result<Vec<VolumeMount>, IsolatorError> {
        let volume = Volume {
            mode: mode.into(),
            container_path: at.to_owned(),
            host_path: Some(host_path.to_str().unwrap().to_owned()),
            ..Volume::default()
        };
        let info = ContainerInfo { volumes: vec![volume], ..ContainerInfo::default() };
        let isolator = VolumeHostPath { creation: creation.iter().map(|path| path.to_path_buf()).collect() };
        let mut contribution = Contribution::default();
        isolator.prepare(&context(Some(info)), &mut contribution).map(|()| contribution.volumes)
    }

    #[test]
    fn what_exists_is_mounted_as_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mounts = prepared(&[], dir.path(), "data", Mode::Ro).unwrap();
        let expected = VolumeMount {
            source: VolumeSource::Host(dir.path().into()),
            target: VolumeTarget::Sandbox("data".into()),
            read_only: true,
            shared: false,
        };
        assert_eq!(mounts, [expected]);
        // Under the same path on the host's root file system it is there already; but not read-only.
        assert!(prepared(&[], Path::new("/etc"), "/etc", Mode::Rw).unwrap().is_empty());
        assert_eq!(prepared(&[], Path::new("/etc"), "/etc", Mode::Ro).unwrap().len(), 1);
        assert!(prepared(&[], Path::new("/no/such/path"), "data", Mode::Rw).is_err());
    }

    #[test]
    fn what_is_missing_is_made_only_where_the_operator_allows_it() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = dir.path().join("allowed");
        let make = |path: &str| prepared(&[&allowed], &dir.path().join(path), "data", Mode::Rw);
        make("allowed/a/b").unwrap();
        assert!(allowed.join("a/b").is_dir());
        make("allowed").unwrap();
        for path in ["allowed-too", "other", "allowed/../other"] {
            assert!(make(path).is_err(), "{path}");
        }
        std::os::unix::fs::symlink(dir.path(), allowed.join("link")).unwrap();
        assert!(make("allowed/link/other").is_err());
        assert!(!dir.path().join("other").exists());
    }

    #[test]
    fn the_mount_of_a_path_is_the_innermost_and_last() {
        let table = "21 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
                     22 21 0:5 / /a rw - tmpfs tmpfs rw\n\
                     23 22 0:6 / /a/b\\040c rw,nosuid shared:7 master:3 - tmpfs tmpfs rw\n\
                     24 21 0:7 / /d rw - tmpfs tmpfs rw\n\
                     25 24 0:8 / /d rw shared:9 - tmpfs tmpfs rw\n";
        let optional = |path: &str| mount_of(Path::new(path), table).unwrap();
        assert_eq!(optional("/x/y"), "shared:1");
        assert_eq!(optional("/a/x"), "");
        assert_eq!(optional("/ab"), "shared:1");
        assert_eq!(optional("/a/b c/d"), "shared:7 master:3");
        assert_eq!(optional("/d/e"), "shared:9");
    }
}
