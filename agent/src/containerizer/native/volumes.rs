//! Volumes that isolators ask for, in the shim's words.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use tepui_api::v1::Image;
use tepui_images::RootFs;
use tepui_isolators::{Contribution, VolumeMount, VolumeSource, VolumeTarget};
use tepui_shim::{Secrets, VolumePlan};

use super::backend::CopyPlan;
use super::layout::Dirs;
use crate::flags::ImageBackend;

/// The images among the volumes, by their place.
pub(super) fn images(contribution: &Contribution) -> impl Iterator<Item = (usize, &Image)> {
    contribution.volumes.iter().enumerate().filter_map(|(number, volume)| match &volume.source {
        VolumeSource::Image(image) => Some((number, &**image)),
        VolumeSource::Host(_) | VolumeSource::Beneath { .. } | VolumeSource::Secret(_) => None,
    })
}

/// What the containerizer knows of volumes that are images.
pub(super) struct Images<'a> {
    /// Their layers, by their place among all volumes.
    pub layers: &'a HashMap<usize, RootFs>,
    pub backend: ImageBackend,
    /// Receives the copies that are needed.
    pub copies: &'a mut Vec<CopyPlan>,
}

/// What the shim is told of volumes, and what it is told of secrets beside. `sandbox` is as the container sees it; makes directories for
/// volumes that are images and can be written to, or must be copied.
pub(super) fn plans(
    contribution: &Contribution,
    mut images: Images<'_>,
    sandbox: &Path,
    dirs: &Dirs,
) -> Result<(Vec<VolumePlan>, Secrets), (PathBuf, io::Error)> {
    let environment = contribution.secret_environment.iter();
    let mut secrets = Secrets {
        environment: environment.map(|(name, value)| (name.clone(), value.expose().to_vec())).collect(),
        files: Vec::new(),
    };
    let mut plans = Vec::with_capacity(contribution.volumes.len());
    for (number, volume) in contribution.volumes.iter().enumerate() {
        let source = match &volume.source {
            VolumeSource::Host(path) => tepui_shim::VolumeSource::Path { path: path.clone() },
            VolumeSource::Beneath { top, path } => {
                tepui_shim::VolumeSource::Beneath { top: top.clone(), path: path.clone() }
            }
            VolumeSource::Image(_) => images.source(number, volume.read_only, dirs)?,
            VolumeSource::Secret(value) => {
                secrets.files.push(value.expose().to_vec());
                tepui_shim::VolumeSource::Secret { number: secrets.files.len() - 1 }
            }
        };
        plans.push(plan(volume, source, sandbox));
    }
    Ok((plans, secrets))
}

impl Images<'_> {
    fn source(
        &mut self,
        number: usize,
        read_only: bool,
        dirs: &Dirs,
    ) -> Result<tepui_shim::VolumeSource, (PathBuf, io::Error)> {
        let Some(image) = self.layers.get(&number) else {
            return Ok(tepui_shim::VolumeSource::Layers { lowers: Vec::new(), writable: None });
        };
        let lowers = image.lower().to_vec();
        let writable = match (self.backend, read_only) {
            // One layer is a directory already, and nobody can write to it.
            (ImageBackend::Copy, true) if lowers.len() == 1 => None,
            (ImageBackend::Copy, _) => {
                let path = dirs.make_volume_copy(number)?;
                self.copies.push(CopyPlan { layers: image.clone(), target: path.clone() });
                return Ok(tepui_shim::VolumeSource::Path { path });
            }
            (ImageBackend::Overlay, true) => None,
            (ImageBackend::Overlay, false) => Some(dirs.make_volume_overlay(number)?),
        };
        Ok(tepui_shim::VolumeSource::Layers { lowers, writable })
    }
}

fn plan(volume: &VolumeMount, source: tepui_shim::VolumeSource, sandbox: &Path) -> VolumePlan {
    let (base, target, create) = match &volume.target {
        VolumeTarget::Sandbox(path) => (Some(sandbox.to_owned()), path.clone(), true),
        VolumeTarget::Made(path) => (None, path.clone(), true),
        VolumeTarget::Existing(path) => (None, path.clone(), false),
    };
    VolumePlan { source, base, target, create, read_only: volume.read_only, shared: volume.shared }
}
