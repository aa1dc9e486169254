//! Notes when this was built and by whom, for `/version`. `SOURCE_DATE_EPOCH` makes it reproducible.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse::<u64>().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seconds = given.unwrap_or_else(now);
    let shown =
        Command::new("date").args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%d %H:%M:%S UTC"]).output();
    let shown = shown.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=TEPUI_BUILD_TIME={seconds}");
    println!("cargo:rustc-env=TEPUI_BUILD_DATE={}", shown.unwrap_or_default());
    println!("cargo:rustc-env=TEPUI_BUILD_USER={}", std::env::var("USER").unwrap_or_default());
}
