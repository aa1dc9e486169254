//! What the shim's tests share: a scratch directory, containers in it, and a look for leftovers.

pub mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libcontainer::oci_spec::runtime::{
    LinuxBuilder, LinuxNamespaceBuilder, LinuxNamespaceType as Kind, MountBuilder, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder,
};
use tepui_shim::{
    Event, ExecPlan, ExitRecord, FirstProcess, LaunchPlan, Liveness, Outcome, Request, RootFs, State, Zygote,
    decode_line, encode_line,
};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a test works with.
pub struct Context {
    pub zygote: Zygote,
    /// Removed at the end by this process, which sees none of the containers' mounts.
    pub dir: PathBuf,
    mounts: String,
}

impl Context {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make containers and need root");
        let zygote = Zygote::fork().unwrap();
        let dir = tempfile::tempdir().unwrap().keep();
        let mounts = mount_table(&dir);
        Self { zygote, dir, mounts }
    }

    /// A container that runs `command` in a shell on the host's root file system.
    pub fn shell(&self, id: &str, command: &str) -> Container {
        let exec =
            ExecPlan { path: "/bin/sh".into(), argv: ["sh", "-c", command].map(str::to_owned).to_vec() };
        self.container(id, exec)
    }

    pub fn container(&self, id: &str, exec: ExecPlan) -> Container {
        let dir = self.dir.join(id);
        for part in ["rootfs", "sandbox"] {
            fs::create_dir_all(dir.join(part)).unwrap();
        }
        let plan = LaunchPlan {
            container_id: id.to_owned(),
            rootfs: RootFs::Host,
            mounts: Vec::new(),
            device_mounts: Vec::new(),
            volumes: Vec::new(),
            directory: None,
            stdout: dir.join("sandbox/stdout"),
            stderr: dir.join("sandbox/stderr"),
            rotation: None,
            stdio_owner: (0, 0),
            exec,
            first_process: FirstProcess::Init,
            cgroup_procs: Vec::new(),
            shared_cgroups: false,
            oom_score_adj: None,
            privileges: Default::default(),
            hold: false,
            terminal: None,
        };
        let spec = spec(&[Kind::Mount, Kind::Pid, Kind::Ipc, Kind::Uts]);
        Container { dir, plan, spec }
    }

    /// Panics if a process, a mount or a directory of the test's containers is left.
    pub fn leftovers(&self) {
        wait_until("no process has to do with the scratch directory any more", || {
            self.processes().is_empty()
        });
        assert_eq!(mount_table(&self.dir), self.mounts, "the host's mounts are as before");
    }

    /// Processes that work in the scratch directory, or have it among their arguments or environment.
    fn processes(&self) -> Vec<(i32, String)> {
        let needle = self.dir.to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let (path, pid) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(pid) = pid.parse() else { continue };
            let text = |name: &str| {
                String::from_utf8_lossy(&fs::read(path.join(name)).unwrap_or_default()).into_owned()
            };
            let cwd = fs::read_link(path.join("cwd")).unwrap_or_default();
            if cwd.starts_with(&self.dir)
                || text("cmdline").contains(needle)
                || text("environ").contains(needle)
            {
                found.push((pid, format!("{} in {}", text("comm").trim(), cwd.display())));
            }
        }
        found
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // Only a test that failed has left any.
        for (pid, process) in self.processes() {
            eprintln!("left behind: {process}");
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        if let Err(error) = tepui_shim::remove_tree(&self.dir) {
            eprintln!("{error}");
        }
    }
}

/// The mounts of the host, but for those that other tests make meanwhile: in their own directories, and for networks with names.
fn mount_table(own: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_ours = |line: &&str| {
        let point = Path::new(line.split(' ').nth(4).unwrap());
        let elsewhere = point.starts_with(std::env::temp_dir()) || point.starts_with("/run/netns");
        point.starts_with(own) || !elsewhere
    };
    table.lines().filter(is_ours).map(|line| format!("{line}\n")).collect()
}

/// A container to be.
pub struct Container {
    pub dir: PathBuf,
    pub plan: LaunchPlan,
    pub spec: Spec,
}

impl Container {
    pub fn write(&self) {
        let mut spec = self.spec.clone();
        let environment =
            vec!["PATH=/usr/local/bin:/usr/bin:/bin".to_owned(), format!("SCRATCH={}", self.dir.display())];
        if let Some(process) = spec.process_mut() {
            process.set_env(Some(environment));
        }
        spec.save(self.dir.join("config.json")).unwrap();
        self.plan.save(&self.dir).unwrap();
    }

    pub fn launch(&self, zygote: &Zygote) -> Peer {
        self.write();
        Peer::new(zygote.launch(&self.dir).unwrap())
    }

    /// Runs it to its end.
    pub fn run(&self, zygote: &Zygote) -> ExitRecord {
        let mut peer = self.launch(zygote);
        loop {
            if let State::Ended(record) = peer.state() {
                assert_eq!(
                    ExitRecord::load(&self.dir).unwrap(),
                    Some(record.clone()),
                    "the file says the same"
                );
                self.wait_for_shim();
                return record;
            }
        }
    }

    pub fn wait_for_shim(&self) {
        wait_until("the shim has ended", || !Liveness::is_held(&self.dir).unwrap());
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.plan.stdout).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.plan.stderr).unwrap_or_default()
    }
}

/// A connection to a shim.
pub struct Peer {
    stream: BufReader<UnixStream>,
}

impl Peer {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub fn event(&mut self) -> Option<Event> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        (!line.is_empty()).then(|| decode_line(&line).unwrap())
    }

    pub fn state(&mut self) -> State {
        match self.event().expect("the shim ended without a word") {
            Event::State(state) => state,
            other => panic!("{other:?} is not a state"),
        }
    }

    pub fn started(&mut self) -> i32 {
        match self.state() {
            State::Started { pid } => pid,
            other => panic!("{other:?} instead of the start"),
        }
    }

    pub fn ended(&mut self) -> Outcome {
        match self.state() {
            State::Ended(record) => record.outcome,
            other => panic!("{other:?} instead of the end"),
        }
    }

    pub fn ask(&mut self, request: &Request) {
        self.stream.get_mut().write_all(&encode_line(request).unwrap()).unwrap();
    }
}

/// An OCI runtime spec for the host's root file system with a `/proc` of its own.
pub fn spec(namespaces: &[Kind]) -> Spec {
    let namespaces =
        namespaces.iter().map(|kind| LinuxNamespaceBuilder::default().typ(*kind).build().unwrap());
    let options = ["nosuid", "noexec", "nodev"].map(str::to_owned);
    let proc = MountBuilder::default()
        .destination("/proc")
        .typ("proc")
        .source("proc")
        .options(options)
        .build()
        .unwrap();
    let process = ProcessBuilder::default()
        .terminal(false)
        .cwd("/")
        .args(["unused".to_owned()])
        .no_new_privileges(false);
    let linux = LinuxBuilder::default()
        .namespaces(namespaces.collect::<Vec<_>>())
        .cgroups_path(tepui_shim::LIBCONTAINER_PATH);
    SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path("rootfs").readonly(false).build().unwrap())
        .mounts([proc])
        .process(process.build().unwrap())
        .linux(linux.build().unwrap())
        .build()
        .unwrap()
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn exited(code: i32) -> Outcome {
    Outcome::Exited { status: code << 8 }
}

pub fn killed(signal: i32) -> Outcome {
    Outcome::Exited { status: signal }
}

pub fn exists(process: i32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}
