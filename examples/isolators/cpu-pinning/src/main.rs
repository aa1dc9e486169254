//! `tepui agent`, with one isolator more.

use std::process::ExitCode;

use tepui_cpu_pinning::CpuPinning;

fn main() -> ExitCode {
    tepui_agent::Agent::builder().isolator("cpu-pinning", CpuPinning::new).main()
}
