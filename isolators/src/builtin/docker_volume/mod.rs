//! `docker/volume`: volumes of Docker's volume plugins.
//!
//! Mesos runs the program `dvdcli` for each; here the plugins are asked directly (`plugin`). A volume is mounted by its plugin when the first
//! container uses it and taken away when the last one has ended, whatever happens to the agent meanwhile: which container uses what
//! is on disk before the plugin is asked (`checkpoint`), and an agent that starts anew takes away what no container of its uses. To a plugin, all
//! containers of an agent are one user, whose id belongs to the checkpoint directory; so there is one Unmount for each Mount.
//!
//! Rules: Mesos' `docs/isolators/docker-volume.md`, `src/slave/containerizer/mesos/isolators/docker/volume/isolator.cpp`.

mod checkpoint;
mod plugin;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};
use tepui_api::v1::Volume;

use super::table::Table;
use super::volumes::{Kind, mount, volumes};
use crate::catalogue::Parts;
use crate::compose::MakeError;
use crate::isolator::{
    Answer, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Recovered,
};
use crate::volume::VolumeSource;
use checkpoint::{Checkpoints, Name, Used};
use plugin::Plugins;

struct DockerVolume {
    plugins: Plugins,
    checkpoints: Checkpoints,
    /// `--docker_volume_chown`.
    chown: bool,
    /// Who we are to plugins.
    id: String,
    /// What each container uses. No lock is held while a plugin is waited for, but for the volume's own.
    containers: Table<Vec<Name>>,
    volumes: Mutex<HashMap<Name, Arc<tokio::sync::Mutex<State>>>>,
}

/// How a volume is. Locked while its plugin is asked.
#[derive(Debug, Default)]
struct State {
    users: BTreeSet<String>,
    mount: Mount,
}

#[derive(Debug, Default, PartialEq)]
enum Mount {
    #[default]
    None,
    /// The plugin was asked, or was to be asked by an agent that died; it may be mounted.
    Perhaps,
    /// At this path of the host.
    At(PathBuf),
}

/// What a container asks for.
struct Wanted<'a> {
    volume: &'a Volume,
    name: Name,
    options: Vec<(String, String)>,
}

pub(crate) fn make(parts: &Parts) -> Result<Arc<dyn Isolator>, MakeError> {
    let settings = &parts.settings.volumes;
    let dir = &settings.docker_checkpoint_dir;
    let checkpoints = Checkpoints::open(dir).map_err(|error| {
        MakeError::Setting(format!(
            "the directory of --docker_volume_checkpoint_dir, {}, cannot be made: {error}",
            dir.display()
        ))
    })?;
    let plugins = Plugins {
        sockets: settings.docker_plugin_sockets.clone(),
        specs: settings.docker_plugin_specs.clone(),
        timeout: settings.docker_call_timeout,
    };
    Ok(Arc::new(DockerVolume::new(plugins, checkpoints, settings.docker_chown)))
}

impl DockerVolume {
    fn new(plugins: Plugins, checkpoints: Checkpoints, chown: bool) -> Self {
        let id = user_id(checkpoints.root());
        DockerVolume {
            plugins,
            checkpoints,
            chown,
            id,
            containers: Table::default(),
            volumes: Mutex::default(),
        }
    }

    async fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), IsolatorError> {
        let wanted = wanted(context)?;
        if wanted.is_empty() {
            return Ok(());
        }
        // Before anything is mounted: a path that cannot be is refused without a plugin's work.
        let mut mounts = Vec::new();
        for one in &wanted {
            mounts.push(mount(one.volume, VolumeSource::Host(PathBuf::new()), context)?);
        }
        let id = &context.container_id;
        let mut used: Vec<Used> =
            wanted.iter().map(|one| Used { volume: one.name.clone(), mountpoint: None }).collect();
        self.save(id, &used)?;
        self.containers.insert(id, wanted.iter().map(|one| one.name.clone()).collect());
        for (index, one) in wanted.iter().enumerate() {
            let place = self.mount(id, one).await?;
            used[index].mountpoint = Some(place.clone());
            self.save(id, &used)?;
            if self.chown {
                give(&place, context.user.as_deref())?;
            }
            mounts[index].source = VolumeSource::Host(place);
        }
        contribution.volumes.extend(mounts);
        Ok(())
    }

    fn save(&self, id: &ContainerId, used: &[Used]) -> Result<(), IsolatorError> {
        self.checkpoints.save(&id.value, used).map_err(|error| {
            IsolatorError::Failed(format!(
                "the volumes of the container cannot be written down in {}: {error}",
                self.checkpoints.root().display()
            ))
        })
    }

    async fn mount(&self, id: &ContainerId, one: &Wanted<'_>) -> Result<PathBuf, IsolatorError> {
        let state = self.state(&one.name);
        let mut state = state.lock().await;
        state.users.insert(id.value.clone());
        if let Mount::At(place) = &state.mount {
            return Ok(place.clone());
        }
        state.mount = Mount::Perhaps;
        let Name { driver, name } = &one.name;
        let mounted = self.plugins.mount(driver, name, &one.options, &self.id).await;
        let place = mounted.map_err(|error| IsolatorError::Failed(error.to_string()))?;
        tracing::info!(driver, volume = name, place = %place.display(), "a volume is mounted by its plugin");
        state.mount = Mount::At(place.clone());
        Ok(place)
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<(), IsolatorError> {
        let Some(names) = self.containers.remove(id) else { return Ok(()) };
        let mut failures = Vec::new();
        for name in names {
            if let Err(error) = self.leave(id, &name).await {
                failures.push(error);
            }
        }
        if !failures.is_empty() {
            // What is written down stays: the agent tries again when it starts anew.
            return Err(IsolatorError::Failed(failures.join("; ")));
        }
        self.checkpoints.remove(&id.value).map_err(|error| {
            IsolatorError::Failed(format!("the container's checkpoint of volumes cannot be removed: {error}"))
        })
    }

    /// A container uses a volume no more.
    async fn leave(&self, id: &ContainerId, name: &Name) -> Result<(), String> {
        let shared = self.state(name);
        let mut state = shared.lock().await;
        state.users.remove(&id.value);
        if !state.users.is_empty() || state.mount == Mount::None {
            return Ok(());
        }
        let before = std::mem::take(&mut state.mount);
        let unmounted = self.plugins.unmount(&name.driver, &name.name, &self.id).await;
        drop(state);
        self.forget(name, shared);
        match unmounted {
            Ok(()) => {
                tracing::info!(
                    driver = name.driver,
                    volume = name.name,
                    "a volume is taken away by its plugin"
                );
                Ok(())
            }
            // It never was mounted.
            Err(error) if before == Mount::Perhaps && error.is_refusal() => {
                tracing::debug!(%error, "a volume that may not have been mounted is not unmounted");
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn recover(&self, known: &[Recovered], orphans: &[ContainerId]) -> Result<(), IsolatorError> {
        let failed = |error: std::io::Error| {
            IsolatorError::Failed(format!(
                "the volumes of an earlier run cannot be read from {}: {error}",
                self.checkpoints.root().display()
            ))
        };
        let running: HashSet<&str> = known
            .iter()
            .map(|one| &one.context.container_id)
            .chain(orphans)
            .map(|id| id.value.as_str())
            .collect();
        let mut gone = Vec::new();
        for container in self.checkpoints.list().map_err(failed)? {
            let id = match known.iter().find(|one| one.context.container_id.value == container) {
                Some(one) => one.context.container_id.clone(),
                None => ContainerId::new(container.clone()),
            };
            let used = match self.checkpoints.load(&container) {
                Ok(used) => used,
                Err(error) => {
                    tracing::warn!(%error, container, "the checkpoint of a container's volumes cannot be read and is left alone");
                    continue;
                }
            };
            self.take_over(&id, used).await;
            if !running.contains(container.as_str()) {
                gone.push(id);
            }
        }
        for id in gone {
            tracing::info!(container = %id, "taking away the volumes of a container that is gone");
            if let Err(error) = self.cleanup(&id).await {
                tracing::warn!(container = %id, %error, "volumes of a container that is gone are left; they are tried again at the agent's next start");
            }
        }
        Ok(())
    }

    async fn take_over(&self, id: &ContainerId, used: Vec<Used>) {
        for one in &used {
            let state = self.state(&one.volume);
            let mut state = state.lock().await;
            state.users.insert(id.value.clone());
            match &one.mountpoint {
                Some(place) => state.mount = Mount::At(place.clone()),
                None if state.mount == Mount::None => state.mount = Mount::Perhaps,
                None => {}
            }
        }
        self.containers.insert(id, used.into_iter().map(|one| one.volume).collect());
    }

    fn state(&self, name: &Name) -> Arc<tokio::sync::Mutex<State>> {
        Arc::clone(self.all().entry(name.clone()).or_default())
    }

    /// Forgets a volume that nobody uses and nobody is about to.
    fn forget(&self, name: &Name, state: Arc<tokio::sync::Mutex<State>>) {
        let mut all = self.all();
        // One reference is here, one in the map; nobody can get another while the map is locked.
        if Arc::strong_count(&state) <= 2 {
            all.remove(name);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Name, Arc<tokio::sync::Mutex<State>>>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Docker's own ids are of this form.
fn user_id(root: &Path) -> String {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn wanted(context: &ContainerContext) -> Result<Vec<Wanted<'_>>, IsolatorError> {
    let mut all: Vec<Wanted<'_>> = Vec::new();
    for volume in volumes(context) {
        let (volume, Kind::Docker(docker)) = volume? else { continue };
        let Some(driver) = &docker.driver else {
            return Err(IsolatorError::Refused(format!(
                "the DOCKER_VOLUME '{}' names no driver",
                docker.name
            )));
        };
        let name = Name { driver: driver.clone(), name: docker.name.clone() };
        if all.iter().any(|one| one.name == name) {
            return Err(IsolatorError::Refused(format!(
                "the DOCKER_VOLUME '{}' of driver '{driver}' is there twice",
                docker.name
            )));
        }
        let options = docker.driver_options.iter().flat_map(|options| &options.parameter);
        let options = options.map(|option| (option.key.clone(), option.value.clone())).collect();
        all.push(Wanted { volume, name, options });
    }
    Ok(all)
}

/// Gives a volume's top directory to the container's user.
fn give(place: &Path, user: Option<&str>) -> Result<(), IsolatorError> {
    let Some(name) = user.filter(|name| *name != "root") else { return Ok(()) };
    let failed = |why: String| {
        IsolatorError::Failed(format!("the volume at {} cannot be given to '{name}': {why}", place.display()))
    };
    let user = nix::unistd::User::from_name(name).map_err(|errno| failed(errno.to_string()))?;
    let user = user.ok_or_else(|| failed("there is no such user on this agent".to_owned()))?;
    nix::unistd::chown(place, Some(user.uid), Some(user.gid)).map_err(|errno| failed(errno.to_string()))
}

impl Isolator for DockerVolume {
    fn name(&self) -> &str {
        "docker/volume"
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], orphans: &'a [ContainerId]) -> Answer<'a> {
        Box::pin(DockerVolume::recover(self, known, orphans))
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        Box::pin(DockerVolume::prepare(self, context, contribution))
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        Box::pin(DockerVolume::cleanup(self, id))
    }
}
