use super::*;
use crate::config::ImageConfig;

fn diff_id(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

/// A tar with nothing in it, and its digest.
fn empty_layer() -> (Vec<u8>, Expected) {
    let tar = vec![0; 1024];
    let expected = Expected { diff_id: Digest::of(&tar), blob: None };
    (tar, expected)
}

fn install(layout: &Layout) -> Digest {
    let (tar, expected) = empty_layer();
    layout.install_layer(tar.as_slice(), &expected, &UnpackLimits::default()).unwrap();
    expected.diff_id
}

#[test]
fn a_dead_sessions_leftovers_are_removed_and_a_living_ones_kept() {
    let temp = tempfile::tempdir().unwrap();
    let first = Layout::open(temp.path()).unwrap();
    let dead = temp.path().join("staging/1-dead");
    fs::create_dir_all(dead.join("half/root")).unwrap();
    fs::write(dead.join("lock"), "").unwrap();
    fs::create_dir(temp.path().join("staging/2-without-a-lock")).unwrap();
    let second = Layout::open(temp.path()).unwrap();
    assert!(!dead.exists());
    assert!(first.staging().exists() && second.staging().exists());
    assert_eq!(entries(&temp.path().join("staging")).unwrap().len(), 2);
    let staging = first.staging().to_owned();
    drop(first);
    assert!(!staging.exists());
}

#[test]
fn layers_are_installed_once_and_found_again() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout::open(temp.path()).unwrap();
    let other = Layout::open(temp.path()).unwrap();
    let id = install(&layout);
    // The other process comes second, and is content.
    assert_eq!(install(&other), id);
    let path = layout.layer_path(&id).unwrap().path;
    assert!(path.is_dir());
    assert_eq!(path.file_name().unwrap().len(), SHORT);
    assert_eq!(other.layer_path(&id).unwrap().path, path);
    assert_eq!(entries(layout.staging()).unwrap().len(), 1, "only the session's lock remains");
}

#[test]
fn a_link_taken_by_another_layer_makes_a_longer_one() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout::open(temp.path()).unwrap();
    let id = install(&layout);
    std::os::unix::fs::symlink("../layers/other/root", temp.path().join("l").join(&id.hex()[..SHORT]))
        .unwrap();
    let path = layout.layer_path(&id).unwrap().path;
    assert_eq!(path.file_name().unwrap().len(), 2 * SHORT);
    assert!(path.is_dir());
}

#[test]
fn a_refused_layer_leaves_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout::open(temp.path()).unwrap();
    let (tar, mut expected) = empty_layer();
    expected.diff_id = diff_id("another");
    assert!(layout.install_layer(tar.as_slice(), &expected, &UnpackLimits::default()).is_err());
    assert!(!layout.has_layer(&expected.diff_id));
    assert!(entries(&temp.path().join("layers")).unwrap().is_empty());
    assert_eq!(entries(layout.staging()).unwrap().len(), 1);
}

#[test]
fn after_a_boot_only_synced_layers_are_trusted() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout::open(temp.path()).unwrap();
    let id = install(&layout);
    // A restart of the process alone loses nothing.
    drop(layout);
    let layout = Layout::open(temp.path()).unwrap();
    assert!(layout.has_layer(&id));
    // As if it had been unpacked before the last boot.
    let record_path = layout.layer_directory(&id).join("layer.json");
    let rewrite = || {
        let mut record: LayerRecord = records::read(&record_path).unwrap();
        record.boot = "an earlier boot".into();
        fs::write(&record_path, serde_json::to_vec(&record).unwrap()).unwrap();
    };
    rewrite();
    layout.settle().unwrap();
    let layout = Layout::open(temp.path()).unwrap();
    assert!(layout.has_layer(&id), "synced layers stay");
    fs::remove_file(layout.layer_directory(&id).join("durable")).unwrap();
    let layout = Layout::open(temp.path()).unwrap();
    assert!(!layout.has_layer(&id), "others do not");
}

#[test]
fn an_image_counts_only_with_all_its_layers_and_the_same_stamp() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout::open(temp.path()).unwrap();
    let layer = install(&layout);
    let stamp = Stamp::of(&temp.path().join("lock")).unwrap();
    let image =
        ImageRecord { id: diff_id("config"), diff_ids: vec![layer.clone()], config: ImageConfig::default() };
    let reference = ReferenceRecord {
        name: "a".into(),
        image: image.id.clone(),
        manifest: None,
        stamp: Some(stamp.clone()),
    };
    layout.write_image(&image, &reference).unwrap();
    assert_eq!(layout.read_image("a", Some(&stamp)), Some((reference.clone(), image)));
    assert_eq!(layout.read_image("a", None), None);
    assert_eq!(layout.read_image("b", Some(&stamp)), None);
    assert_eq!(layout.references().unwrap(), [reference]);
    fs::remove_dir_all(layout.layer_directory(&layer)).unwrap();
    assert_eq!(layout.read_image("a", Some(&stamp)), None);
}

#[test]
fn a_damaged_record_is_as_good_as_none() {
    let temp = tempfile::tempdir().unwrap();
    let layout = Layout::open(temp.path()).unwrap();
    fs::write(layout.reference_path("a"), "{").unwrap();
    assert_eq!(layout.read_image("a", None), None);
    assert!(layout.references().unwrap().is_empty());
}
