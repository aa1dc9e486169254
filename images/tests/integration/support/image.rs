//! Images made by hand: tars, configs, manifests, OCI layouts.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use tar::{EntryType, Header};
use tepui_images::{Digest, Platform};

/// A layer's tar in the making.
#[derive(Default, Clone)]
pub struct Layer {
    bytes: Vec<u8>,
}

/// Mode, owner and time of a member.
#[derive(Clone, Copy)]
pub struct Attributes {
    pub mode: u32,
    pub owner: u32,
    pub modified: u64,
}

pub const PLAIN: Attributes = Attributes { mode: 0o644, owner: 0, modified: 1_500_000_000 };

impl Layer {
    pub fn member(
        mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        attributes: Attributes,
        content: &[u8],
    ) -> Self {
        let mut header = Header::new_ustar();
        header.set_path(name).unwrap();
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        header.set_entry_type(kind);
        header.set_mode(attributes.mode);
        header.set_uid(attributes.owner.into());
        header.set_gid(attributes.owner.into());
        header.set_mtime(attributes.modified);
        header.set_size(content.len() as u64);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// With another name for the only member, of the same length.
    pub fn renamed(mut self, name: &str) -> Self {
        self.bytes[..name.len()].copy_from_slice(name.as_bytes());
        // The sum of all bytes, with the sum's own taken for blanks.
        let sum: u32 = self.bytes[..512]
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        self.bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self
    }

    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.member(EntryType::Regular, name, "", PLAIN, content)
    }

    pub fn program(self, name: &str, content: &[u8]) -> Self {
        self.member(EntryType::Regular, name, "", Attributes { mode: 0o755, ..PLAIN }, content)
    }

    pub fn directory(self, name: &str, attributes: Attributes) -> Self {
        self.member(EntryType::Directory, name, "", attributes, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Symlink, name, target, Attributes { mode: 0o777, ..PLAIN }, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Link, name, target, PLAIN, b"")
    }

    /// Attributes of the member that comes next.
    pub fn xattr(self, name: &str, value: &[u8]) -> Self {
        let body = [b"SCHILY.xattr.", name.as_bytes(), b"=", value, b"\n"].concat();
        let length = (1..)
            .map(|digits| body.len() + 1 + digits)
            .find(|length| body.len() + 1 + length.to_string().len() == *length)
            .unwrap();
        let record = [length.to_string().as_bytes(), b" ", &body].concat();
        self.member(EntryType::XHeader, "pax", "", PLAIN, &record)
    }

    pub fn tar(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[derive(Clone, Copy)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    fn apply(self, plain: Vec<u8>) -> (Vec<u8>, &'static str) {
        match self {
            Self::None => (plain, "application/vnd.oci.image.layer.v1.tar"),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&plain).unwrap();
                (encoder.finish().unwrap(), "application/vnd.oci.image.layer.v1.tar+gzip")
            }
            Self::Zstd => (
                zstd::encode_all(plain.as_slice(), 1).unwrap(),
                "application/vnd.oci.image.layer.v1.tar+zstd",
            ),
        }
    }
}

/// An OCI image as blobs by digest.
#[derive(Clone)]
pub struct Built {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub manifest: Digest,
    pub config: Digest,
    /// Digests of the layers' blobs, lowest first.
    pub layers: Vec<Digest>,
}

/// Makes an image of these layers, with `config` as its runtime configuration.
pub fn build(layers: &[(Layer, Compression)], config: Value) -> Built {
    let mut blobs = BTreeMap::new();
    let mut add = |content: Vec<u8>, media_type: &str| {
        let digest = Digest::of(&content);
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
        blobs.insert(digest.clone(), content);
        (digest, descriptor)
    };
    let mut diff_ids = Vec::new();
    let mut digests = Vec::new();
    let mut descriptors = Vec::new();
    for (layer, compression) in layers {
        let tar = layer.tar();
        diff_ids.push(Digest::of(&tar));
        let (blob, media_type) = compression.apply(tar);
        let (digest, descriptor) = add(blob, media_type);
        digests.push(digest);
        descriptors.push(descriptor);
    }
    let platform = Platform::host();
    let document = json!({"architecture": platform.architecture, "os": platform.os, "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let (config, config_descriptor) =
        add(document.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config_descriptor, "layers": descriptors});
    let (manifest, _) = add(manifest.to_string().into_bytes(), "");
    Built { blobs, manifest, config, layers: digests }
}

impl Built {
    /// Writes an OCI layout in which the image has the tag `tag`.
    pub fn write_layout(&self, directory: &Path, tag: &str) {
        self.write_layout_of(
            directory,
            json!([self.descriptor(json!({"annotations": {"org.opencontainers.image.ref.name": tag}}))]),
        );
    }

    pub fn write_layout_of(&self, directory: &Path, manifests: Value) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        std::fs::write(
            directory.join("index.json"),
            json!({"schemaVersion": 2, "manifests": manifests}).to_string(),
        )
        .unwrap();
        for (digest, content) in &self.blobs {
            std::fs::write(blobs.join(digest.hex()), content).unwrap();
        }
    }

    /// The manifest's descriptor, with further fields.
    pub fn descriptor(&self, more: Value) -> Value {
        let mut descriptor = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": self.manifest, "size": self.blobs[&self.manifest].len()});
        descriptor.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        descriptor
    }
}

/// Three layers, one of each compression, of some size.
pub fn sample(seed: u64) -> Built {
    let layer = |index: u64, compression| {
        (Layer::default().file(&format!("file{index}"), &noise(seed * 10 + index, 300_000)), compression)
    };
    build(
        &[layer(0, Compression::Gzip), layer(1, Compression::Zstd), layer(2, Compression::None)],
        json!({"Entrypoint": ["/bin/busybox"], "Cmd": ["sh"], "Env": ["PATH=/bin", "A=b=c"], "User": "app", "WorkingDir": "/srv", "StopSignal": "SIGINT",
               "Labels": {"k": "v"}, "Volumes": {"/data": {}}, "ExposedPorts": {"80/tcp": {}}}),
    )
}
