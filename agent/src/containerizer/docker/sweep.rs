//! Removing what is not needed any more: containers that ended some time ago, and those that nobody knows.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bollard::models::ContainerStateStatusEnum;
use chrono::DateTime;

use super::{ID, Inner, OWNER, PREFIX};

/// Between sweeps.
const PAUSE: Duration = Duration::from_secs(30);
/// The same, for as long as nothing needs to be kept.
const SOON: Duration = Duration::from_secs(5);

impl Inner {
    /// Sweeps again and again, for as long as the containerizer lives.
    pub(super) fn sweep_from_now_on(self: &Arc<Self>) {
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(pause) = sweep(&inner).await {
                tokio::time::sleep(pause).await;
            }
        });
    }

    async fn sweep(&self) {
        let all = match self.engine.list(vec![format!("{OWNER}={}", self.owner())]).await {
            Ok(all) => all,
            Err(error) => {
                tracing::debug!(%error, "the engine does not say which containers there are");
                return;
            }
        };
        for summary in all {
            let Some(id) = summary.labels.as_ref().and_then(|labels| labels.get(ID)) else { continue };
            let name = format!("{PREFIX}{id}");
            if self.containers().keys().any(|known| known.to_string() == *id) {
                continue;
            }
            let Ok(Some(inspected)) = self.engine.inspect(&name).await else { continue };
            let state = inspected.state.unwrap_or_default();
            let unwanted = match state.status {
                Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD) => {
                    let age = state.finished_at.as_deref().and_then(age);
                    age.is_none_or(|age| age >= self.settings.remove_delay)
                }
                // It was never started, and its task is over.
                Some(ContainerStateStatusEnum::CREATED) => true,
                _ => self.settings.kill_orphans,
            };
            // It may have become known meanwhile only if it is new; those are known before the engine makes them.
            if unwanted {
                tracing::info!(container = id, "removing a Docker container that is not needed any more");
                if let Err(error) = self.engine.remove(&name).await {
                    tracing::warn!(container = id, %error, "a Docker container is not removed; that is tried again");
                }
            }
        }
    }
}

/// `None` when there is no containerizer any more; otherwise how long to wait until the next.
async fn sweep(inner: &Weak<Inner>) -> Option<Duration> {
    let inner = inner.upgrade()?;
    inner.sweep().await;
    Some(if inner.settings.remove_delay < PAUSE { SOON } else { PAUSE })
}

/// How long ago that was.
fn age(time: &str) -> Option<Duration> {
    let then = SystemTime::from(DateTime::parse_from_rfc3339(time).ok()?);
    SystemTime::now().duration_since(then).ok()
}
