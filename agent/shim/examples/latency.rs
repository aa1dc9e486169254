//! How long a container takes by way of a zygote and a shim: `cargo run --release -p tepui-shim --example latency [TIMES]`.
//!
//! Needs root. Under `chrt -f 10` other work on the machine does not count (which is why no `cpu` cgroup is entered: real-time
//! processes may not). The scratch directory is removed by this process, which sees none of the containers' mounts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "an example may fail by panicking"
)]

#[path = "../tests/support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use support::Context;
use tepui_shim::State;

fn main() {
    let times: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100);
    let context = Context::new();
    let hierarchies: Vec<PathBuf> = ["memory", "freezer", "cpuacct", "pids"]
        .iter()
        .map(|name| {
            PathBuf::from("/sys/fs/cgroup").join(name).join(format!("tepui-latency-{}", std::process::id()))
        })
        .filter(|path| fs::create_dir(path).is_ok())
        .collect();
    for count in 0..=hierarchies.len() {
        let (mut started, mut ended) = (Vec::new(), Vec::new());
        for n in 0..times {
            let mut container = context.shell(&format!("c{count}-{n}"), "true");
            container.plan.cgroup_procs =
                hierarchies.iter().take(count).map(|path| path.join("cgroup.procs")).collect();
            container.write();
            let begin = Instant::now();
            let mut peer = support::Peer::new(context.zygote.launch(&container.dir).unwrap());
            assert!(matches!(peer.state(), State::Started { .. }));
            started.push(begin.elapsed());
            peer.ended();
            ended.push(begin.elapsed());
            container.wait_for_shim();
        }
        println!("{count} cgroups: started {}, ended {}", figures(&mut started), figures(&mut ended));
    }
    for path in hierarchies {
        support::wait_until("the cgroup is removed", || fs::remove_dir(&path).is_ok());
    }
    context.leftovers();
}

fn figures(samples: &mut [Duration]) -> String {
    samples.sort_unstable();
    let at =
        |percent: usize| samples[(samples.len() * percent / 100).min(samples.len() - 1)].as_secs_f64() * 1e3;
    format!("median {:.1} ms, p99 {:.1} ms", at(50), at(99))
}
