//! Volumes that isolators ask for, in the shim's words.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use tepui_api::v1::Image;
use tepui_images::RootFs;
use tepui_isolators::{Contribution, VolumeMount, VolumeSource, VolumeTarget};
use tepui_shim::{Secrets, VolumePlan};

use super::layout::Dirs;

/// The images among the volumes, by their place.
pub(super) fn images(contribution: &Contribution) -> impl Iterator<Item = (usize, &Image)> {
    contribution.volumes.iter().enumerate().filter_map(|(number, volume)| match &volume.source {
        VolumeSource::Image(image) => Some((number, &**image)),
        VolumeSource::Host(_) | VolumeSource::Beneath { .. } | VolumeSource::Secret(_) => None,
    })
}

/// What the shim is told of volumes, and what it is told of secrets beside. `sandbox` is as the container sees it; makes directories for
/// volumes that are images and can be written to.
pub(super) fn plans(
    contribution: &Contribution,
    images: &HashMap<usize, RootFs>,
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
            VolumeSource::Image(_) => tepui_shim::VolumeSource::Layers {
                lowers: images.get(&number).map(|image| image.lower().to_vec()).unwrap_or_default(),
                writable: match volume.read_only {
                    true => None,
                    false => Some(dirs.make_volume_overlay(number)?),
                },
            },
            VolumeSource::Secret(value) => {
                secrets.files.push(value.expose().to_vec());
                tepui_shim::VolumeSource::Secret { number: secrets.files.len() - 1 }
            }
        };
        plans.push(plan(volume, source, sandbox));
    }
    Ok((plans, secrets))
}

fn plan(volume: &VolumeMount, source: tepui_shim::VolumeSource, sandbox: &Path) -> VolumePlan {
    let (base, target, create) = match &volume.target {
        VolumeTarget::Sandbox(path) => (Some(sandbox.to_owned()), path.clone(), true),
        VolumeTarget::Made(path) => (None, path.clone(), true),
        VolumeTarget::Existing(path) => (None, path.clone(), false),
    };
    VolumePlan { source, base, target, create, read_only: volume.read_only, shared: volume.shared }
}
