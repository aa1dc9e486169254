use super::*;
use proptest::prelude::*;

fn named(text: &str) -> NamedReference {
    match Reference::parse(text) {
        Ok(Reference::Named(name)) => name,
        other => panic!("{text}: {other:?}"),
    }
}

fn key(text: &str) -> String {
    named(text).resolve(&RegistryUrl::docker_hub()).key()
}

#[test]
fn short_names_mean_docker_hubs_official_images() {
    for text in [
        "busybox",
        "busybox:latest",
        "library/busybox",
        "docker.io/busybox",
        "docker.io/library/busybox:latest",
        "index.docker.io/busybox",
    ] {
        assert_eq!(key(text), "https://registry-1.docker.io/library/busybox:latest", "{text}");
    }
    assert_eq!(key("bitnami/redis:7"), "https://registry-1.docker.io/bitnami/redis:7");
}

#[test]
fn a_default_registry_that_is_not_docker_hub_has_no_library() {
    let RegistryLocation::Remote(default) = RegistryLocation::parse("http://10.0.0.1:5000/").unwrap() else {
        panic!("a URL")
    };
    assert_eq!(named("busybox").resolve(&default).key(), "http://10.0.0.1:5000/busybox:latest");
    // What the default names explicitly has the default's scheme.
    assert_eq!(named("10.0.0.1:5000/a/b:c").resolve(&default).key(), "http://10.0.0.1:5000/a/b:c");
}

#[test]
fn the_scheme_follows_mesos() {
    assert_eq!(key("localhost:5000/a"), "http://localhost:5000/a:latest");
    assert_eq!(key("127.0.0.1:5000/a"), "http://127.0.0.1:5000/a:latest");
    assert_eq!(key("[::1]:5000/a"), "http://[::1]:5000/a:latest");
    assert_eq!(key("127.0.0.1:443/a"), "https://127.0.0.1:443/a:latest");
    assert_eq!(key("quay.io/a/b"), "https://quay.io/a/b:latest");
    assert_eq!(key("example.com:80/a"), "http://example.com:80/a:latest");
}

#[test]
fn a_digest_says_more_than_a_tag() {
    let digest = Digest::of(b"x");
    let name = named(&format!("quay.io:8443/a/b:tag@{digest}"));
    assert_eq!(name.registry(), Some("quay.io:8443"));
    assert_eq!(name.repository(), "a/b");
    assert_eq!(name.tag(), "tag");
    assert_eq!(name.digest(), Some(&digest));
    assert_eq!(name.resolve(&RegistryUrl::docker_hub()).key(), format!("https://quay.io:8443/a/b@{digest}"));
}

#[test]
fn what_is_no_name_is_refused_with_words() {
    let id = "a".repeat(64);
    for (text, word) in [
        ("", "empty"),
        ("Busybox", "repository"),
        ("a//b", "repository"),
        ("a/../b", "repository"),
        ("-a", "repository"),
        ("a___b", "repository"),
        ("a..b", "repository"),
        ("a:", "tag"),
        ("a:b:c", "repository"),
        ("a:.x", "tag"),
        ("a@sha256:12", "digest"),
        ("a@b@c", "digest"),
        ("host:port/a", "registry"),
        ("host:99999/a", "registry"),
        ("ho_st.x/a", "registry"),
        (id.as_str(), "image id"),
        (".", "repository"),
        ("..", "repository"),
        ("a b", "repository"),
    ] {
        let error = Reference::parse(text).unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn an_absolute_path_is_local() {
    assert_eq!(
        Reference::parse("/images/Busybox:latest.tar").unwrap(),
        Reference::Local("/images/Busybox:latest.tar".into())
    );
    assert!(Reference::parse("/a\0b").is_err());
}

#[test]
fn docker_registry_is_a_url_or_a_directory() {
    assert_eq!(RegistryLocation::default(), RegistryLocation::parse("https://registry-1.docker.io").unwrap());
    assert_eq!(RegistryLocation::parse("/srv/images").unwrap().directory(), Some(Path::new("/srv/images")));
    for text in [
        "registry.example.com",
        "hdfs://localhost:8020/archives",
        "https://a/b",
        "https://",
        "ftp://a",
        "https://a:b",
        "https://user@host",
    ] {
        assert!(RegistryLocation::parse(text).is_err(), "{text}");
    }
}

#[test]
fn archives_call_images_by_several_names() {
    let name = named("busybox:1.36");
    for text in ["1.36", "busybox:1.36", "docker.io/library/busybox:1.36", "example.com/busybox:1.36"] {
        assert!(name.is_called(text), "{text}");
    }
    for text in ["busybox", "1.35", "other:1.36", "not a name"] {
        assert!(!name.is_called(text), "{text}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_what_is_accepted_round_trips(text in "\\PC{0,80}|[a-zA-Z0-9./:@_\\-\\[\\]]{0,80}") {
        if let Ok(reference) = Reference::parse(&text) {
            prop_assert_eq!(reference.to_string(), text.clone());
            prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference));
        }
        let _ = RegistryLocation::parse(&text);
    }

    #[test]
    fn every_composed_name_is_read_back(
        registry in proptest::option::of("(localhost|[a-z][a-z0-9]{0,8}\\.[a-z]{2,3})(:[1-9][0-9]{0,3})?"),
        repository in "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,6}){0,2}",
        tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
        digest in proptest::option::of(any::<[u8; 4]>()),
    ) {
        let digest = digest.map(|content| Digest::of(&content));
        let name = NamedReference { registry, repository, tag, digest };
        let text = name.to_string();
        // Without a registry the first component must not look like one.
        prop_assume!(name.registry.is_some() || !name.repository.split_once('/').is_some_and(|(first, _)| is_registry_like(first)));
        prop_assert_eq!(Reference::parse(&text), Ok(Reference::Named(name)));
    }
}
