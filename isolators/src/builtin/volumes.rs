//! What the isolators of volumes share: how `ContainerInfo.volumes` is read.
//!
//! A volume has one of `host_path`, `image` (both the older form) and `source`. Its `container_path` is relative to the sandbox, where it
//! is made if absent; or absolute, where it is made if absent in a container with an image, and must exist in one on the host's root file
//! system, as it would be made on the host. `/tmp` there is the container's own, so that what is beneath it can be made. Mesos' own code
//! says of `..` in a path that it should be refused; here it is.
//!
//! Rules: Mesos' `docs/container-volume.md`, `src/common/validation.cpp`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, fchownat};
use tepui_api::v1::volume::Source;
use tepui_api::v1::volume::source::{DockerVolume, Type};
use tepui_api::v1::{Image, Secret, Volume, mount_propagation, volume};

use crate::isolator::{ContainerContext, IsolatorError};
use crate::volume::{VolumeMount, VolumeSource, VolumeTarget};

/// What a volume is, whichever form says so.
#[derive(Debug, PartialEq)]
pub enum Kind<'a> {
    /// `volume/host_path`: an absolute path.
    HostPath {
        path: &'a str,
        /// Mounts made in the container appear on the host.
        bidirectional: bool,
    },
    /// `volume/sandbox_path`: a path relative to a sandbox.
    SandboxPath {
        path: &'a str,
        /// That of the parent container, rather than the container's own.
        of_parent: bool,
    },
    /// `volume/image`.
    Image(&'a Image),
    /// `volume/secret`.
    Secret(&'a Secret),
    /// `docker/volume`.
    Docker(&'a DockerVolume),
    /// `volume/csi`.
    Csi,
}

impl Kind<'_> {
    /// The isolator that sees to such volumes.
    pub fn isolator(&self) -> &'static str {
        match self {
            Kind::HostPath { .. } => "volume/host_path",
            Kind::SandboxPath { .. } => "volume/sandbox_path",
            Kind::Image(_) => "volume/image",
            Kind::Secret(_) => "volume/secret",
            Kind::Docker(_) => "docker/volume",
            Kind::Csi => "volume/csi",
        }
    }
}

fn refused<T>(text: impl Into<String>) -> Result<T, IsolatorError> {
    Err(IsolatorError::Refused(text.into()))
}

/// Reads what a volume is.
///
/// # Errors
/// When it is nothing, or several things at once.
pub fn kind(volume: &Volume) -> Result<Kind<'_>, IsolatorError> {
    match (&volume.host_path, &volume.image, &volume.source) {
        (Some(path), None, None) if path.starts_with('/') => {
            Ok(Kind::HostPath { path, bidirectional: false })
        }
        (Some(path), None, None) => Ok(Kind::SandboxPath { path, of_parent: false }),
        (None, Some(image), None) => Ok(Kind::Image(image)),
        (None, None, Some(source)) => kind_of_source(source),
        _ => refused("a volume must have one of 'host_path', 'image' and 'source'"),
    }
}

fn kind_of_source(source: &Source) -> Result<Kind<'_>, IsolatorError> {
    let parts =
        (source.r#type(), &source.host_path, &source.sandbox_path, &source.secret, &source.docker_volume);
    match parts {
        (Type::HostPath, Some(host), ..) => {
            if !host.path.starts_with('/') {
                return refused(format!("the path '{}' of a HOST_PATH volume is not absolute", host.path));
            }
            let mode = host.mount_propagation.as_ref().map(|propagation| propagation.mode());
            let bidirectional = mode == Some(mount_propagation::Mode::Bidirectional);
            Ok(Kind::HostPath { path: &host.path, bidirectional })
        }
        (Type::SandboxPath, _, Some(sandbox), ..) => {
            use volume::source::sandbox_path::Type as Whose;
            if sandbox.path.starts_with('/') {
                return refused(format!("the path '{}' of a SANDBOX_PATH volume is absolute", sandbox.path));
            }
            match sandbox.r#type() {
                Whose::Self_ => Ok(Kind::SandboxPath { path: &sandbox.path, of_parent: false }),
                Whose::Parent => Ok(Kind::SandboxPath { path: &sandbox.path, of_parent: true }),
                Whose::Unknown => refused("the type of a SANDBOX_PATH volume must be SELF or PARENT"),
            }
        }
        (Type::Secret, _, _, Some(secret), _) => Ok(Kind::Secret(secret)),
        (Type::DockerVolume, .., Some(docker)) => Ok(Kind::Docker(docker)),
        (Type::CsiVolume, ..) => Ok(Kind::Csi),
        _ => refused("the source of a volume must have a known type, and what belongs to it"),
    }
}

/// The name of the isolator that sees to a volume.
///
/// # Errors
/// When the volume is of no kind.
pub fn isolator_of(volume: &Volume) -> Result<&'static str, IsolatorError> {
    kind(volume).map(|kind| kind.isolator())
}

/// The volumes of a container, with what each is.
pub fn volumes(
    context: &ContainerContext,
) -> impl Iterator<Item = Result<(&Volume, Kind<'_>), IsolatorError>> {
    let all = context.container.iter().flat_map(|container| &container.volumes);
    all.map(|volume| Ok((volume, kind(volume)?)))
}

/// Where a volume is mounted.
///
/// # Errors
/// When its path leads anywhere else, or must exist and does not.
pub fn target(volume: &Volume, context: &ContainerContext) -> Result<VolumeTarget, IsolatorError> {
    let shown = &volume.container_path;
    let path = plain(shown)?;
    if !shown.starts_with('/') {
        return Ok(VolumeTarget::Sandbox(path));
    }
    let path = Path::new("/").join(path);
    if context.has_rootfs || (path.starts_with("/tmp") && path != Path::new("/tmp")) {
        return Ok(VolumeTarget::Made(path));
    }
    if !path.exists() {
        return refused(format!(
            "the container path '{shown}' of a volume is absolute: it must exist when the container has the host's root file system"
        ));
    }
    Ok(VolumeTarget::Existing(path))
}

/// A path taken apart and put together again, relative to wherever it begins.
///
/// # Errors
/// When it leads upwards or nowhere.
pub fn plain(path: &str) -> Result<PathBuf, IsolatorError> {
    let mut plain = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return refused(format!("the path '{path}' of a volume has a '..' in it"));
            }
        }
    }
    if plain.as_os_str().is_empty() || path.contains('\0') {
        return refused(format!("the path '{path}' of a volume names neither a file nor a directory"));
    }
    Ok(plain)
}

/// A volume that is mounted as it is asked for.
///
/// # Errors
/// As [`target`].
pub fn mount(
    volume: &Volume,
    source: VolumeSource,
    context: &ContainerContext,
) -> Result<VolumeMount, IsolatorError> {
    let read_only = volume.mode() == volume::Mode::Ro;
    Ok(VolumeMount { source, target: target(volume, context)?, read_only, shared: false })
}

/// Makes a directory beneath another, and those between, without following a link. What is made is given to `owner`, if there is one.
///
/// # Errors
/// When something that is no directory is in the way.
pub fn make_directories(top: &Path, path: &Path, owner: Option<(Uid, Gid)>) -> io::Result<()> {
    let mut here: OwnedFd = open(top, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    for name in path.components() {
        let name = name.as_os_str();
        match mkdirat(&here, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {
                if let Some((uid, gid)) = owner {
                    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
                    fchownat(&here, name, Some(uid), Some(gid), flags)?;
                }
            }
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        here = openat2(&here, name, how)?;
    }
    Ok(())
}

/// Opens what is beneath a directory, without leaving it by a link; `None` if it does not exist.
///
/// # Errors
/// When a link leads out.
pub fn open_beneath(top: &Path, path: &Path) -> io::Result<Option<File>> {
    let top = open(top, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
    match openat2(&top, path, how) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tepui_api::v1::volume::source::{HostPath, SandboxPath};

    use super::super::tests::context;
    use super::*;

    fn at(container_path: &str) -> Volume {
        Volume { container_path: container_path.to_owned(), ..Volume::default() }
    }

    fn from(r#type: Type, fill: impl FnOnce(&mut Source)) -> Volume {
        let mut source = Source { r#type: Some(r#type.into()), ..Source::default() };
        fill(&mut source);
        Volume { source: Some(source), ..at("v") }
    }

    #[test]
    fn each_form_says_which_isolator_sees_to_it() {
        use volume::source::sandbox_path::Type as Whose;
        let host = |path: &str| HostPath { path: path.to_owned(), mount_propagation: None };
        let sandbox =
            |whose: Whose, path: &str| SandboxPath { r#type: Some(whose.into()), path: path.to_owned() };
        let table = [
            (Volume { host_path: Some("/data".into()), ..at("v") }, Some("volume/host_path")),
            (Volume { host_path: Some("data".into()), ..at("v") }, Some("volume/sandbox_path")),
            (Volume { image: Some(Image::default()), ..at("v") }, Some("volume/image")),
            (Volume { image: Some(Image::default()), host_path: Some("/d".into()), ..at("v") }, None),
            (at("v"), None),
            (from(Type::HostPath, |s| s.host_path = Some(host("/data"))), Some("volume/host_path")),
            (from(Type::HostPath, |s| s.host_path = Some(host("data"))), None),
            (from(Type::HostPath, |_| {}), None),
            (
                from(Type::SandboxPath, |s| s.sandbox_path = Some(sandbox(Whose::Self_, "d"))),
                Some("volume/sandbox_path"),
            ),
            (from(Type::SandboxPath, |s| s.sandbox_path = Some(sandbox(Whose::Self_, "/d"))), None),
            (from(Type::SandboxPath, |s| s.sandbox_path = Some(sandbox(Whose::Unknown, "d"))), None),
            (from(Type::Secret, |s| s.secret = Some(Secret::default())), Some("volume/secret")),
            (
                from(Type::DockerVolume, |s| s.docker_volume = Some(DockerVolume::default())),
                Some("docker/volume"),
            ),
            (from(Type::CsiVolume, |_| {}), Some("volume/csi")),
            (from(Type::Unknown, |_| {}), None),
        ];
        for (volume, expected) in table {
            assert_eq!(isolator_of(&volume).ok(), expected, "{volume:?}");
        }
    }

    #[test]
    fn the_place_depends_on_the_root_file_system() {
        let on_host = context(None);
        let on_image = ContainerContext { has_rootfs: true, ..context(None) };
        let place = |path: &str, context| target(&at(path), context).ok();
        let made = |path: &str| Some(VolumeTarget::Made(path.into()));
        assert_eq!(place("a/./b", &on_host), Some(VolumeTarget::Sandbox("a/b".into())));
        assert_eq!(place("a", &on_image), Some(VolumeTarget::Sandbox("a".into())));
        assert_eq!(place("/etc", &on_host), Some(VolumeTarget::Existing("/etc".into())));
        assert_eq!(place("/no/such/path", &on_host), None);
        assert_eq!(place("/no/such//path/", &on_image), made("/no/such/path"));
        assert_eq!(place("/tmp/new", &on_host), made("/tmp/new"), "the container has a /tmp of its own");
        for path in ["..", "a/../../b", "/a/../../etc", "", ".", "/", "a\0b"] {
            assert_eq!(place(path, &on_image), None, "{path:?}");
        }
    }

    #[test]
    fn directories_are_made_beneath_and_never_through_a_link() {
        let (top, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_directories(top.path(), Path::new("a/b"), None).unwrap();
        make_directories(top.path(), Path::new("a/b/c"), None).unwrap();
        assert!(top.path().join("a/b/c").is_dir());
        std::os::unix::fs::symlink(outside.path(), top.path().join("link")).unwrap();
        assert!(make_directories(top.path(), Path::new("link/made"), None).is_err());
        assert!(!outside.path().join("made").exists());
        assert!(open_beneath(top.path(), Path::new("link")).is_err());
        assert!(open_beneath(top.path(), Path::new("absent")).unwrap().is_none());
        assert!(open_beneath(top.path(), Path::new("a/b")).unwrap().is_some());
    }

    proptest! {
        /// Whatever is asked for, the place is beneath the sandbox or the container's root, and the same when read again.
        #[test]
        fn no_path_leads_upwards(path in "[a./]{0,12}") {
            if let Ok(found) = plain(&path) {
                prop_assert!(found.is_relative() && found.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert_eq!(plain(found.to_str().unwrap()).unwrap(), found);
            } else {
                prop_assert!(path.split('/').any(|part| part == "..") || path.split('/').all(|part| part.is_empty() || part == "."));
            }
        }
    }
}
