//! An OCI layout made by hand, with a static busybox.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tepui_images::Digest;

/// Makes an image with busybox in `dir`, whose configuration is `config`. Gives the layout's path.
pub fn busybox(dir: &Path, config: &Value) -> PathBuf {
    let tree = dir.join("tree");
    for part in ["bin", "etc", "tmp", "srv"] {
        fs::create_dir_all(tree.join(part)).unwrap();
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("these tests need the package busybox-static");
    for name in ["sh", "cat", "ls", "id", "env", "pwd", "test", "touch", "echo", "stat", "mount"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(name)).unwrap();
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nimaginary:x:4242:4343::/:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/group"), "root:x:0:\nimagined:x:4343:\nextra:x:4444:imaginary\n").unwrap();
    // Where it leads is not in the image.
    std::os::unix::fs::symlink("/run/systemd/resolve/stub-resolv.conf", tree.join("etc/resolv.conf"))
        .unwrap();

    let layout = dir.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let tar = dir.join("layer.tar");
    let packed = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&tree).arg(".").status().unwrap();
    assert!(packed.success());
    let layer = fs::read(&tar).unwrap();
    let diff_id = Digest::of(&layer).to_string();
    let layer = blob(&layout, "application/vnd.oci.image.layer.v1.tar", &layer);
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let document = json!({
        "architecture": arch, "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    let config = blob(&layout, "application/vnd.oci.image.config.v1+json", document.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer] });
    let manifest = blob(&layout, media_type, manifest.to_string().as_bytes());
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string())
        .unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes).to_string();
    let (algorithm, hex) = digest.split_once(':').unwrap();
    fs::write(layout.join("blobs").join(algorithm).join(hex), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
}
