//! Containers by shims, from the zygote's fork to the last leftover. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "containers/inside.rs"]
mod inside;
mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use inside::{
    a_program_inside_ends_with_all_that_it_has_left,
    a_program_inside_ends_with_its_peer_and_with_the_container, a_program_inside_has_a_terminal,
    programs_run_inside, programs_run_inside_as_the_container_has_it, what_cannot_run_inside_is_told,
};
use libcontainer::oci_spec::runtime::{LinuxNamespaceType as Kind, MountBuilder};
use support::{Context, Peer, exists, exited, harness, killed, spec, wait_until};
use tepui_shim::{
    BindMount, Event, ExecPlan, ExitRecord, FirstProcess, Liveness, Outcome, Request, RootFs, SignalScope,
    State, Zygote, connect, holders, shim_lives,
};

fn main() -> ExitCode {
    let tests: &[harness::Test<Context>] = tests![
        output_and_status,
        the_programs_end_is_told_as_it_was,
        arguments_are_passed_as_given,
        a_missing_program_exits_with_1,
        a_broken_plan_is_told,
        a_container_that_cannot_be_made_is_told,
        signals_reach_the_program,
        signals_reach_all_processes,
        nothing_outlives_the_program,
        nothing_outlives_a_program_without_a_pid_namespace,
        a_peer_may_come_later,
        a_held_container_waits,
        a_held_container_ends_with_its_last_peer,
        the_shims_death_is_the_containers,
        containers_outlive_the_zygote,
        an_overlay_is_a_root_of_its_own,
        many_layers_are_stacked,
        bind_mounts_are_made_in_order,
        the_host_devices_stay_as_they_are,
        cgroups_are_entered_and_no_others,
        a_second_shim_is_refused,
        programs_run_inside,
        programs_run_inside_as_the_container_has_it,
        a_program_inside_ends_with_all_that_it_has_left,
        a_program_inside_ends_with_its_peer_and_with_the_container,
        a_program_inside_has_a_terminal,
        what_cannot_run_inside_is_told,
    ];
    harness::run(tests, Context::new, Context::leftovers)
}

fn signal(number: i32, scope: SignalScope) -> Request {
    Request::Signal { number, scope }
}

fn output_and_status(context: &Context) {
    let container = context.shell("hello", "echo hello; echo problem >&2; exit 7");
    let record = container.run(&context.zygote);
    assert_eq!(record.outcome, exited(7));
    assert_eq!((container.stdout().as_str(), container.stderr().as_str()), ("hello\n", "problem\n"));
    assert!(record.usage.max_rss_kib > 0);
    assert_eq!(
        fs::read_to_string(container.dir.join("shim.log")).unwrap(),
        "",
        "the shim has nothing to say"
    );
}

fn the_programs_end_is_told_as_it_was(context: &Context) {
    for (index, (command, outcome)) in [
        ("true", exited(0)),
        ("exit 255", exited(255)),
        ("kill -9 $$", killed(libc::SIGKILL)),
        ("kill -TERM $$", killed(libc::SIGTERM)),
        ("kill -34 $$", killed(34)),
        ("ulimit -c 0; kill -SEGV $$", killed(libc::SIGSEGV)),
    ]
    .into_iter()
    .enumerate()
    {
        let record = context.shell(&format!("end{index}"), command).run(&context.zygote);
        assert_eq!(record.outcome, outcome, "{command}");
    }
}

fn arguments_are_passed_as_given(context: &Context) {
    let argv = ["zero", "-c", "echo \"$0|$1|$2\"", "a b", "", "ü"].map(str::to_owned).to_vec();
    // By name, found in the container's PATH.
    let container = context.container("argv", ExecPlan { path: "sh".into(), argv });
    assert_eq!(container.run(&context.zygote).outcome, exited(0));
    assert_eq!(container.stdout(), "a b||ü\n");
    let container = context.container("none", ExecPlan { path: "/bin/true".into(), argv: Vec::new() });
    assert_eq!(container.run(&context.zygote).outcome, exited(0));
}

fn a_missing_program_exits_with_1(context: &Context) {
    for (index, path) in ["/no/such/program", "no-such-program", "/etc/passwd"].into_iter().enumerate() {
        let exec = ExecPlan { path: path.into(), argv: Vec::new() };
        let container = context.container(&format!("missing{index}"), exec);
        assert_eq!(container.run(&context.zygote).outcome, exited(1));
        assert!(
            container.stderr().starts_with(&format!("Failed to execute '{path}': ")),
            "{}",
            container.stderr()
        );
    }
}

fn a_broken_plan_is_told(context: &Context) {
    let container = context.shell("broken", "true");
    container.write();
    fs::write(container.dir.join("launch.json"), "{").unwrap();
    let mut peer = Peer::new(context.zygote.launch(&container.dir).unwrap());
    assert!(matches!(peer.ended(), Outcome::Failed { stage, .. } if stage == "plan"));
    assert_eq!(peer.event(), None);
    container.wait_for_shim();
}

fn a_container_that_cannot_be_made_is_told(context: &Context) {
    let mut container = context.shell("nowhere", "true");
    container.spec.process_mut().as_mut().unwrap().set_cwd(PathBuf::from("/no/such/directory"));
    let Outcome::Failed { stage, message } = container.run(&context.zygote).outcome else { panic!() };
    assert_eq!(stage, "create", "{message}");
    assert!(message.contains("ENOENT") && !message.contains("cleanup"), "{message}");

    let mut container = context.shell("no-source", "true");
    let (source, target) = (PathBuf::from("/no/such/source"), PathBuf::from("/mnt"));
    container.plan.mounts = vec![BindMount { source, target, recursive: false, read_only: false }];
    let Outcome::Failed { stage, message } = container.run(&context.zygote).outcome else { panic!() };
    assert_eq!(stage, "rootfs", "{message}");

    let mut container = context.shell("no-cgroup-there", "echo ran");
    container.plan.cgroup_procs = vec![PathBuf::from("/sys/fs/cgroup/no/such/cgroup.procs")];
    let Outcome::Failed { stage, message } = container.run(&context.zygote).outcome else { panic!() };
    assert_eq!(stage, "cgroups", "{message}");
    assert_eq!(container.stdout(), "");
}

fn signals_reach_the_program(context: &Context) {
    let container =
        context.shell("trap", "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.01; done");
    let mut peer = container.launch(&context.zygote);
    peer.started();
    wait_until("the trap is set", || container.stdout() == "ready\n");
    peer.ask(&signal(libc::SIGUSR1, SignalScope::Program));
    assert_eq!(peer.event(), Some(Event::Signalled));
    assert_eq!(peer.ended(), exited(3));
    assert_eq!(container.stdout(), "ready\ncaught\n");
    container.wait_for_shim();

    // One that the first process of a PID namespace would be shielded from.
    let container = context
        .container("plain", ExecPlan { path: "sleep".into(), argv: vec!["sleep".into(), "60".into()] });
    let mut peer = container.launch(&context.zygote);
    peer.started();
    peer.ask(&Request::Ping);
    assert_eq!(peer.event(), Some(Event::Pong));
    peer.ask(&signal(1000, SignalScope::Program));
    assert!(matches!(peer.event(), Some(Event::Refused { .. })));
    // One that the first process could not pass on, had it been stopped itself.
    peer.ask(&signal(libc::SIGSTOP, SignalScope::Program));
    assert_eq!(peer.event(), Some(Event::Signalled));
    peer.ask(&signal(libc::SIGKILL, SignalScope::All));
    assert_eq!(peer.event(), Some(Event::Signalled));
    assert_eq!(peer.ended(), killed(libc::SIGKILL));
    container.wait_for_shim();

    let stopped = context.shell("stopped", "sleep 0.3; exit 4");
    let mut peer = stopped.launch(&context.zygote);
    peer.started();
    peer.ask(&signal(libc::SIGSTOP, SignalScope::Program));
    assert_eq!(peer.event(), Some(Event::Signalled));
    peer.ask(&signal(libc::SIGCONT, SignalScope::Program));
    assert_eq!(peer.event(), Some(Event::Signalled));
    assert_eq!(peer.ended(), exited(4));
    stopped.wait_for_shim();

    let container = context
        .container("gentle", ExecPlan { path: "sleep".into(), argv: vec!["sleep".into(), "60".into()] });
    let mut peer = container.launch(&context.zygote);
    peer.started();
    peer.ask(&signal(libc::SIGTERM, SignalScope::Program));
    assert_eq!(peer.event(), Some(Event::Signalled));
    assert_eq!(peer.ended(), killed(libc::SIGTERM));
    container.wait_for_shim();
}

fn signals_reach_all_processes(context: &Context) {
    let command = "sh -c 'trap \"echo child; exit 0\" TERM; echo 1; while :; do sleep 0.01; done' & \
                   trap 'wait; echo parent; exit 0' TERM; echo 2; while :; do sleep 0.01; done";
    for (id, with_cgroup) in [("by-namespace", false), ("by-cgroup", true)] {
        let mut container = context.shell(id, command);
        let cgroup = Cgroup::new("pids", id);
        if with_cgroup {
            container.plan.cgroup_procs = vec![cgroup.procs()];
        }
        let mut peer = container.launch(&context.zygote);
        peer.started();
        wait_until("both traps are set", || container.stdout().len() == 4);
        peer.ask(&signal(libc::SIGTERM, SignalScope::All));
        assert_eq!(peer.event(), Some(Event::Signalled));
        assert_eq!(peer.ended(), exited(0));
        assert!(container.stdout().ends_with("child\nparent\n"), "{}", container.stdout());
        container.wait_for_shim();
    }
}

/// The check for leftovers after each test finds what `$SCRATCH` marks.
fn nothing_outlives_the_program(context: &Context) {
    let container = context.shell("daemon", "(setsid sleep 600 &) ; sleep 600 & echo started");
    assert_eq!(container.run(&context.zygote).outcome, exited(0));
    let container = context
        .shell("killed", "(setsid sleep 600 &) ; trap '' TERM; echo ready; while :; do sleep 0.01; done");
    let mut peer = container.launch(&context.zygote);
    peer.started();
    wait_until("it is ready", || container.stdout() == "ready\n");
    peer.ask(&signal(libc::SIGKILL, SignalScope::All));
    assert_eq!(peer.event(), Some(Event::Signalled));
    assert_eq!(peer.ended(), killed(libc::SIGKILL));
    container.wait_for_shim();
}

fn nothing_outlives_a_program_without_a_pid_namespace(context: &Context) {
    for (id, with_cgroup) in [("by-family", false), ("by-cgroup", true)] {
        let mut container = context.shell(id, "(setsid sleep 600 &) ; sleep 600 & echo $$; exit 4");
        container.spec = spec(&[Kind::Mount, Kind::Ipc, Kind::Uts]);
        container.plan.first_process = FirstProcess::Program;
        let cgroup = Cgroup::new("pids", id);
        if with_cgroup {
            container.plan.cgroup_procs = vec![cgroup.procs()];
        }
        let mut peer = container.launch(&context.zygote);
        let pid = peer.started();
        assert_eq!(peer.ended(), exited(4));
        assert_eq!(container.stdout(), format!("{pid}\n"), "the program is the first process");
        assert!(!fs::read_to_string("/proc/1/comm").unwrap().is_empty());
        container.wait_for_shim();
    }
}

fn a_peer_may_come_later(context: &Context) {
    let container = context.shell("later", "read line; sleep 60");
    let pid = container.launch(&context.zygote).started();
    let mut first = Peer::new(connect(&container.dir).unwrap());
    assert_eq!(first.started(), pid);
    let mut second = Peer::new(connect(&container.dir).unwrap());
    assert_eq!(second.started(), pid);
    assert!(Liveness::is_held(&container.dir).unwrap());
    second.ask(&signal(libc::SIGKILL, SignalScope::All));
    assert_eq!(second.event(), Some(Event::Signalled));
    assert_eq!(second.ended(), killed(libc::SIGKILL));
    assert_eq!(first.ended(), killed(libc::SIGKILL));
    container.wait_for_shim();
    assert!(connect(&container.dir).is_err());
    assert!(ExitRecord::load(&container.dir).unwrap().is_some());
}

fn a_held_container_waits(context: &Context) {
    let mut container = context.shell("held", "echo ran");
    container.plan.hold = true;
    let mut peer = container.launch(&context.zygote);
    let State::Created { pid } = peer.state() else { panic!("not held") };
    assert!(exists(pid));
    peer.ask(&signal(libc::SIGTERM, SignalScope::Program));
    assert!(matches!(peer.event(), Some(Event::Refused { .. })));
    assert_eq!(container.stdout(), "");
    peer.ask(&Request::Start);
    assert_eq!(peer.started(), pid);
    assert_eq!(peer.ended(), exited(0));
    assert_eq!(container.stdout(), "ran\n");
    container.wait_for_shim();
}

fn a_held_container_ends_with_its_last_peer(context: &Context) {
    let mut container = context.shell("abandoned", "echo ran");
    container.plan.hold = true;
    let mut peer = container.launch(&context.zygote);
    let State::Created { pid } = peer.state() else { panic!("not held") };
    drop(peer);
    container.wait_for_shim();
    wait_until("the container is gone", || !exists(pid));
    let record = ExitRecord::load(&container.dir).unwrap().unwrap();
    assert!(matches!(record.outcome, Outcome::Failed { stage, .. } if stage == "start"));
    assert_eq!(container.stdout(), "");
}

fn the_shims_death_is_the_containers(context: &Context) {
    let container = context.shell("orphan", "(setsid sleep 600 &) ; echo ready; sleep 600");
    let mut peer = container.launch(&context.zygote);
    let init = peer.started();
    wait_until("it is ready", || container.stdout() == "ready\n");
    let shim = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let shim: i32 = shim.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{shim}/comm")).unwrap(), "tepui-shim\n");
    assert_eq!(holders(&container.dir).unwrap(), [shim]);
    assert!(shim_lives(&container.dir).unwrap());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(peer.event(), None, "the connection closes without a word");
    wait_until("the container is gone", || !exists(init));
    container.wait_for_shim();
    assert!(!shim_lives(&container.dir).unwrap());
    assert_eq!(ExitRecord::load(&container.dir).unwrap(), None, "nobody knows how it ended");
}

fn containers_outlive_the_zygote(context: &Context) {
    let zygote = Zygote::fork().unwrap();
    let container = context.shell("survivor", "sleep 600");
    let mut peer = container.launch(&zygote);
    let pid = peer.started();
    drop(zygote);
    peer.ask(&Request::Ping);
    assert_eq!(peer.event(), Some(Event::Pong));
    drop(peer);
    let mut peer = Peer::new(connect(&container.dir).unwrap());
    assert_eq!(peer.started(), pid);
    peer.ask(&signal(libc::SIGTERM, SignalScope::All));
    assert_eq!(peer.event(), Some(Event::Signalled));
    assert_eq!(peer.ended(), killed(libc::SIGTERM));
    container.wait_for_shim();
}

/// A layer with a static busybox.
fn busybox(layer: &Path) {
    for part in ["bin", "tmp"] {
        fs::create_dir_all(layer.join(part)).unwrap();
    }
    fs::copy("/bin/busybox", layer.join("bin/busybox")).expect("these tests need the package busybox-static");
    for name in ["sh", "cat", "ls", "test", "rm", "grep", "stat", "sleep", "id"] {
        symlink("busybox", layer.join("bin").join(name)).unwrap();
    }
}

fn overlay(container: &mut support::Container, lowers: Vec<PathBuf>) -> RootFs {
    let dev = MountBuilder::default().destination("/dev").typ("tmpfs").source("tmpfs").build().unwrap();
    container.spec.mounts_mut().get_or_insert_default().push(dev);
    let (upper, work) = (container.dir.join("upper"), container.dir.join("work"));
    for dir in [&upper, &work] {
        fs::create_dir(dir).unwrap();
    }
    RootFs::Overlay { lowers, upper, work }
}

fn an_overlay_is_a_root_of_its_own(context: &Context) {
    let (lower, top) = (context.dir.join("lo,w:er\\"), context.dir.join("top"));
    busybox(&lower);
    fs::create_dir_all(&top).unwrap();
    fs::write(lower.join("both"), "lower").unwrap();
    fs::write(lower.join("gone"), "").unwrap();
    fs::write(top.join("both"), "top").unwrap();
    let command = "cat /both; echo; echo new > /new; rm /gone; ls /dev | grep -c null; test -c /dev/null && echo device; \
                   ls /; echo > /dev/null";
    let mut container = context.shell("overlay", command);
    container.plan.rootfs = overlay(&mut container, vec![top.clone(), lower.clone()]);
    let record = container.run(&context.zygote);
    assert_eq!(record.outcome, exited(0), "{}", container.stderr());
    let output = container.stdout();
    assert!(output.starts_with("top\n1\ndevice\n"), "{output}");
    for name in ["bin", "dev", "new", "proc", "tmp"] {
        assert!(output.lines().any(|line| line == name), "{name} in {output}");
    }
    assert!(!output.lines().any(|line| line == "usr"), "the host's directories are not seen: {output}");
    assert_eq!(fs::read_to_string(container.dir.join("upper/new")).unwrap(), "new\n");
    assert!(fs::symlink_metadata(container.dir.join("upper/gone")).unwrap().file_type().is_char_device());
    assert!(lower.join("gone").exists(), "layers are not written to");
}

/// More than fit into one page of mount options.
fn many_layers_are_stacked(context: &Context) {
    let mut lowers = Vec::new();
    for n in 0..60 {
        let layer = context.dir.join(format!("layer-{n:02}-{}", "x".repeat(90)));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("file{n}")), "").unwrap();
        fs::write(layer.join("which"), n.to_string()).unwrap();
        lowers.push(layer);
    }
    busybox(&lowers[59]);
    let mut container = context.shell("layers", "cat /which; ls / | grep -c ^file");
    container.plan.rootfs = overlay(&mut container, lowers);
    let record = container.run(&context.zygote);
    assert_eq!(record.outcome, exited(0), "{record:?} {}", container.stderr());
    assert_eq!(container.stdout(), "060\n");
}

fn bind_mounts_are_made_in_order(context: &Context) {
    let lower = context.dir.join("lower");
    busybox(&lower);
    let (outside, file) = (context.dir.join("outside"), context.dir.join("file"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("seen"), "seen\n").unwrap();
    fs::write(&file, "file\n").unwrap();
    let bind = |source: &Path, target: &str, read_only| BindMount {
        source: source.to_owned(),
        target: PathBuf::from(target),
        recursive: true,
        read_only,
    };
    let command = "cat /mnt/a/seen /mnt/a/below/seen /etc/new/file; \
                   echo x > /mnt/a/written && echo written; (echo x > /etc/new/file) 2> /dev/null || echo read-only";
    let mut container = context.shell("binds", command);
    container.plan.rootfs = overlay(&mut container, vec![lower]);
    fs::create_dir(outside.join("below")).unwrap();
    container.plan.mounts = vec![
        bind(&outside, "/mnt/a", false),
        bind(&outside, "/mnt/a/below", true),
        bind(&file, "/etc/new/file", true),
    ];
    let record = container.run(&context.zygote);
    assert_eq!(record.outcome, exited(0), "{record:?} {}", container.stderr());
    assert_eq!(container.stdout(), "seen\nseen\nfile\nwritten\nread-only\n");
    assert!(outside.join("written").exists());

    // On the host's root: a private /tmp, and in it a directory that is beneath the host's.
    let (tmp, sandbox) = (context.dir.join("tmp"), context.dir.join("box"));
    fs::create_dir(&tmp).unwrap();
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(&sandbox).unwrap();
    assert!(sandbox.starts_with("/tmp"), "tests run with scratch directories in /tmp");
    let command =
        format!("echo mine > /tmp/mine; echo here > {}/here; ls /tmp; stat -c %a /tmp", sandbox.display());
    let mut container = context.shell("private-tmp", &command);
    container.plan.mounts = vec![bind(&tmp, "/tmp", false), bind(&sandbox, sandbox.to_str().unwrap(), false)];
    let record = container.run(&context.zygote);
    assert_eq!(record.outcome, exited(0), "{record:?} {}", container.stderr());
    // `ls` leaves out the directory in which the sandbox is, whose name begins with a dot.
    assert_eq!(container.stdout(), "mine\n1777\n");
    assert_eq!(fs::read_to_string(sandbox.join("here")).unwrap(), "here\n");
    assert!(tmp.join("mine").exists() && !Path::new("/tmp/mine").exists());
}

fn the_host_devices_stay_as_they_are(context: &Context) {
    let device =
        |path: &str| fs::symlink_metadata(path).map(|m| (m.ino(), m.mode(), m.rdev(), m.ctime())).ok();
    let paths = ["/dev/ptmx", "/dev/null", "/dev/fd", "/dev/stdin", "/dev/kcore", "/dev/console", "/dev/tty"];
    let before = paths.map(device);
    let container = context
        .shell("devices", "echo x > /dev/null; ls /dev; ls -d /dev/pts/ptmx; head -c 8 /dev/urandom | wc -c");
    assert_eq!(container.run(&context.zygote).outcome, exited(0), "{}", container.stderr());
    assert_eq!(paths.map(device), before);
    let output = container.stdout();
    let shown = output.lines().take_while(|line| *line != "/dev/pts/ptmx").count();
    assert_eq!(shown, fs::read_dir("/dev").unwrap().count(), "the host's devices are seen: {output}");
    assert!(output.ends_with("/dev/pts/ptmx\n8\n"), "{output}");
}

/// A cgroup (v1, or v2 where the machine has no v1), removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(controller: &str, name: &str) -> Self {
        let base = [format!("/sys/fs/cgroup/{controller}"), "/sys/fs/cgroup".to_owned()];
        let base = base.iter().find(|base| Path::new(base).join("cgroup.procs").exists()).unwrap();
        let path = Path::new(base).join(format!("tepui-shim-test-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    fn name(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_str().unwrap())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        wait_until("the cgroup is empty and removed", || fs::remove_dir(&self.0).is_ok());
    }
}

fn cgroups_are_entered_and_no_others(context: &Context) {
    let cgroups = [Cgroup::new("memory", "a"), Cgroup::new("cpu", "b")];
    let mut container = context.shell("cgroups", "cat /proc/self/cgroup; ls /sys/fs/cgroup | wc -l");
    container.plan.cgroup_procs = cgroups.iter().map(Cgroup::procs).collect();
    container.plan.oom_score_adj = Some(123);
    assert_eq!(container.run(&context.zygote).outcome, exited(0), "{}", container.stderr());
    let output = container.stdout();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let v1 = Path::new("/sys/fs/cgroup/memory").exists();
    for line in own.lines() {
        let (hierarchy, _) = line.rsplit_once(':').unwrap();
        let theirs = output.lines().find_map(|line| line.strip_prefix(hierarchy)?.strip_prefix(':')).unwrap();
        let entered = match hierarchy.split_once(':').unwrap().1 {
            "memory" => Some(&cgroups[0]),
            "cpu" | "cpu,cpuacct" => Some(&cgroups[1]),
            // The last one entered, where there is one hierarchy.
            "" if !v1 => Some(&cgroups[1]),
            _ => None,
        };
        match entered {
            Some(cgroup) => assert_eq!(theirs, cgroup.name(), "{hierarchy}"),
            None => assert!(line.ends_with(&format!(":{theirs}")), "{hierarchy}: {theirs}"),
        }
    }
    let count = fs::read_dir("/sys/fs/cgroup").unwrap().count();
    assert_eq!(output.lines().last().unwrap(), count.to_string(), "the container sees the machine's cgroups");
    assert_eq!(fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim(), "0");
}

fn a_second_shim_is_refused(context: &Context) {
    let container = context.shell("only", "sleep 600");
    let mut peer = container.launch(&context.zygote);
    peer.started();
    assert!(context.zygote.launch(&container.dir).is_err());
    peer.ask(&signal(libc::SIGKILL, SignalScope::Program));
    assert_eq!(peer.event(), Some(Event::Signalled));
    assert_eq!(peer.ended(), killed(libc::SIGKILL));
    container.wait_for_shim();
}
