//! Programs that run in a container beside its own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use libcontainer::oci_spec::runtime::{LinuxNamespaceType as Kind, PosixRlimitBuilder, PosixRlimitType};
use tepui_shim::{
    CapabilitySets, EnterError, Entered, Event, Exec, ExecPlan, ExecStdio, ExecUser, FirstProcess, Request,
    RootFs, SignalScope, WindowSize, decode_line, encode_line, enter, set_size,
};

use super::support::{Container, Context, DEADLINE, Peer, exists, killed, spec, wait_until};
use super::{Cgroup, busybox, overlay, signal};

fn shell(command: &str) -> Exec {
    Exec {
        program: ExecPlan { path: "/bin/sh".into(), argv: ["sh", "-c", command].map(str::to_owned).to_vec() },
        environment: Vec::new(),
        user: None,
        directory: None,
        stdio: ExecStdio::Container,
    }
}

/// The connection of a program inside.
struct Inside {
    lines: BufReader<UnixStream>,
}

impl Inside {
    fn of(entered: Entered) -> Self {
        entered.connection.set_read_timeout(Some(DEADLINE)).unwrap();
        assert!(entered.unread.is_empty() || entered.unread.ends_with(b"\n"));
        Self { lines: BufReader::new(entered.connection) }
    }

    fn begin(container: &Container, exec: &Exec) -> Self {
        Self::of(enter(&container.dir, exec, &[]).unwrap())
    }

    fn event(&mut self) -> Option<Event> {
        let mut line = Vec::new();
        self.lines.read_until(b'\n', &mut line).unwrap();
        (!line.is_empty()).then(|| decode_line(&line).unwrap())
    }

    fn status(&mut self) -> i32 {
        match self.event() {
            Some(Event::ExecEnded { status }) => status,
            other => panic!("{other:?} instead of the end"),
        }
    }

    fn signal(&mut self, number: i32) {
        let line = encode_line(&Request::SignalExec { number }).unwrap();
        self.lines.get_mut().write_all(&line).unwrap();
        assert_eq!(self.event(), Some(Event::Signalled));
    }
}

fn status_of(container: &Container, exec: &Exec) -> i32 {
    // What is quick may have ended before the first look.
    let mut entered = enter(&container.dir, exec, &[]).unwrap();
    let unread = std::mem::take(&mut entered.unread);
    if let Some(line) = unread.split(|byte| *byte == b'\n').find(|line| !line.is_empty()) {
        let Event::ExecEnded { status } = decode_line(line).unwrap() else { panic!() };
        return status;
    }
    Inside::of(entered).status()
}

fn end(container: &Container, peer: &mut Peer) {
    peer.ask(&signal(libc::SIGKILL, SignalScope::All));
    assert_eq!(peer.event(), Some(Event::Signalled));
    assert_eq!(peer.ended(), killed(libc::SIGKILL));
    container.wait_for_shim();
}

pub fn programs_run_inside(context: &Context) {
    let container = context.shell("inside", "echo first; exec sleep 600");
    let mut peer = container.launch(&context.zygote);
    peer.started();
    wait_until("it runs", || container.stdout() == "first\n");
    assert_eq!(status_of(&container, &shell("echo second; echo problem >&2; exit 7")), 7 << 8);
    assert_eq!((container.stdout().as_str(), container.stderr().as_str()), ("first\nsecond\n", "problem\n"));
    assert_eq!(status_of(&container, &shell("kill -TERM $$")), libc::SIGTERM);

    // With files of one's own, and several at once.
    let (reader, writer) = std::io::pipe().unwrap();
    let (mut input, output) = (writer, File::create(container.dir.join("out")).unwrap());
    let exec = Exec { stdio: ExecStdio::Passed, ..shell("cat; echo $NAME; pwd; echo e >&2") };
    let exec =
        Exec { environment: vec![("NAME".into(), "value".into())], directory: Some("/usr".into()), ..exec };
    let files = [reader.as_fd(), output.as_fd(), output.as_fd()];
    let mut waits = Inside::of(enter(&container.dir, &exec, &files).unwrap());
    drop((reader, output));
    assert_eq!(status_of(&container, &shell("exit 3")), 3 << 8);
    input.write_all(b"typed\n").unwrap();
    drop(input);
    assert_eq!(waits.status(), 0);
    assert_eq!(fs::read_to_string(container.dir.join("out")).unwrap(), "typed\nvalue\n/usr\ne\n");
    end(&container, &mut peer);
}

pub fn programs_run_inside_as_the_container_has_it(context: &Context) {
    let lower = context.dir.join("lower");
    busybox(&lower);
    let cgroup = Cgroup::new("pids", "inside");
    let probe = "cat /proc/self/cgroup | sort; hostname; ls /; id -u; id -g; grep -E '^(Cap|NoNewPrivs)' /proc/self/status; \
                 ulimit -n; cat /proc/self/oom_score_adj; pwd; readlink /proc/self/ns/net";
    let mut container = context.shell("same", &format!("{probe}; echo done; sleep 600"));
    container.plan.rootfs = overlay(&mut container, vec![lower]);
    container.plan.cgroup_procs = vec![cgroup.procs()];
    container.plan.oom_score_adj = Some(77);
    container.plan.privileges.no_new_privileges = true;
    container.plan.privileges.capabilities =
        Some(CapabilitySets { bounding: 0b1010, ..CapabilitySets::default() });
    container.plan.privileges.rlimits = vec![
        PosixRlimitBuilder::default()
            .typ(PosixRlimitType::RlimitNofile)
            .soft(77_u64)
            .hard(78_u64)
            .build()
            .unwrap(),
    ];
    container.spec.set_hostname(Some("within".to_owned()));
    let process = container.spec.process_mut().as_mut().unwrap();
    process.set_capabilities(None);
    process.user_mut().set_uid(1234).set_gid(4321);
    let mut peer = container.launch(&context.zygote);
    peer.started();
    wait_until("it has looked", || container.stdout().ends_with("done\n"));
    let first = container.stdout();
    assert!(first.contains("within\n") && first.contains("1234\n4321\n"), "{first}");
    assert!(matches!(container.plan.rootfs, RootFs::Overlay { .. }));
    assert_eq!(status_of(&container, &shell(probe)), 0, "{}", container.stderr());
    let all = container.stdout();
    assert_eq!(format!("{}done\n", &all[first.len()..]), first);

    // As somebody else.
    let user = Some(ExecUser { uid: 99, gid: 98, groups: vec![97] });
    assert_eq!(status_of(&container, &Exec { user, ..shell("id -u; id -g; id -G") }), 0);
    assert!(container.stdout().ends_with("99\n98\n98 97\n"), "{}", container.stdout());
    end(&container, &mut peer);
}

pub fn a_program_inside_ends_with_all_that_it_has_left(context: &Context) {
    for (id, pid_namespace) in [("left", true), ("left-here", false)] {
        let mut container = context.shell(id, "sleep 600");
        if !pid_namespace {
            container.spec = spec(&[Kind::Mount, Kind::Ipc, Kind::Uts]);
            container.plan.first_process = FirstProcess::Program;
        }
        let mut peer = container.launch(&context.zygote);
        peer.started();
        // Its end, with children in sessions of their own; the third is a mark that somebody else can see.
        let mark = container.dir.join("sandbox/mark");
        let leave = format!(
            "(setsid sh -c 'while :; do echo >> {0}; sleep 0.01; done' &) ; setsid sleep 600 & until test -s {0}; do sleep 0.01; done",
            mark.display()
        );
        assert_eq!(status_of(&container, &shell(&format!("{leave}; exit 5"))), 5 << 8);
        let silent = || {
            let length = fs::metadata(&mark).unwrap().len();
            std::thread::sleep(std::time::Duration::from_millis(100));
            length > 0 && fs::metadata(&mark).unwrap().len() == length
        };
        assert!(silent(), "all has ended by the time that the end is told");
        // By a signal that cannot be ignored.
        fs::remove_file(&mark).unwrap();
        let mut inside =
            Inside::begin(&container, &shell(&format!("trap '' TERM; {leave}; sleep 600 & wait; sleep 600")));
        wait_until("it has begun", || fs::metadata(&mark).is_ok_and(|mark| mark.len() > 0));
        inside.signal(libc::SIGTERM);
        inside.signal(libc::SIGKILL);
        assert_eq!(inside.status(), libc::SIGKILL);
        assert!(silent());
        // The container's own program has not noticed.
        peer.ask(&Request::Ping);
        assert_eq!(peer.event(), Some(Event::Pong));
        end(&container, &mut peer);
    }
}

pub fn a_program_inside_ends_with_its_peer_and_with_the_container(context: &Context) {
    let container = context.shell("peers", "sleep 600");
    let mut peer = container.launch(&context.zygote);
    peer.started();
    let entered = enter(&container.dir, &shell("setsid sleep 600 & sleep 600"), &[]).unwrap();
    let keeper = entered.pid;
    assert!(exists(keeper));
    drop(entered);
    wait_until("it has ended with its peer", || !exists(keeper));
    let mut inside = Inside::begin(&container, &shell("sleep 600"));
    end(&container, &mut peer);
    match inside.event() {
        Some(Event::ExecEnded { status: libc::SIGKILL }) | None => {}
        Some(Event::State(_)) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(enter(&container.dir, &shell("true"), &[]), Err(EnterError::Gone(_))));
}

pub fn a_program_inside_has_a_terminal(context: &Context) {
    let container = context.shell("terminal", "sleep 600");
    let mut peer = container.launch(&context.zygote);
    peer.started();
    let stdio = ExecStdio::Terminal(WindowSize { rows: 33, columns: 101 });
    let exec = Exec {
        stdio,
        ..shell("stty size; tty; trap 'stty size' WINCH; echo ready; read a; echo got $a; exec sleep 600")
    };
    let mut entered = enter(&container.dir, &exec, &[]).unwrap();
    let master = entered.terminal.take().expect("a terminal came along");
    let mut inside = Inside::of(entered);
    let mut screen = String::new();
    let see = |master: &OwnedFd, what: &str, from: &mut String| {
        wait_until(what, || {
            let mut buffer = [0; 1024];
            if let Ok(length) = File::from(master.try_clone().unwrap()).read(&mut buffer) {
                from.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            }
            from.contains(what)
        });
    };
    see(&master, "ready", &mut screen);
    assert!(screen.starts_with("33 101\r\n/dev/pts/"), "{screen}");
    set_size(&master, WindowSize { rows: 10, columns: 20 }).unwrap();
    let mut keys = File::from(master.try_clone().unwrap());
    keys.write_all(b"word\r").unwrap();
    see(&master, "10 20", &mut screen);
    see(&master, "got", &mut screen);
    // Ctrl-C reaches the program that is in the foreground. It takes the shell's place, as dash can lose the signal while it forks.
    keys.write_all(b"\x03").unwrap();
    let status = inside.status();
    assert!(status == libc::SIGINT || status == 130 << 8, "{status}");
    end(&container, &mut peer);
}

pub fn what_cannot_run_inside_is_told(context: &Context) {
    let container = context.shell("cannot", "sleep 600");
    let mut peer = container.launch(&context.zygote);
    peer.started();
    let missing = Exec { program: ExecPlan { path: "/no/such".into(), argv: Vec::new() }, ..shell("") };
    assert_eq!(status_of(&container, &missing), 1 << 8);
    assert!(container.stderr().contains("Failed to execute '/no/such'"), "{}", container.stderr());
    let nowhere = Exec { directory: Some("/no/such".into()), ..shell("true") };
    assert_eq!(status_of(&container, &nowhere), 1 << 8);
    let without = Exec { stdio: ExecStdio::Passed, ..shell("true") };
    let refused = enter(&container.dir, &without, &[]);
    assert!(matches!(refused, Err(EnterError::Refused(message)) if message.contains("three files")));
    // Two at once by one connection.
    let mut inside = Inside::begin(&container, &shell("sleep 600"));
    let line = encode_line(&Request::Exec(shell("true"))).unwrap();
    inside.lines.get_mut().write_all(&line).unwrap();
    assert!(matches!(inside.event(), Some(Event::Refused { .. })));
    drop(inside);
    assert!(Path::new(&container.dir).exists());
    end(&container, &mut peer);
}
