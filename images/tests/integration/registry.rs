//! Against Debian's `docker-registry`, `skopeo` and `umoci`.

use serde_json::json;
use std::os::unix::fs::MetadataExt as _;
use tepui_images::{Digest, Error, Phase, PullOptions};

use crate::support::image::{Built, Compression, Layer, build, noise, sample};
use crate::support::registry::Registry;
use crate::support::{Temp, anew, assert_orderly, assert_whole, open, recorder, reference, run};

#[tokio::test(flavor = "multi_thread")]
async fn what_skopeo_pushes_is_pulled_back() {
    let temp = Temp::new();
    let registry = Registry::start();
    let layout = temp.path().join("layout");
    let image = sample(1);
    image.write_layout(&layout, "1");
    let source = format!("oci:{}:1", layout.display());
    run(
        "skopeo",
        &[
            "copy",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &source,
            &format!("docker://{}/team/app:1", registry.address),
        ],
    );

    let store = open(&temp.path().join("store"), &registry.url());
    let (progress, heard) = recorder();
    let pulled = store
        .pull(&reference("team/app:1"), PullOptions { progress: Some(progress), ..PullOptions::default() })
        .await
        .unwrap();
    assert_eq!((&pulled.id, pulled.manifest.as_ref()), (&image.config, Some(&image.manifest)));
    assert_eq!(pulled.layers.len(), 3);
    for (index, layer) in pulled.layers.iter().enumerate() {
        assert_eq!(layer.path.join(format!("file{index}")).metadata().unwrap().len(), 300_000);
    }
    let config = &pulled.config;
    assert_eq!(
        (config.entrypoint[0].as_str(), config.user.as_str(), config.working_dir.as_str()),
        ("/bin/busybox", "app", "/srv")
    );
    {
        let heard = heard.lock().unwrap();
        assert_orderly(&heard);
        assert_eq!(heard.iter().filter(|progress| progress.phase == Phase::Done).count(), 3);
    }
    assert_whole(&temp.path().join("store"));

    // The same by an explicit registry and by digest; nothing is fetched again.
    let (progress, heard) = recorder();
    let text = format!("{}/team/app@{}", registry.address, image.manifest);
    let again = store
        .pull(&reference(&text), PullOptions { progress: Some(progress), ..PullOptions::default() })
        .await
        .unwrap();
    assert_eq!(again.layers, pulled.layers);
    assert!(
        heard
            .lock()
            .unwrap()
            .iter()
            .all(|progress| matches!(progress.phase, Phase::Waiting | Phase::Present))
    );
    let names: Vec<_> = store.list().unwrap().into_iter().map(|image| image.name).collect();
    assert_eq!(
        names,
        [
            format!("http://{}/team/app:1", registry.address),
            format!("http://{}/team/app@{}", registry.address, image.manifest)
        ]
    );

    // Once it is here, the registry is not needed any more, even by another process.
    drop(registry);
    let other = open(&temp.path().join("store"), "https://registry-1.docker.io");
    assert_eq!(other.pull(&reference(&text), PullOptions::default()).await.unwrap().id, image.config);
}

#[tokio::test(flavor = "multi_thread")]
async fn dockers_manifests_and_several_platforms_are_understood() {
    let temp = Temp::new();
    let registry = Registry::start();
    let layout = temp.path().join("layout");
    let image = build(&[(Layer::default().file("hello", b"hi"), Compression::Gzip)], json!({"Cmd": ["x"]}));
    image.write_layout(&layout, "1");
    let source = format!("oci:{}:1", layout.display());
    run(
        "skopeo",
        &[
            "copy",
            "--format",
            "v2s2",
            "--dest-tls-verify=false",
            &source,
            &format!("docker://{}/app:docker", registry.address),
        ],
    );
    let store = open(&temp.path().join("store"), &registry.url());
    let docker = store.pull(&reference("app:docker"), PullOptions::default()).await.unwrap();
    assert_eq!(std::fs::read(docker.layers[0].path.join("hello")).unwrap(), b"hi");
    assert_ne!(docker.manifest.as_ref(), Some(&image.manifest));

    // An index with another platform before this machine's.
    let other = build(&[(Layer::default().file("hello", b"wrong"), Compression::Gzip)], json!({}));
    let architecture = tepui_images::Platform::host().architecture;
    let index =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
            other.descriptor(json!({"platform": {"os": "linux", "architecture": "s390x"}})),
            image.descriptor(json!({"platform": {"os": "linux", "architecture": architecture}})),
        ]})
        .to_string();
    let digest = Digest::of(index.as_bytes());
    let mut all = image.clone();
    all.blobs.extend(other.blobs.clone());
    all.blobs.insert(digest.clone(), index.clone().into_bytes());
    let several = temp.path().join("several");
    all.write_layout_of(
        &several,
        json!([{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest, "size": index.len(), "annotations": {"org.opencontainers.image.ref.name": "all"}}]),
    );
    run(
        "skopeo",
        &[
            "copy",
            "--all",
            "--dest-tls-verify=false",
            &format!("oci:{}:all", several.display()),
            &format!("docker://{}/app:all", registry.address),
        ],
    );
    let chosen = store.pull(&reference("app:all"), PullOptions::default()).await.unwrap();
    assert_eq!(chosen.manifest.as_ref(), Some(&image.manifest));
    let from_disk = store.pull(&reference(several.to_str().unwrap()), PullOptions::default()).await.unwrap();
    assert_eq!(from_disk.id, image.config);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said() {
    let temp = Temp::new();
    let registry = Registry::start();
    let store = open(temp.path(), &registry.url());
    let error = store.pull(&reference("absent:1"), PullOptions::default()).await.unwrap_err();
    assert!(matches!(*error, Error::NotFound { .. }), "{error}");
    let address = registry.address.clone();
    drop(registry);
    let error =
        store.pull(&reference(&format!("{address}/absent:1")), PullOptions::default()).await.unwrap_err();
    assert!(error.to_string().contains("attempts") && error.to_string().contains("refused"), "{error}");
    assert!(store.list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moved_is_seen_when_the_cache_is_not_good_enough() {
    let temp = Temp::new();
    let registry = Registry::start();
    let push = |seed: u64| {
        let layout = temp.path().join(format!("layout{seed}"));
        let image = sample(seed);
        image.write_layout(&layout, "1");
        run(
            "skopeo",
            &[
                "copy",
                "--dest-tls-verify=false",
                &format!("oci:{}:1", layout.display()),
                &format!("docker://{}/app:1", registry.address),
            ],
        );
        image.config
    };
    let store = open(&temp.path().join("store"), &registry.url());
    let app = reference("app:1");
    let first = push(2);
    assert_eq!(store.pull(&app, PullOptions::default()).await.unwrap().id, first);
    let second = push(3);
    assert_eq!(store.pull(&app, PullOptions::default()).await.unwrap().id, first);
    assert_eq!(store.pull(&app, anew()).await.unwrap().id, second);
    assert_eq!(store.pull(&app, PullOptions::default()).await.unwrap().id, second);
}

/// Three layers of a compression that Docker's format allows.
fn gzipped(seed: u64) -> Built {
    let layer = |index: u64| {
        (
            Layer::default().file(&format!("file{index}"), &noise(seed * 10 + index, 100_000)),
            Compression::Gzip,
        )
    };
    build(&[layer(0), layer(1), layer(2)], json!({"Entrypoint": ["/bin/busybox"]}))
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_by_skopeo_are_images_too() {
    let temp = Temp::new();
    let path = |name: &str| temp.path().join(name).display().to_string();
    let layout = temp.path().join("layout");
    let image = gzipped(4);
    image.write_layout(&layout, "1");
    let source = format!("oci:{}:1", layout.display());
    let archives = temp.path().join("archives");
    std::fs::create_dir(&archives).unwrap();
    // docker-archive writes what `docker save` wrote for years: links for layers, and the names of layers by hand.
    run("skopeo", &["copy", &source, &format!("docker-archive:{}:app:1", path("saved.tar"))]);
    run("skopeo", &["copy", &source, &format!("oci-archive:{}:1", path("oci.tar"))]);
    std::fs::copy(path("saved.tar"), archives.join("app:1.tar")).unwrap();
    std::fs::copy(path("saved.tar"), archives.join("latest-only.tar")).unwrap();
    run("gzip", &["-k", &path("saved.tar")]);

    let store = open(&temp.path().join("store"), archives.to_str().unwrap());
    let mut pulled = Vec::new();
    for name in ["/saved.tar", "/saved.tar.gz", "/oci.tar", "/layout", "/layout:1", "/saved.tar:1"]
        .map(|name| format!("{}{name}", temp.path().display()))
        .iter()
        .map(String::as_str)
        .chain(["app:1", "latest-only"])
    {
        let (progress, heard) = recorder();
        let image = store
            .pull(&reference(name), PullOptions { progress: Some(progress), ..PullOptions::default() })
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_orderly(&heard.lock().unwrap());
        assert_eq!(image.config.entrypoint, ["/bin/busybox"], "{name}");
        pulled.push(image);
    }
    // The same layers all the time, unpacked once.
    assert!(pulled.iter().all(|image| image.layers == pulled[0].layers));
    assert_eq!(std::fs::read_dir(temp.path().join("store/layers")).unwrap().count(), 3);
    assert_whole(&temp.path().join("store"));
    let error = store.pull(&reference("absent:2"), PullOptions::default()).await.unwrap_err().to_string();
    assert!(error.contains("absent:2.tar"), "{error}");

    // A file that was replaced is read again, though the store knows its name.
    let other = gzipped(5);
    let other_layout = temp.path().join("other");
    other.write_layout(&other_layout, "1");
    std::fs::remove_file(path("oci.tar")).unwrap();
    run(
        "skopeo",
        &[
            "copy",
            &format!("oci:{}:1", other_layout.display()),
            &format!("oci-archive:{}:1", path("oci.tar")),
        ],
    );
    assert_eq!(
        store.pull(&reference(&path("oci.tar")), PullOptions::default()).await.unwrap().id,
        other.config
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_by_umoci_runs_from_its_layers() {
    let temp = Temp::new();
    let layout = temp.path().join("layout").display().to_string();
    let bundle = temp.path().join("bundle");
    let image = format!("{layout}:1");
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &image]);
    run("umoci", &["unpack", "--image", &image, bundle.to_str().unwrap()]);
    std::fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
    std::fs::copy("/bin/busybox", bundle.join("rootfs/bin/busybox"))
        .expect("busybox; install it: apt-get install busybox-static");
    std::os::unix::fs::chown(bundle.join("rootfs/bin/busybox"), Some(7), Some(8)).unwrap();
    run("umoci", &["repack", "--image", &image, bundle.to_str().unwrap()]);
    run(
        "umoci",
        &[
            "config",
            "--image",
            &image,
            "--config.entrypoint",
            "/bin/busybox",
            "--config.cmd",
            "echo",
            "--config.env",
            "A=1",
            "--config.user",
            "7:8",
        ],
    );

    let store = open(&temp.path().join("store"), "https://registry-1.docker.io");
    let pulled = store.pull(&reference(&layout), PullOptions::default()).await.unwrap();
    let busybox = pulled.layers.last().unwrap().path.join("bin/busybox");
    let metadata = busybox.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (7, 8));
    assert_eq!(run(busybox.to_str().unwrap(), &["echo", "hello"]), "hello\n");
    assert_eq!(
        (pulled.config.user.as_str(), pulled.config.env.last().map(String::as_str)),
        ("7:8", Some("A=1"))
    );
}
