//! What the tests share: a containerizer in a scratch directory, containers in it, and a look for leftovers.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tepui_agent::containerizer::{ContainerConfig, Exited, NativeContainerizer, Settings, SetupError};
use tepui_agent::flags::ImageBackend;
use tepui_api::v1::container_info::{MesosInfo, Type};
use tepui_api::v1::value::Scalar;
use tepui_api::v1::{CommandInfo, ContainerId, ContainerInfo, Image, Resource, image, value};
use tepui_images::StoreOptions;
use tepui_shim::Zygote;
use tokio::sync::mpsc::UnboundedReceiver;

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// What a test works with.
pub struct Context {
    /// Removed at the end by this process, which sees none of the containers' mounts.
    pub dir: PathBuf,
    pub cgroups_root: String,
    /// Forked before there was a second thread; one for each containerizer that a test may make.
    zygotes: Mutex<Vec<Zygote>>,
    runtime: tokio::runtime::Runtime,
    mounts: String,
}

/// A containerizer, and what it tells.
pub struct Host {
    pub containerizer: NativeContainerizer,
    pub exits: tokio::sync::Mutex<UnboundedReceiver<Exited>>,
}

impl Context {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "these tests make containers and need root");
        // Those of the last test's runtime end with a delay.
        wait_until("there is one thread", || fs::read_dir("/proc/self/task").unwrap().count() == 1);
        let zygotes = (0..3).map(|_| Zygote::fork().unwrap()).collect();
        let dir = tempfile::tempdir().unwrap().keep();
        // Passed by users that are not root on their way to their sandbox.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mounts = mount_table(&dir);
        Self {
            dir,
            cgroups_root: format!("tepui-test-{}-{number}", std::process::id()),
            zygotes: Mutex::new(zygotes),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            mounts,
        }
    }

    /// Runs a test's future, for no longer than the deadline.
    pub fn run<T>(&self, test: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(DEADLINE, test).await.expect("the test takes too long") })
    }

    /// Within [`Context::run`] only.
    pub fn host(&self) -> Host {
        self.host_with(&[
            "cgroups/cpu",
            "cgroups/mem",
            "disk/du",
            "filesystem/linux",
            "docker/runtime",
            "namespaces/pid",
        ])
    }

    pub fn host_with(&self, isolation: &[&str]) -> Host {
        self.host_with_own(isolation, Vec::new())
    }

    /// With isolators of the test's own.
    pub fn host_with_own(&self, isolation: &[&str], own: Vec<tepui_isolators::Custom>) -> Host {
        self.make_host(isolation, own, None).unwrap()
    }

    /// One that makes root file systems of images in this way.
    pub fn host_with_backend(&self, backend: ImageBackend) -> Host {
        self.try_host_with_backend(Some(backend)).unwrap()
    }

    pub fn try_host_with_backend(&self, backend: Option<ImageBackend>) -> Result<Host, SetupError> {
        let isolation = ["disk/du", "filesystem/linux", "docker/runtime", "namespaces/pid"];
        self.make_host(&isolation, Vec::new(), backend)
    }

    fn make_host(
        &self,
        isolation: &[&str],
        own: Vec<tepui_isolators::Custom>,
        image_backend: Option<ImageBackend>,
    ) -> Result<Host, SetupError> {
        let settings = Settings {
            rotation: None,
            runtime_dir: self.dir.join("run"),
            work_dir: self.dir.join("work"),
            isolation: isolation.iter().map(|name| (*name).to_owned()).collect(),
            isolators: tepui_isolators::Settings {
                cgroups_root: self.cgroups_root.clone().into(),
                cgroups_enable_cfs: true,
                ..tepui_isolators::Settings::default()
            },
            image_store_dir: self.dir.join("store"),
            image_options: StoreOptions::default(),
            image_backend,
            ignore_image_runtime: false,
            sandbox_directory: "/mnt/mesos/sandbox".to_owned(),
            shim_patience: std::time::Duration::from_secs(60),
        };
        let zygote = self.zygotes.lock().unwrap().pop().expect("a test has three zygotes");
        let (containerizer, exits) = NativeContainerizer::with_isolators(settings, zygote, own)?;
        Ok(Host { containerizer, exits: tokio::sync::Mutex::new(exits) })
    }

    /// A container that runs a line in a shell, with a sandbox that is there.
    pub fn shell(&self, id: &str, line: &str) -> ContainerConfig {
        let sandbox = self.dir.join("sandboxes").join(id);
        fs::create_dir_all(&sandbox).unwrap();
        for name in ["stdout", "stderr"] {
            fs::write(sandbox.join(name), "").unwrap();
        }
        let environment = [("PATH", "/usr/bin:/bin"), ("SCRATCH", self.dir.to_str().unwrap())];
        ContainerConfig {
            container_id: ContainerId::new(id),
            task: None,
            executor: None,
            resources: vec![scalar("cpus", 0.5), scalar("mem", 64.0), scalar("disk", 64.0)],
            limits: BTreeMap::new(),
            command: CommandInfo { value: Some(line.to_owned()), ..CommandInfo::default() },
            container: None,
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            user: None,
            sandbox,
            holder: false,
        }
    }

    /// All cgroups of this test's containers.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for root in self.cgroup_roots() {
            found
                .extend(fs::read_dir(root).unwrap().flatten().map(|e| e.path()).filter(|path| path.is_dir()));
        }
        found
    }

    fn cgroup_roots(&self) -> Vec<PathBuf> {
        let base = Path::new("/sys/fs/cgroup");
        let mut roots: Vec<_> =
            fs::read_dir(base).unwrap().flatten().map(|e| e.path().join(&self.cgroups_root)).collect();
        roots.push(base.join(&self.cgroups_root));
        roots.retain(|root| root.is_dir());
        roots
    }

    /// Panics if a process, a mount, a cgroup or a directory of the test's containers is left.
    pub fn leftovers(&self) {
        wait_until("no process has to do with the scratch directory any more", || {
            self.processes().is_empty()
        });
        assert_eq!(mount_table(&self.dir), self.mounts, "the host's mounts are as before");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new(), "no cgroup is left");
        for dir in ["run/containers", "work/containers", "work/provisioner"] {
            let entries = fs::read_dir(self.dir.join(dir)).unwrap().flatten().map(|e| e.path());
            assert_eq!(entries.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "nothing is left in {dir}");
        }
    }

    /// Processes that work in the scratch directory, or have it among their arguments or environment.
    fn processes(&self) -> Vec<(i32, String)> {
        let needle = self.dir.to_str().unwrap();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let text = |name: &str| {
                String::from_utf8_lossy(&fs::read(entry.path().join(name)).unwrap_or_default()).into_owned()
            };
            let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
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
        for root in self.cgroup_roots() {
            let begin = Instant::now();
            while remove_cgroups(&root).is_err() && begin.elapsed() < DEADLINE {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Err(error) = tepui_shim::remove_tree(&self.dir) {
            eprintln!("{error}");
        }
    }
}

fn remove_cgroups(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_cgroups(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

impl Host {
    /// Prepares and starts a container.
    pub async fn start(&self, config: &ContainerConfig) -> u32 {
        self.containerizer.prepare(config.clone()).await.unwrap();
        self.containerizer.start(&config.container_id).await.unwrap()
    }

    /// The next container's end.
    pub async fn exit(&self) -> Exited {
        self.exits.lock().await.recv().await.unwrap()
    }

    /// Runs a container to its end and removes it.
    pub async fn run(&self, config: &ContainerConfig) -> Exited {
        self.start(config).await;
        let exited = self.exit().await;
        assert_eq!(exited.container_id, config.container_id);
        self.containerizer.destroy(&config.container_id).await.unwrap();
        exited
    }

    pub fn no_exit(&self) {
        let mut exits = self.exits.try_lock().unwrap();
        assert!(exits.try_recv().is_err(), "an end was told that was not expected");
    }
}

pub fn scalar(name: &str, amount: f64) -> Resource {
    Resource {
        name: name.to_owned(),
        r#type: value::Type::Scalar.into(),
        scalar: Some(Scalar { value: amount }),
        ..Resource::default()
    }
}

/// To run on an image.
pub fn on_image(name: &str) -> ContainerInfo {
    let docker = image::Docker { name: name.to_owned(), ..image::Docker::default() };
    let image = Image { r#type: image::Type::Docker.into(), docker: Some(docker), ..Image::default() };
    ContainerInfo {
        r#type: Type::Mesos.into(),
        mesos: Some(MesosInfo { image: Some(image) }),
        ..ContainerInfo::default()
    }
}

pub fn stdout(config: &ContainerConfig) -> String {
    fs::read_to_string(config.sandbox.join("stdout")).unwrap()
}

pub fn stderr(config: &ContainerConfig) -> String {
    fs::read_to_string(config.sandbox.join("stderr")).unwrap()
}

/// The text of the first of these files that a cgroup of the container has.
pub fn cgroup_file(context: &Context, id: &str, names: &[&str]) -> String {
    let found = context
        .cgroups()
        .into_iter()
        .filter(|dir| dir.ends_with(id))
        .find_map(|dir| names.iter().find_map(|name| fs::read_to_string(dir.join(name)).ok()));
    found.unwrap_or_else(|| panic!("no cgroup of {id} has one of {names:?}")).trim().to_owned()
}

pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
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

pub fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
