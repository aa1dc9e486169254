//! Images from real registries, real archives and a hostile server, as an agent would pull them.
//!
//! * [`registry`]: against Debian's `docker-registry`, with images pushed and converted by `skopeo` and made by `umoci`;
//! * [`faults`]: against a server that counts, breaks off, lies and asks for tokens, and under `kill -9`;
//! * [`hostile`]: against images that mean harm;
//! * [`overlay`]: layers mounted by overlayfs, compared with what `umoci` unpacks of the same image.
//! * [`copy`]: the same without overlayfs, compared with what that shows.
//! * [`tls`] is about certificates.
//!
//! Needs root, and the Debian packages docker-registry, skopeo, umoci, busybox-static and openssl.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod copy;
mod faults;
mod hostile;
mod overlay;
mod registry;
mod support;
mod tls;
