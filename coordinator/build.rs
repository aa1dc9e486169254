//! Notes when this was built and by whom, for `/version`. `SOURCE_DATE_EPOCH` makes it reproducible.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=TEPUI_BUILD_TIME={}", given.unwrap_or_else(now));
    println!("cargo:rustc-env=TEPUI_BUILD_USER={}", std::env::var("USER").unwrap_or_default());
}
