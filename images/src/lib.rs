//! Container images: from a name to a stack of read-only directories.
//!
//! How data flows through this crate:
//!
//! ```text
//! "busybox:1.36"            --docker_registry
//!      │                          │
//!  [reference]  parses both and says where the image is: a registry, an archive, a layout
//!      │
//!  [store]      one flight per image: cached? else resolve it to a config and its layers
//!      ├── [registry]  manifests, indexes and blobs over HTTP(S), with retries and resumed blobs, as whom [credentials] say
//!      └── [archive]   `docker save` files and OCI layouts, packed or as a directory
//!      │
//!      │   one flight per layer, whoever asks for it: bytes arrive, are hashed, inflated,
//!      │   hashed again and unpacked by [unpack] into a staging directory; only when blob digest,
//!      │   size and diff id are all right is that directory renamed to its place
//!      ▼
//!  [Image]      config and layers; [rootfs] names the lower directories for overlayfs, [copy] does without it,
//!               [runtime] merges a task's command with the image's, [user] looks users up in it
//! ```
//!
//! [`ImageStore::pulls`] tells how long pulls took. Others may use what this is made of: [`HttpClient`] gets any file, [`pieces`](pieces()) carry it to a thread that blocks, and
//! [`unpack_files`] unpacks any archive for a user.
//!
//! Nothing here mounts anything, and nothing here knows a framework, an agent or a task.

mod archive;
mod config;
mod copy;
mod credentials;
mod digest;
mod durations;
mod error;
mod flight;
mod http;
mod manifest;
mod pieces;
mod progress;
mod reference;
mod registry;
mod rootfs;
mod runtime;
mod store;
mod unpack;
mod user;
mod view;

pub use config::ImageConfig;
pub use copy::{Copied, CopyError, copy_layers};
pub use credentials::{Credentials, CredentialsError, Login};
pub use digest::{Digest, DigestError};
pub use durations::{Durations, Running, Statistics};
pub use error::{Error, SharedError};
pub use http::{Download, HttpClient, HttpError};
pub use manifest::Platform;
pub use pieces::{PieceReader, PieceSender, pieces};
pub use progress::{Phase, Progress, ProgressFn};
pub use reference::{NamedReference, Reference, ReferenceError, RegistryLocation, RegistryUrl, Scheme};
pub use registry::RegistryOptions;
pub use rootfs::{LayerPath, RootFs, RootFsError};
pub use runtime::{
    CommandError, CommandInput, LaunchCommand, merge_command, merge_environment, merge_user,
    working_directory,
};
pub use store::{Image, ImageStore, Pruned, PullOptions, StoreOptions, StoredImage};
pub use unpack::{DeviceNodes, FileLimits, UnpackError, UnpackLimits, UnpackedFiles, unpack_files};
pub use user::{ResolvedUser, UserError, resolve_user};
