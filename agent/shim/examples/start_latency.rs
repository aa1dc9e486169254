//! How long a container takes to start: bare `libcontainer`, and a shim from a zygote.
//!
//! `cargo run --release -p tepui-shim --example start_latency -- [COUNT]`, as root. Prints medians in milliseconds.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use tepui_shim::{
    Event, ExecPlan, FirstProcess, LaunchPlan, RootFs, State, Zygote, bare_container_cycle, decode_line,
    files, prepare_bare_root,
};

fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = std::env::args().nth(1).map_or(Ok(50), |text| text.parse())?;
    let program = std::env::args().nth(2).unwrap_or_else(|| "true".to_owned());
    let zygote = Zygote::fork()?;
    let dir = tempfile::tempdir()?;
    let mut started = Vec::new();
    let mut ended = Vec::new();
    for index in 0..count {
        let home = dir.path().join(format!("c{index}"));
        write_bundle(&home, &format!("latency-{}-{index}", std::process::id()), &program)?;
        let begin = Instant::now();
        let control = BufReader::new(zygote.launch(&home)?);
        for line in control.lines() {
            match decode_line::<Event>(line?.as_bytes())? {
                Event::State(State::Started { .. }) => started.push(begin.elapsed()),
                Event::State(State::Ended(record)) => {
                    ended.push(begin.elapsed());
                    if index == 0 {
                        eprintln!("first container: {record:?}");
                    }
                }
                _ => {}
            }
        }
    }
    println!("shim: started {:.2}, ended {:.2}", median(&mut started), median(&mut ended));

    prepare_bare_root(dir.path())?;
    let (mut create, mut start, mut wait, mut delete) = (vec![], vec![], vec![], vec![]);
    for index in 0..count {
        let timing = bare_container_cycle(dir.path(), &format!("floor-{}-{index}", std::process::id()))?;
        create.push(timing.create);
        start.push(timing.start);
        wait.push(timing.wait);
        delete.push(timing.delete);
    }
    println!(
        "bare libcontainer: create {:.2}, start {:.2}, wait {:.2}, delete {:.2}",
        median(&mut create),
        median(&mut start),
        median(&mut wait),
        median(&mut delete)
    );
    Ok(())
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

fn write_bundle(home: &Path, id: &str, program: &str) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(home.join(files::ROOTFS))?;
    let spec = serde_json::json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": [program],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "noNewPrivileges": false,
        },
        "root": {"path": home.join(files::ROOTFS), "readonly": false},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]}],
        "linux": {
            "cgroupsPath": format!("/tepui-latency/{id}"),
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}],
        },
    });
    std::fs::write(home.join(files::CONFIG), serde_json::to_vec(&spec)?)?;
    LaunchPlan {
        container_id: id.to_owned(),
        rootfs: RootFs::Host,
        mounts: Vec::new(),
        stdout: home.join("stdout"),
        stderr: home.join("stderr"),
        stdio_owner: (0, 0),
        exec: ExecPlan { path: program.to_owned(), argv: Vec::new() },
        first_process: FirstProcess::Init,
        cgroup_procs: None,
    }
    .save(home)?;
    Ok(())
}
