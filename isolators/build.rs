//! Compiles the protocol of isolator plugins. Mesos' messages in it are those of `tepui-api`.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (own, api) = (Path::new("proto"), Path::new("../api/proto"));
    println!("cargo:rerun-if-changed={}", own.display());
    println!("cargo:rerun-if-changed={}", api.join("mesos/v1/mesos.proto").display());
    let set = protox::compile([own.join("tepui/isolator/v1/isolator.proto")], [own, api])?;
    let client =
        tonic_prost_build::configure().build_transport(false).extern_path(".mesos.v1", "::tepui_api::v1");
    client.btree_map(".").compile_fds(set)?;
    Ok(())
}
