//! `tepui images`: the images that an agent, or `tepui run`, keeps in a directory.
//!
//! Works on the directory itself, whether or not an agent has it open: the store is made for several processes. The flags are the agent's.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tepui_agent::flags::RegistryFlags;
use tepui_images::{
    Digest, ImageStore, Phase, Progress, PullOptions, Reference, RegistryLocation, StoreOptions,
};

/// Show, pull and remove the images that an agent keeps
#[derive(Args)]
pub struct ImagesArgs {
    /// Directory of unpacked images
    #[arg(
        long = "docker_store_dir",
        value_name = "DIR",
        default_value = "/tmp/mesos/store/docker",
        global = true
    )]
    store: PathBuf,

    /// Where images are pulled from when their name does not say: a registry's URL, or a directory with archives
    #[arg(
        long = "docker_registry",
        value_name = "URL",
        default_value = "https://registry-1.docker.io",
        global = true
    )]
    registry: String,

    #[command(flatten)]
    registries: RegistryFlags,

    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Name the images that are there
    #[command(visible_alias = "ls")]
    List {
        /// How
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Bring images in
    Pull {
        /// Names, or paths of archives
        #[arg(required = true)]
        images: Vec<String>,
        /// Be content with an image that is there already
        #[arg(long)]
        cached: bool,
    },
    /// Remove images that no container uses
    #[command(visible_alias = "rm")]
    Remove {
        /// Names, as `list` shows them or as a task gives them
        #[arg(required = true)]
        images: Vec<String>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Does what it is told; the exit code.
///
/// # Errors
/// When the store cannot be used, or an image not be pulled.
pub fn images(args: ImagesArgs) -> anyhow::Result<i32> {
    tepui_server::need_root("tepui images")?;
    let options = StoreOptions {
        registry: RegistryLocation::parse(&args.registry).context("--docker_registry")?,
        registry_options: args.registries.options(),
        credentials: args.registries.credentials(),
        ..StoreOptions::default()
    };
    let store = ImageStore::open(&args.store, options)?;
    match args.action {
        Action::List { output } => list(&store, output),
        Action::Pull { images, cached } => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            images.iter().try_for_each(|image| runtime.block_on(pull(&store, image, cached)))?;
            Ok(0)
        }
        Action::Remove { images } => {
            images.iter().try_for_each(|image| remove(&store, image))?;
            Ok(0)
        }
    }
}

fn list(store: &ImageStore, output: Output) -> anyhow::Result<i32> {
    let images = store.list()?;
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => {
            let all: Vec<_> = images
                .iter()
                .map(|image| {
                    serde_json::json!({
                        "name": image.name,
                        "id": image.id.to_string(),
                        "manifest": image.manifest.as_ref().map(ToString::to_string),
                    })
                })
                .collect();
            writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
        }
        Output::Table => {
            let width = images.iter().map(|image| image.name.len()).max().unwrap_or(0).max(4);
            writeln!(out, "{:width$}  ID", "NAME")?;
            for image in images {
                writeln!(out, "{:width$}  {}", image.name, short(&image.id))?;
            }
        }
    }
    Ok(0)
}

/// As much of an id as people look at.
fn short(id: &Digest) -> &str {
    let hex = id.hex();
    hex.get(..12).unwrap_or(hex)
}

async fn pull(store: &ImageStore, image: &str, cached: bool) -> anyhow::Result<()> {
    let reference = Reference::parse(image).with_context(|| format!("'{image}' is no image's name"))?;
    let bars = Bars::default();
    let watcher = bars.clone();
    let options = PullOptions {
        cached,
        progress: Some(Arc::new(move |progress: Progress| watcher.show(&progress))),
        ..PullOptions::default()
    };
    let pulled = store.pull(&reference, options).await;
    bars.clear();
    let pulled = pulled.with_context(|| format!("'{image}' is not pulled"))?;
    println!("{}", pulled.id);
    Ok(())
}

fn remove(store: &ImageStore, image: &str) -> anyhow::Result<()> {
    let Some(removed) = store.remove(image)? else {
        bail!("there is no image '{image}': `tepui images list` names those that there are");
    };
    if !removed.in_use.is_empty() {
        bail!("'{image}' is in use by a container: end its task first");
    }
    println!("removed {} ({} layers, {} bytes)", removed.names.join(", "), removed.layers, removed.bytes);
    Ok(())
}

/// A line for each layer: a bar on a terminal, and otherwise one when it begins and one when it is there.
#[derive(Clone, Default)]
struct Bars {
    all: MultiProgress,
    layers: Arc<Mutex<HashMap<Digest, (ProgressBar, Phase)>>>,
}

impl Bars {
    fn show(&self, progress: &Progress) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        let (bar, phase) = layers.entry(progress.layer.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(progress.total));
            if let Ok(style) =
                ProgressStyle::with_template("{prefix} {msg:12} [{bar:30}] {bytes}/{total_bytes}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(short(&progress.layer).to_owned());
            (bar, Phase::Waiting)
        });
        let words = match progress.phase {
            Phase::Waiting => "waiting",
            Phase::Fetching => "downloading",
            Phase::Unpacking => "unpacking",
            Phase::Done => "done",
            Phase::Present => "already here",
        };
        bar.set_message(words);
        bar.set_position(progress.done);
        if bar.is_hidden() && *phase != progress.phase && progress.phase != Phase::Unpacking {
            eprintln!("{} {words}", short(&progress.layer));
        }
        *phase = progress.phase;
    }

    fn clear(&self) {
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        layers.values().for_each(|(bar, _)| bar.finish());
    }
}
