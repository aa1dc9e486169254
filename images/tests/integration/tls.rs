//! Registries over TLS, whose certificates are checked against the machine's authorities.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tepui_images::PullOptions;

use crate::support::image::{Compression, Layer, build};
use crate::support::registry::Registry;
use crate::support::{Temp, open, reference, run};

/// An authority, and a certificate of its for 127.0.0.1.
struct Certificates {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn make_certificates(directory: &Path) -> Certificates {
    let path = |name: &str| directory.join(name).display().to_string();
    let [authority, authority_key, request, certificate, key, extensions] =
        ["ca.pem", "ca.key", "csr.pem", "cert.pem", "cert.key", "ext"].map(path);
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let issue = [
        "req",
        "-x509",
        "-subj",
        "/CN=Test authority",
        "-days",
        "2",
        "-keyout",
        &authority_key,
        "-out",
        &authority,
    ];
    run("openssl", &[&issue[..], &curve].concat());
    let ask = ["req", "-subj", "/CN=127.0.0.1", "-keyout", &key, "-out", &request];
    run("openssl", &[&ask[..], &curve].concat());
    std::fs::write(&extensions, "subjectAltName=IP:127.0.0.1\n").unwrap();
    let sign = [
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &authority,
        "-CAkey",
        &authority_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &extensions,
        "-out",
        &certificate,
    ];
    run("openssl", &sign);
    Certificates { authority: authority.into(), certificate: certificate.into(), key: key.into() }
}

/// What the next test starts in a process of its own, with authorities of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of certificates_are_checked_against_the_machines_authorities"]
async fn pull_with_the_authorities_of_the_environment() {
    let (root, registry) = (std::env::var("TEST_STORE").unwrap(), std::env::var("TEST_REGISTRY").unwrap());
    match open(Path::new(&root), &registry).pull(&reference("app:1"), PullOptions::default()).await {
        Ok(image) => println!("pulled {}", image.id),
        Err(error) => println!("failed {error}"),
    }
}

#[test]
fn certificates_are_checked_against_the_machines_authorities() {
    let temp = Temp::new();
    let [trusted, other] = ["trusted", "other"].map(|name| {
        let directory = temp.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        make_certificates(&directory)
    });
    let registry = Registry::start_with_tls(&trusted.certificate, &trusted.key);
    let layout = temp.path().join("layout");
    let image = build(&[(Layer::default().file("f", b"x"), Compression::Gzip)], json!({}));
    image.write_layout(&layout, "1");
    let target = format!("docker://{}/app:1", registry.address);
    run("skopeo", &["copy", "--dest-tls-verify=false", &format!("oci:{}:1", layout.display()), &target]);

    let pull = |authority: &Path| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "tls::pull_with_the_authorities_of_the_environment",
                "--ignored",
                "--nocapture",
            ])
            .env("TEST_STORE", temp.path().join("store"))
            .env("TEST_REGISTRY", format!("https://{}", registry.address))
            .env("SSL_CERT_FILE", authority)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let said = pull(&other.authority);
    assert!(said.contains("failed") && said.contains("certificate"), "{said}");
    let said = pull(&trusted.authority);
    assert!(said.contains(&format!("pulled {}", image.config)), "{said}");
}
