//! The end of a container, noticed whoever is away meanwhile.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::WaitContainerOptions;
use futures_util::StreamExt as _;
use tepui_api::v1::task_status::Reason;

use super::{Container, Inner, logs, usage};
use crate::core::{ContainerEvent, Limitation};

/// Between looks at an engine that does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the last of the output may take when the container has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How long an engine may be away before a container whose process is gone is over without its word.
const WITHOUT_ENGINE: u32 = 30;

/// How a container ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct End {
    /// As wait(2) gives it.
    pub status: Option<i32>,
    pub limitation: Option<Limitation>,
}

impl Inner {
    /// Copies the output of a container that was started, and tells its end.
    pub(super) fn watch(self: &Arc<Self>, container: &Arc<Container>) {
        let (inner, watched) = (Arc::clone(self), Arc::clone(container));
        let watcher = tokio::spawn(async move {
            let end = inner.follow(&watched).await;
            let event = ContainerEvent::Exited { status: end.status, limitation: end.limitation };
            let _ = inner.ends.send((watched.id.clone(), event));
        });
        *container.watcher() = Some(watcher);
    }

    /// Copies the output until the container is over, and how it ended.
    pub(super) async fn follow(&self, container: &Container) -> End {
        let mut copying = std::pin::pin!(self.copy_output(container));
        let mut over = std::pin::pin!(self.until_over(container));
        let mut copied = false;
        let end = loop {
            tokio::select! {
                end = &mut over => break end,
                () = &mut copying, if !copied => copied = true,
            }
        };
        if !copied {
            let _ = tokio::time::timeout(LAST_WORDS, copying).await;
        }
        end
    }

    /// Copies all that is not copied yet, while the container runs.
    fn copy_output(&self, container: &Container) -> impl Future<Output = ()> + use<> {
        let (sandbox, mark) = (container.launch.directory.clone(), self.mark(&container.id));
        // It was looked at when the container was created.
        let rotation = self.rotation(container).unwrap_or_default();
        logs::follow(Arc::clone(&self.engine), container.name(), logs::Place { sandbox, mark, rotation })
    }

    async fn until_over(&self, container: &Container) -> End {
        let name = container.name();
        let mut alone = 0;
        loop {
            if let Ok(api) = self.engine.api().await {
                let mut ended = std::pin::pin!(api.wait_container(&name, None::<WaitContainerOptions>));
                // Whatever it says, how the container is tells more.
                let _ = ended.next().await;
            }
            match self.engine.inspect(&name).await {
                Ok(Some(inspected)) => {
                    alone = 0;
                    if let Some(end) = end_of(&inspected) {
                        return end;
                    }
                }
                Ok(None) => {
                    let message = "the container was removed from the engine by somebody else".to_owned();
                    return End { status: None, limitation: Some(gone(message)) };
                }
                Err(error) => {
                    tracing::debug!(container = %container.id, %error, "the engine does not say how the container is");
                    let pid = container.seen().pid;
                    alone = if usage::is_process_of(pid, &container.id) { 0 } else { alone + 1 };
                    if alone > WITHOUT_ENGINE {
                        let message = format!(
                            "the container's process is gone, and nobody knows how it ended: {error}"
                        );
                        return End { status: None, limitation: Some(gone(message)) };
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The end of one of which nobody can tell more.
fn gone(message: String) -> Limitation {
    Limitation { reason: Reason::ExecutorTerminated, message, resources: Vec::new() }
}

/// How a container ended, if it has.
pub(super) fn end_of(inspected: &ContainerInspectResponse) -> Option<End> {
    let state = inspected.state.as_ref()?;
    let over =
        matches!(state.status, Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD));
    if !over || state.restarting == Some(true) {
        return None;
    }
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1);
    let limit = inspected.host_config.as_ref().and_then(|host| host.memory).unwrap_or(0);
    let limitation = (state.oom_killed == Some(true)).then(|| Limitation {
        reason: Reason::ContainerLimitationMemory,
        message: format!(
            "the container needed more memory than its limit of {} MB, and was ended by the kernel",
            limit >> 20
        ),
        resources: Vec::new(),
    });
    // A program that the engine could not run leaves its words.
    if let (None, Some(error)) = (&limitation, state.error.as_deref().filter(|error| !error.is_empty())) {
        tracing::info!(error, code, "the engine says why a container ended");
    }
    Some(End { status: Some((code & 0xff) << 8), limitation })
}
