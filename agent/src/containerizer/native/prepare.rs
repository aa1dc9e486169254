//! Making all of a container but its processes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use oci_spec::runtime::Spec;
use tepui_api::v1::{Image, TtyInfo};
use tepui_images::{ImageConfig, LaunchCommand};
use tepui_isolators::Contribution;
use tepui_shim::{BindMount, ExecPlan, LaunchPlan, RootFs, Rotation, WindowSize, files};

use super::backend::{self, CopyPlan};
use super::image::Provisioned;
use super::spec::{self, Process};
use super::{Container, Inner, Life, NativeContainerizer, command, privileges, user, volumes};
use crate::containerizer::config::ContainerConfig;
use crate::containerizer::error::PrepareError;
use crate::containerizer::logger;
use crate::flags::ImageBackend;

impl NativeContainerizer {
    /// Makes all of a container but its processes. Whether or not it succeeds, [`destroy`](Self::destroy) must follow in the end.
    ///
    /// # Errors
    /// When the container cannot be had as it is asked for, or was destroyed meanwhile.
    pub async fn prepare(&self, mut config: ContainerConfig) -> Result<(), PrepareError> {
        let id = config.container_id.clone();
        let dirs = self.inner.layout.of(&id).ok_or_else(|| PrepareError::Id(id.to_string()))?;
        let parent = match &id.parent {
            None => None,
            Some(parent) => {
                Some(self.inner.get(parent).ok_or_else(|| PrepareError::NoParent(parent.to_string()))?)
            }
        };
        if let Some(parent) = &parent {
            config.user = config.user.or_else(|| parent.config.user.clone());
        }
        let container = Arc::new(Container::new(config, parent, dirs));
        // Before anybody else can see it.
        let _turn = container.turn.lock().await;
        let clash = match self.inner.containers().entry(id.clone()) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Arc::clone(&container));
                false
            }
            std::collections::hash_map::Entry::Occupied(_) => true,
        };
        if clash {
            return Err(PrepareError::Exists(id.to_string()));
        }
        // After it can be seen: whoever destroys its parent either finds it, or is seen here.
        if let Some(parent) = &container.parent
            && *parent.doomed.borrow()
        {
            return Err(PrepareError::ParentEnding(parent.id().to_string()));
        }
        self.inner.prepare(&container).await
    }
}

impl Inner {
    async fn prepare(&self, container: &Arc<Container>) -> Result<(), PrepareError> {
        let config = &container.config;
        config.check(&self.composition)?;
        let rotation = self.settings.rotation.as_ref().filter(|_| !config.holder);
        let rotation = rotation.map(|agent| logger::of_command(agent, &config.command)).transpose()?;
        let image = match config.image() {
            None => None,
            Some(image) => Some(self.provision_unless_doomed(container, image).await?),
        };
        let contribution = self.contributions(container).await?;
        let mut volume_images = HashMap::new();
        for (number, image) in volumes::images(&contribution) {
            volume_images.insert(number, self.provision_unless_doomed(container, image).await?.root);
        }
        let plan = Plan {
            container: Arc::clone(container),
            image,
            contribution,
            volume_images,
            backend: self.backend,
            image_decides: self.composition.has("docker/runtime") && !self.settings.ignore_image_runtime,
            sandbox_directory: self.settings.sandbox_directory.clone(),
            rotation,
        };
        let written = tokio::task::spawn_blocking(move || plan.write());
        let copies = written.await.map_err(|error| PrepareError::Spec(error.to_string()))??;
        for copy in copies {
            backend::copy(container, &self.copying, copy).await?;
        }
        container.life.send_replace(Life::Prepared);
        Ok(())
    }

    async fn provision_unless_doomed(
        &self,
        container: &Container,
        image: &Image,
    ) -> Result<Provisioned, PrepareError> {
        tokio::select! {
            provisioned = self.provision(image, &container.dirs.runtime) => provisioned,
            () = container.doom() => Err(PrepareError::Cancelled),
        }
    }

    /// What the isolators add.
    async fn contributions(&self, container: &Container) -> Result<Contribution, PrepareError> {
        let spec = spec::base(&container.config).map_err(|error| PrepareError::Spec(error.to_string()))?;
        let mut contribution = Contribution { spec, ..Contribution::default() };
        let context = container.context();
        let _turn = container.calls.lock().await;
        for isolator in self.isolators(container) {
            isolator
                .prepare(&context, &mut contribution)
                .await
                .map_err(|source| PrepareError::Isolator { name: isolator.name().to_owned(), source })?;
        }
        if container.config.shares_cgroups()
            && let Some(cgroups) = &self.composition.cgroups
        {
            let files = cgroups.attach_files(container.cgroups_of().id());
            contribution.cgroup_procs.extend(files.map_err(|error| PrepareError::Spec(error.to_string()))?);
        }
        Ok(contribution)
    }
}

/// What is known of a container before its files are written.
struct Plan {
    container: Arc<Container>,
    image: Option<Provisioned>,
    contribution: Contribution,
    /// The content of volumes that are images, by their place among the contributed.
    volume_images: HashMap<usize, tepui_images::RootFs>,
    /// What is made of images.
    backend: ImageBackend,
    /// Whether the image's entrypoint, environment and so on apply.
    image_decides: bool,
    sandbox_directory: String,
    /// How its output is rotated, if it is.
    rotation: Option<Rotation>,
}

impl Plan {
    /// Makes the container's directories, and writes what its shim reads. Tells what must be copied before that is true. Blocks on the disk.
    fn write(self) -> Result<Vec<CopyPlan>, PrepareError> {
        let (config, dirs) = (&self.container.config, &self.container.dirs);
        let image_config: Option<&ImageConfig> =
            self.image.as_ref().filter(|_| self.image_decides).map(|image| &image.image.config);
        let user = user::find(config.user.as_deref(), self.image.as_ref().map(|image| &image.root))?;
        let program = match config.holder {
            true => None,
            false => Some(command::program(config, image_config)?),
        };
        let program = program.unwrap_or(LaunchCommand { path: String::new(), argv: Vec::new() });
        let directory = command::directory(config, image_config, &self.sandbox_directory);
        let environment =
            command::environment(config, image_config, &self.contribution.environment, &directory);
        let io = |(path, source)| PrepareError::Io { path, source };

        dirs.make().map_err(io)?;
        let mut copies = Vec::new();
        let (rootfs, mut mounts) = match &self.image {
            None if config.holder => (RootFs::Host, Vec::new()),
            None => (RootFs::Host, spec::host_mounts(config, dirs.make_tmp().map_err(io)?)),
            Some(image) => {
                let lowers = image.root.lower().to_vec();
                let rootfs = match self.backend {
                    ImageBackend::Overlay => {
                        let (upper, work) = dirs.make_overlay().map_err(io)?;
                        RootFs::Overlay { lowers, upper, work }
                    }
                    ImageBackend::Copy => {
                        let path = dirs.make_copy().map_err(io)?;
                        copies.push(CopyPlan { layers: image.root.clone(), target: path.clone() });
                        RootFs::Copy { path, lowers }
                    }
                };
                let mut binds = spec::image_binds(config, &self.sandbox_directory);
                // What an isolator gives the container comes in place of the host's.
                binds.retain(|bind| self.contribution.mounts.iter().all(|mount| mount.target != bind.target));
                (rootfs, binds)
            }
        };
        mounts.extend(self.contribution.mounts.iter().map(|mount| BindMount {
            source: mount.source.clone(),
            target: mount.target.clone(),
            recursive: mount.recursive,
            read_only: mount.read_only,
        }));
        let sandbox = match &self.image {
            None => config.sandbox.clone(),
            Some(_) => self.sandbox_directory.clone().into(),
        };
        let images =
            volumes::Images { layers: &self.volume_images, backend: self.backend, copies: &mut copies };
        let (volumes, secrets) = volumes::plans(&self.contribution, images, &sandbox, dirs).map_err(io)?;
        *self.container.secrets() = secrets;
        let mut spec = self.contribution.spec;
        let plan = LaunchPlan {
            container_id: plain(&config.container_id.value),
            rootfs,
            device_mounts: spec::device_mounts(&spec, &mounts),
            mounts,
            volumes,
            directory: self.image.as_ref().map(|_| directory.clone().into()),
            stdout: config.sandbox.join("stdout"),
            stderr: config.sandbox.join("stderr"),
            rotation: self.rotation,
            stdio_owner: (user.uid, user.gid),
            exec: ExecPlan { path: program.path, argv: program.argv.clone() },
            first_process: spec::first_process(&spec, config),
            cgroup_procs: self.contribution.cgroup_procs.clone(),
            shared_cgroups: config.shares_cgroups(),
            oom_score_adj: self.contribution.oom_score_adj,
            privileges: privileges::take(&mut spec)?,
            hold: true,
            terminal: config
                .container
                .as_ref()
                .and_then(|container| container.tty_info.as_ref())
                .map(window_size),
        };
        plan.save(&dirs.runtime)?;
        let process = Process { argv: &program.argv, environment, directory: &directory, user: &user };
        spec::complete(&mut spec, process).map_err(|error| PrepareError::Spec(error.to_string()))?;
        save(&spec, &dirs.runtime, config)?;
        Ok(copies)
    }
}

/// An id as `libcontainer` takes it. It knows of no other container.
fn plain(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || "_+-.".contains(c) { c } else { '_' }).collect()
}

/// Without a size, the usual one.
fn window_size(info: &TtyInfo) -> WindowSize {
    let fits = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    info.window_size.as_ref().map_or_else(WindowSize::default, |size| WindowSize {
        rows: fits(size.rows),
        columns: fits(size.columns),
    })
}

fn save(spec: &Spec, runtime: &Path, config: &ContainerConfig) -> Result<(), PrepareError> {
    let path = runtime.join(files::CONFIG);
    let text = serde_json::to_vec(spec).map_err(|error| PrepareError::Spec(error.to_string()))?;
    std::fs::write(&path, text).map_err(|source| PrepareError::Io { path, source })?;
    tracing::debug!(container = %config.container_id, "a container is prepared");
    Ok(())
}
