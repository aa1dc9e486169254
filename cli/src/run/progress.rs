//! A progress bar while an agent pulls the task's image.
//!
//! The agent tells about its pulls at `/tepui/v1/pulls`; other agents do not have that page, and then
//! there is no bar. Dropping a [`PullProgress`] takes the bar away.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tepui_api::MediaType;
use tepui_api::client::Client;
use tokio::task::JoinHandle;

const INTERVAL: Duration = Duration::from_millis(100);

/// A bar that shows itself once there is a pull under way.
pub struct PullProgress {
    bar: ProgressBar,
    task: JoinHandle<()>,
}

// === impl PullProgress ===

impl PullProgress {
    /// Watches the pull of this image on the agent at `authority`. Draws only on a terminal.
    #[must_use]
    pub fn show(authority: &str, image: &str) -> Self {
        let bar = ProgressBar::hidden();
        if let Ok(style) =
            ProgressStyle::with_template("pulling {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}")
        {
            bar.set_style(style);
        }
        bar.set_message(image.to_owned());
        let client = Client::new(authority, MediaType::Json);
        let task = tokio::spawn(watch(client, bar.clone(), image.to_owned()));
        Self { bar, task }
    }
}

impl Drop for PullProgress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

async fn watch(client: Client, bar: ProgressBar, image: String) {
    let mut drawn = false;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Ok(body) = client.get("/tepui/v1/pulls").await else { return };
        let Ok(Value::Array(pulls)) = serde_json::from_slice(&body) else { return };
        let Some(pull) = pulls.iter().find(|pull| names(pull, &image)) else { continue };
        if !drawn {
            drawn = true;
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        bar.set_length(sum(pull, "total"));
        bar.set_position(sum(pull, "done"));
    }
}

/// The agent may name the image by its full reference.
fn names(pull: &Value, image: &str) -> bool {
    pull["image"].as_str().is_some_and(|name| name.contains(image) || image.contains(name))
}

fn sum(pull: &Value, key: &str) -> u64 {
    let layers = pull["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
    layers.iter().filter_map(|layer| layer[key].as_u64()).sum()
}
