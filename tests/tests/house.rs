//! How the house is built: nothing to install before it builds, and dependencies that run one way.

#![allow(clippy::unwrap_used, reason = "a failed assumption is a failed test")]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tepui_tests::{cargo_metadata, repository};

/// Crates that link a C library which they build themselves, from source in the crate; nothing is to be installed.
const BUNDLED: &[(&str, &str)] = &[
    ("ring_core_*", "assembly and C of ring, compiled by cc; rustls' cryptography"),
    ("zstd", "the zstd source is in zstd-sys"),
];

/// Which crates of the workspace each may use: cli → agent, coordinator → isolators, images → api.
const MAY_USE: &[(&str, &[&str])] = &[
    ("tepui-api", &[]),
    ("tepui-shim", &["tepui-api"]),
    ("tepui-images", &["tepui-api", "tepui-shim"]),
    ("tepui-isolators", &["tepui-api", "tepui-shim"]),
    ("tepui-zookeeper", &["tepui-api"]),
    ("tepui-server", &[]),
    ("tepui-coordinator", &["tepui-api", "tepui-zookeeper"]),
    (
        "tepui-agent",
        &["tepui-api", "tepui-zookeeper", "tepui-shim", "tepui-isolators", "tepui-images", "tepui-server"],
    ),
];

fn packages(metadata: &Value) -> BTreeMap<&str, &Value> {
    let all = metadata["packages"].as_array().unwrap();
    all.iter().map(|package| (package["id"].as_str().unwrap(), package)).collect()
}

/// Ids of everything that is compiled into the binary or runs while it is built; without what only tests use.
fn needed_by<'a>(metadata: &'a Value, root: &str) -> BTreeSet<&'a str> {
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    let by_id: BTreeMap<&str, &Value> =
        nodes.iter().map(|node| (node["id"].as_str().unwrap(), node)).collect();
    let packages = packages(metadata);
    let start = packages.iter().find(|(_, package)| package["name"] == root).map(|(id, _)| *id).unwrap();
    let mut seen = BTreeSet::from([start]);
    let mut open = vec![start];
    while let Some(id) = open.pop() {
        for dependency in by_id[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            let only_dev = kinds.iter().all(|kind| kind["kind"] == "dev");
            let id = dependency["pkg"].as_str().unwrap();
            if !only_dev && seen.insert(id) {
                open.push(id);
            }
        }
    }
    seen
}

#[test]
fn no_crate_links_a_c_library_that_must_be_installed() {
    let metadata = cargo_metadata();
    let packages = packages(&metadata);
    let mut strange = Vec::new();
    for id in needed_by(&metadata, "tepui") {
        let (name, links) = (packages[id]["name"].as_str().unwrap(), &packages[id]["links"]);
        let Some(library) = links.as_str() else { continue };
        let bundled = BUNDLED.iter().any(|(pattern, _)| match pattern.strip_suffix('*') {
            Some(start) => library.starts_with(start),
            None => library == *pattern,
        });
        // `links` is also how crates without any C give information to their dependents' build scripts.
        let no_library = ["rayon-core", "prettyplease", "wasm_bindgen", "prettyplease02"].contains(&library);
        if !bundled && !no_library {
            strange.push(format!("{name} links {library}"));
        }
    }
    assert!(strange.is_empty(), "{strange:?}: each may need a C library to be installed first");
}

#[test]
fn known_bindings_of_c_libraries_are_not_among_the_dependencies() {
    let metadata = cargo_metadata();
    let packages = packages(&metadata);
    let needed = needed_by(&metadata, "tepui");
    let names: BTreeSet<&str> = needed.iter().map(|id| packages[id]["name"].as_str().unwrap()).collect();
    for name in [
        "openssl-sys",
        "native-tls",
        "libseccomp-sys",
        "libseccomp",
        "libdbus-sys",
        "protobuf-src",
        "bindgen",
        "aws-lc-sys",
        "libz-sys",
        "lzma-sys",
    ] {
        assert!(
            !names.contains(name),
            "{name} is a dependency of tepui; `cargo tree -p tepui -i {name}` tells through whom"
        );
    }
    assert!(names.contains("tokio") && names.contains("prost"), "the walk sees what there is");
}

#[test]
fn dependencies_run_one_way() {
    let metadata = cargo_metadata();
    let mut found = 0;
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let Some((_, allowed)) = MAY_USE.iter().find(|(of, _)| *of == name) else { continue };
        found += 1;
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            let ours = to.starts_with("tepui") && dependency["kind"] != "dev";
            assert!(!ours || allowed.contains(&to), "{name} must not depend on {to}");
        }
    }
    assert_eq!(found, MAY_USE.len(), "a crate of the table is gone");
}

#[test]
fn every_rust_file_opens_with_its_page_and_is_short() {
    let mut bad = Vec::new();
    let mut open = vec![repository()];
    let mut seen = 0;
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    open.push(path);
                }
            } else if name.ends_with(".rs") {
                seen += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = text.lines().count();
                let page = text.starts_with("//!") || name.ends_with("tests.rs");
                if !page || lines > 1000 {
                    bad.push(format!(
                        "{}: {lines} lines, opens with {:?}",
                        path.display(),
                        text.lines().next()
                    ));
                }
            }
        }
    }
    assert!(seen > 20, "the walk sees what there is");
    assert!(bad.is_empty(), "files open with a `//!` page and tell one story: {bad:#?}");
}
