//! A host for one test: isolators under a cgroup root of their own, and processes put into containers.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tepui_api::resources::Resources;
use tepui_isolators::cgroups::{Cgroups, Hierarchies};
use tepui_isolators::{
    Composition, ContainerContext, ContainerId, Contribution, Limitation, Limits, Settings, build,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// For an emulated processor, on a host whose memory comes slowly. Only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(200);

/// Isolators, and where they report.
pub struct Host {
    pub composition: Composition,
    pub limitations: UnboundedReceiver<Limitation>,
    pub sandbox: tempfile::TempDir,
    pub root: Root,
}

/// A `--cgroups_root` that nobody else uses; removed at the end with everything in it.
pub struct Root(pub PathBuf);

/// A process of a test, killed and reaped at the end.
pub struct Process(pub Child);

impl Root {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Root(PathBuf::from(format!("tepui-test-{}-{number}", std::process::id())))
    }

    /// What is left in any tree below this root.
    pub fn left(&self) -> Vec<PathBuf> {
        let trees = Hierarchies::detect().unwrap().0;
        let dirs = trees.iter().filter_map(|tree| fs::read_dir(tree.mount.join(&self.0)).ok());
        dirs.flat_map(|dir| dir.filter_map(Result::ok))
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let hierarchies = Hierarchies::detect().unwrap();
        if let Ok(cgroups) = Cgroups::new(hierarchies.clone(), &self.0, &[]) {
            for id in cgroups.orphans(&Default::default()).unwrap_or_default() {
                let _ = cgroups.kill_all(&id, PATIENCE);
                let _ = cgroups.destroy(&id, PATIENCE);
            }
        }
        for tree in hierarchies.0 {
            let _ = fs::remove_dir(tree.mount.join(&self.0));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Host {
    pub fn new(names: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        let root = Root::new();
        let mut settings = Settings { cgroups_root: root.0.clone(), ..Settings::default() };
        change(&mut settings);
        let (sender, limitations) = unbounded_channel();
        let composition = build(names, &settings, &sender).unwrap();
        Host { composition, limitations, sandbox: tempfile::tempdir().unwrap(), root }
    }

    pub fn cgroups(&self) -> &Cgroups {
        self.composition.cgroups.as_ref().unwrap()
    }

    pub fn context(&self, id: &str, resources: &str, limits: &[(&str, f64)]) -> ContainerContext {
        ContainerContext {
            container_id: ContainerId::new(id),
            executor: None,
            task: Some(Default::default()),
            container: None,
            requests: Resources::parse(resources, "*").unwrap(),
            limits: limits.iter().map(|(name, limit)| ((*name).to_owned(), *limit)).collect::<Limits>(),
            sandbox: self.sandbox.path().to_owned(),
            user: None,
            has_rootfs: false,
            volumes: Vec::new(),
        }
    }

    /// As `context`, for a task with labels.
    pub fn labelled(&self, id: &str, labels: &[(&str, &str)]) -> ContainerContext {
        let mut context = self.context(id, "cpus:1;mem:64", &[]);
        let label = |(key, value): &(&str, &str)| tepui_api::v1::Label {
            key: (*key).to_owned(),
            value: Some((*value).to_owned()),
        };
        let labels = tepui_api::v1::Labels { labels: labels.iter().map(label).collect() };
        context.task = Some(tepui_api::v1::TaskInfo { labels: Some(labels), ..Default::default() });
        context
    }

    /// Prepares until an isolator refuses, and cleans up; what it says.
    pub async fn refused(&self, context: &ContainerContext) -> String {
        let mut contribution = Contribution::default();
        let mut error = None;
        for isolator in &self.composition.isolators {
            if let Err(refusal) = isolator.prepare(context, &mut contribution).await {
                error = Some(refusal.to_string());
                break;
            }
        }
        self.cleanup(&context.container_id).await;
        // An isolator refuses, or the test is wrong.
        error.unwrap()
    }

    pub async fn prepare(&self, context: &ContainerContext) -> Contribution {
        let mut contribution = Contribution::default();
        for isolator in &self.composition.isolators {
            isolator.prepare(context, &mut contribution).await.unwrap();
        }
        contribution
    }

    pub async fn usage(&self, id: &ContainerId) -> tepui_api::v1::ResourceStatistics {
        let mut statistics = Default::default();
        for isolator in &self.composition.isolators {
            isolator.usage(id, &mut statistics).await.unwrap();
        }
        statistics
    }

    pub async fn exited(&self, id: &ContainerId) -> Option<Limitation> {
        let mut limitation = None;
        for isolator in &self.composition.isolators {
            limitation = limitation.or(isolator.exited(id, 9).await.unwrap());
        }
        limitation
    }

    pub async fn cleanup(&self, id: &ContainerId) {
        for isolator in self.composition.isolators.iter().rev() {
            isolator.cleanup(id).await.unwrap();
        }
    }
}

/// Runs a shell script as a process of the container.
pub fn run(contribution: &Contribution, script: &str) -> Process {
    let enter = r#"while [ "$1" != -- ]; do echo 0 > "$1" || exit 99; shift; done; eval "$2""#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", enter, "sh"]).args(&contribution.cgroup_procs).args(["--", script]);
    Process(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Looks until there is something to see.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
