//! The directories that make up an image's root file system.
//!
//! The mount is made by whoever launches the container; this says what goes into it. The upper directory
//! decides the mode and owner of `/`: 0755 and root, as Docker has it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// `OVL_MAX_STACK` of the Linux kernel.
const MAX_LOWER: usize = 500;

/// An unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPath {
    /// The digest of the layer's plain tar.
    pub diff_id: Digest,
    /// A short path to its directory, in the form overlayfs wants of a lower layer: whiteouts are character devices
    /// 0:0, opaque directories have the attribute `trusted.overlay.opaque`.
    pub path: PathBuf,
}

/// What to stack. Read-only, and shared by all containers of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootFs {
    lower: Vec<PathBuf>,
}

/// Why a root file system cannot be had.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RootFsError {
    /// Too many layers for the kernel.
    #[error("the image has {layers} layers; overlayfs stacks at most {MAX_LOWER}")]
    TooManyLayers {
        /// Different layers of the image.
        layers: usize,
    },
}

// === impl RootFs ===

impl RootFs {
    /// `layers` are lowest first; `empty` serves an image without any, since overlayfs wants at least one.
    pub(crate) fn new(layers: &[LayerPath], empty: &Path) -> Result<Self, RootFsError> {
        let mut lower: Vec<PathBuf> = Vec::with_capacity(layers.len());
        for layer in layers.iter().rev() {
            // overlayfs refuses to stack a directory twice. The topmost decides: it brings back all that layers between hid.
            if !lower.contains(&layer.path) {
                lower.push(layer.path.clone());
            }
        }
        if lower.len() > MAX_LOWER {
            return Err(RootFsError::TooManyLayers { layers: lower.len() });
        }
        if lower.is_empty() {
            return Ok(Self::empty(empty));
        }
        Ok(Self { lower })
    }

    /// One without layers.
    pub(crate) fn empty(empty: &Path) -> Self {
        Self { lower: vec![empty.to_owned()] }
    }

    /// One that was stacked before, topmost first. `None` without any.
    #[must_use]
    pub fn of_directories(lower: Vec<PathBuf>) -> Option<Self> {
        (!lower.is_empty()).then_some(Self { lower })
    }

    /// The lower directories, topmost first as overlayfs wants them. Never empty.
    ///
    /// With `fsconfig`, each can be given by itself as `lowerdir+` (Linux 6.5), without escaping or limits of length.
    pub fn lower(&self) -> &[PathBuf] {
        &self.lower
    }

    /// The value of overlayfs' `lowerdir` option: the directories separated by `:`, with what has a meaning escaped.
    ///
    /// `mount` takes at most a page of options (4096 bytes); the paths are short so that a hundred layers fit.
    pub fn lowerdir_option(&self) -> OsString {
        let mut option = Vec::new();
        for (index, path) in self.lower.iter().enumerate() {
            if index > 0 {
                option.push(b':');
            }
            for byte in path.as_os_str().as_bytes() {
                if matches!(byte, b':' | b'\\' | b',') {
                    option.push(b'\\');
                }
                option.push(*byte);
            }
        }
        OsString::from_vec(option)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> LayerPath {
        LayerPath { diff_id: Digest::of(name.as_bytes()), path: PathBuf::from("/s/l").join(name) }
    }

    #[test]
    fn layers_are_stacked_topmost_first_and_once() {
        let root = RootFs::new(&[layer("a"), layer("b"), layer("a")], Path::new("/s/empty")).unwrap();
        assert_eq!(root.lower(), [PathBuf::from("/s/l/a"), PathBuf::from("/s/l/b")]);
        assert_eq!(root.lowerdir_option(), "/s/l/a:/s/l/b");
        assert_eq!(RootFs::new(&[], Path::new("/s/empty")).unwrap().lower(), [PathBuf::from("/s/empty")]);
        assert_eq!(RootFs::new(&[], Path::new("/s:,\\")).unwrap().lowerdir_option(), "/s\\:\\,\\\\");
        let many: Vec<_> = (0..501).map(|index| layer(&index.to_string())).collect();
        assert_eq!(RootFs::new(&many, Path::new("/")), Err(RootFsError::TooManyLayers { layers: 501 }));
    }
}
