//! `volume/sandbox_path`: a directory of a sandbox at another place of the container.
//!
//! With SELF, the container's own sandbox at an absolute path (a relative one would be a link, which the task can make itself); with
//! PARENT, a nested container has a part of its parent's. What does not exist is made and belongs to whom the sandbox belongs to. No
//! link leads out of the sandbox. Always there with `filesystem/linux`. Rules: Mesos' `docs/container-volume.md`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::unistd::{Gid, Uid};

use super::table::Table;
use super::volumes::{Kind, make_directories, mount, open_beneath, plain, volumes};
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Recovered, done,
};
use crate::volume::VolumeSource;

#[derive(Default)]
struct VolumeSandboxPath {
    sandboxes: Table<PathBuf>,
}

pub(crate) fn make(_: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    Ok(Arc::new(VolumeSandboxPath::default()))
}

impl VolumeSandboxPath {
    fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        self.sandboxes.insert(&context.container_id, context.sandbox.clone());
        for volume in volumes(context) {
            let (volume, Kind::SandboxPath { path, of_parent }) = volume? else { continue };
            let path = plain(path)?;
            let top = match of_parent {
                true => self.sandbox_of_parent(context)?,
                false if volume.container_path.starts_with('/') => context.sandbox.clone(),
                false => {
                    return Err(IsolatorError::Refused(format!(
                        "the container path '{}' of a SANDBOX_PATH volume of type SELF must be absolute: within the \
                         sandbox, the task can make a link",
                        volume.container_path
                    )));
                }
            };
            make_source(&top, &path).map_err(|error| {
                IsolatorError::Failed(format!(
                    "{} cannot be had for a volume in the sandbox: {error}",
                    path.display()
                ))
            })?;
            contribution.volumes.push(mount(volume, VolumeSource::Beneath { top, path }, context)?);
        }
        Ok(())
    }

    fn sandbox_of_parent(&self, context: &ContainerContext) -> Result<PathBuf, IsolatorError> {
        let Some(parent) = &context.container_id.parent else {
            return Err(IsolatorError::Refused(
                "a SANDBOX_PATH volume of type PARENT is for nested containers: this one has no parent"
                    .to_owned(),
            ));
        };
        self.sandboxes.with(parent, |sandbox| sandbox.clone())
    }
}

fn make_source(top: &Path, path: &Path) -> std::io::Result<()> {
    if open_beneath(top, path)?.is_some() {
        return Ok(());
    }
    let owner = top.metadata()?;
    make_directories(top, path, Some((Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()))))
}

impl Isolator for VolumeSandboxPath {
    fn name(&self) -> &str {
        "volume/sandbox_path"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        for one in known {
            self.sandboxes.insert(&one.context.container_id, one.context.sandbox.clone());
        }
        done(Ok(()))
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        done(VolumeSandboxPath::prepare(self, context, contribution))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        self.sandboxes.remove(id);
        done(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tepui_api::v1::volume::source::sandbox_path::Type as Whose;
    use tepui_api::v1::volume::source::{SandboxPath, Type};
    use tepui_api::v1::volume::{Mode, Source};
    use tepui_api::v1::{ContainerInfo, Volume};

    use super::super::tests::context;
    use super::*;
    use crate::volume::{VolumeMount, VolumeTarget};

    fn volume(whose: Whose, path: &str, container_path: &str) -> Volume {
        let source = Source {
            r#type: Some(Type::SandboxPath.into()),
            sandbox_path: Some(SandboxPath { r#type: Some(whose.into()), path: path.to_owned() }),
            ..Source::default()
        };
        Volume {
            mode: Mode::Ro.into(),
            container_path: container_path.to_owned(),
            source: Some(source),
            ..Volume::default()
        }
    }

    fn prepared(
        isolator: &VolumeSandboxPath,
        id: ContainerId,
        sandbox: &Path,
        volume: Volume,
    ) -> Result<Vec<VolumeMount>, IsolatorError> {
        let info = ContainerInfo { volumes: vec![volume], ..ContainerInfo::default() };
        let context = ContainerContext {
            container_id: id,
            sandbox: sandbox.to_owned(),
            has_rootfs: true,
            ..context(Some(info))
        };
        let mut contribution = Contribution::default();
        isolator.prepare(&context, &mut contribution).map(|()| contribution.volumes)
    }

    #[test]
    fn a_part_of_the_own_sandbox_is_made_and_mounted() {
        let sandbox = tempfile::tempdir().unwrap();
        let isolator = VolumeSandboxPath::default();
        let id = || ContainerId::new("c");
        let mounts =
            prepared(&isolator, id(), sandbox.path(), volume(Whose::Self_, "data/x", "/data")).unwrap();
        let [VolumeMount { source, target, read_only: true, shared: false }] = &mounts[..] else {
            unreachable!("{mounts:?}")
        };
        assert_eq!(*target, VolumeTarget::Made("/data".into()));
        assert_eq!(*source, VolumeSource::Beneath { top: sandbox.path().into(), path: "data/x".into() });
        assert!(sandbox.path().join("data/x").is_dir());
        for (path, at) in [("data", "relative"), ("../x", "/data"), ("", "/data")] {
            assert!(
                prepared(&isolator, id(), sandbox.path(), volume(Whose::Self_, path, at)).is_err(),
                "{path} {at}"
            );
        }
        std::os::unix::fs::symlink("/etc", sandbox.path().join("etc")).unwrap();
        assert!(prepared(&isolator, id(), sandbox.path(), volume(Whose::Self_, "etc", "/data")).is_err());
    }

    #[test]
    fn a_nested_container_may_have_a_part_of_its_parents() {
        let (outer, inner) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let isolator = VolumeSandboxPath::default();
        let shared = || volume(Whose::Parent, "shared", "shared");
        let top = ContainerId::new("outer");
        assert!(prepared(&isolator, top.clone(), outer.path(), shared()).is_err(), "it has no parent");
        let nested = ContainerId { parent: Some(Box::new(top)), ..ContainerId::new("inner") };
        let mounts = prepared(&isolator, nested, inner.path(), shared()).unwrap();
        assert_eq!(
            mounts[0].source,
            VolumeSource::Beneath { top: outer.path().into(), path: "shared".into() }
        );
        assert!(outer.path().join("shared").is_dir());
        let stranger =
            ContainerId { parent: Some(Box::new(ContainerId::new("gone"))), ..ContainerId::new("inner") };
        assert!(prepared(&isolator, stranger, inner.path(), shared()).is_err());
    }
}
