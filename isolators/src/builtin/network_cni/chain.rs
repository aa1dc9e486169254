//! The plugins of one network after another: [`attach`], [`check`] and [`detach`].

use std::path::Path;

use serde_json::Value;

use super::checkpoint::{Attachment, Checkpoint, Stage, namespace};
use super::config::{self, Config};
use super::outcome::Outcome;
use super::plugin::{self, Call};
use super::{NetworkSettings, limits, namespace as handles};

/// Whose networks, and where what is known of them is.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub settings: &'a NetworkSettings,
    /// The container's id, as plugins see it.
    pub container: &'a str,
    pub directory: &'a Path,
}

impl Site<'_> {
    fn save(&self, checkpoint: &Checkpoint) -> Result<(), String> {
        let saved = checkpoint.save(self.directory, self.settings.persist);
        saved.map_err(|error| format!("{} cannot be written to: {error}", self.directory.display()))
    }

    fn call<'b>(
        &'b self,
        verb: &'static str,
        attachment: &'b Attachment,
        config: &'b Config,
        namespace: Option<&'b Path>,
        previous: Option<&'b Value>,
    ) -> Call<'b> {
        Call {
            verb,
            container: self.container,
            directory: self.directory,
            namespace,
            interface: &attachment.interface,
            network: &attachment.network,
            config,
            previous,
            search: &self.settings.plugins_dirs,
            patience: self.settings.plugin_timeout,
        }
    }
}

/// Attaches a container to all its networks, one after the other, and limits their rates. Each step is written down before it is done.
pub(super) async fn attach(site: Site<'_>, checkpoint: &mut Checkpoint) -> Result<(), String> {
    let handle = namespace(site.directory);
    for at in 0..checkpoint.attachments.len() {
        checkpoint.attachments[at].stage = Stage::Begun;
        site.save(checkpoint)?;
        let chains = checkpoint.attachments[at].plugins.len() > 1;
        for step in 0..checkpoint.attachments[at].plugins.len() {
            let attachment = &checkpoint.attachments[at];
            let previous = attachment.result.as_ref();
            let call = site.call("ADD", attachment, &attachment.plugins[step], Some(&handle), previous);
            let printed = call.make().await.map_err(|error| error.to_string())?;
            let result = understood(&printed).map_err(|why| call.failed(why).to_string())?;
            checkpoint.attachments[at].result = Some(result);
            if chains {
                site.save(checkpoint)?;
            }
        }
        limit(&handle, site.container, checkpoint, at)?;
        checkpoint.attachments[at].stage = Stage::Attached;
        site.save(checkpoint)?;
    }
    Ok(())
}

/// What a plugin printed, if it is a result.
fn understood(printed: &[u8]) -> Result<Value, String> {
    let no_result =
        |why: String| format!("it printed '{}', which is no result: {why}", plugin::shown(printed));
    let result = serde_json::from_slice(printed).map_err(|error| no_result(error.to_string()))?;
    Outcome::read(&result).map_err(no_result)?;
    Ok(result)
}

fn limit(handle: &Path, container: &str, checkpoint: &Checkpoint, at: usize) -> Result<(), String> {
    let attachment = &checkpoint.attachments[at];
    if !checkpoint.rates.any() || attachment.limited_by_plugin {
        return Ok(());
    }
    let alias = format!("{container} {}", attachment.interface);
    let through = attachment.egress_through.as_deref();
    limits::apply(handle, &attachment.interface, checkpoint.rates, through, &alias)
        .map_err(|error| format!("the network '{}': {error}", attachment.network))
}

/// Asks the plugins of each network whether all is as they made it; gives the complaints.
pub(super) async fn check(site: Site<'_>, checkpoint: &Checkpoint) -> Vec<String> {
    let handle = namespace(site.directory);
    let mut complaints = Vec::new();
    let wanted = |one: &&Attachment| one.checks && one.stage == Stage::Attached;
    for attachment in checkpoint.attachments.iter().filter(wanted) {
        for config in &attachment.plugins {
            let call = site.call("CHECK", attachment, config, Some(&handle), attachment.known_result());
            if let Err(error) = call.make().await {
                complaints.push(error.to_string());
            }
        }
    }
    complaints
}

/// Detaches a container from all networks that it may be attached to, the last first. What could not be detached stays in the checkpoint.
pub(super) async fn detach(site: Site<'_>, checkpoint: &mut Checkpoint) -> Result<(), String> {
    let unfinished = checkpoint.attachments.iter().any(|one| one.stage == Stage::Begun);
    if unfinished {
        plugin::await_leftovers(site.directory).await?;
    }
    let handle = namespace(site.directory);
    let held = handles::is_held(&handle).then_some(handle.as_path());
    let (mut left, mut errors) = (Vec::new(), Vec::new());
    for attachment in std::mem::take(&mut checkpoint.attachments).into_iter().rev() {
        if attachment.stage == Stage::Planned {
            continue;
        }
        let before = errors.len();
        for config in attachment.plugins.iter().rev() {
            let call = site.call("DEL", &attachment, config, held, attachment.known_result());
            if let Err(error) = call.make().await {
                tracing::warn!(
                    container = site.container, network = attachment.network, plugin = config::kind(config), %error,
                    "A container is not detached from a network."
                );
                errors.push(error.to_string());
            }
        }
        if let Some(through) = &attachment.egress_through
            && let Err(error) = limits::remove(through)
        {
            errors.push(format!("the interface {through} cannot be removed: {error}"));
        }
        if errors.len() > before {
            left.push(attachment);
        }
    }
    left.reverse();
    checkpoint.attachments = left;
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}
