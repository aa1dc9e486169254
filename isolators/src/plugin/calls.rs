//! The isolator's calls, passed on to the plugin.
//!
//! | call | the plugin is away | it hangs, or fails | it has hung lately |
//! | --- | --- | --- | --- |
//! | `prepare`, `isolate` | waits as long as the call may take, then fails | fails | is tried |
//! | `update` | succeeds: `Recover` will tell | fails | succeeds |
//! | `usage`, `status`, `exited` | nothing is added | fails; the caller goes on | nothing is added |
//! | `cleanup` | succeeds: it is owed | succeeds: it is owed | succeeds: it is owed |

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tepui_api::resources::Resources;
use tepui_api::units;
use tepui_api::v1::{ContainerStatus, ResourceStatistics};
use tonic::{Code, Response, Status};

use super::channel::{Session, with_causes};
use super::proto::{self, Call};
use super::{Plugin, Presence, Shared, contribution, wire};
use crate::isolator::{
    Answer, BoxFuture, ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Limitation,
    Limits, Recovered,
};

/// How long a plugin that did not answer in time is left alone.
pub(super) const QUIET: Duration = Duration::from_secs(10);

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// There is no connection.
    #[error("the plugin is away: {0}")]
    Away(String),
    /// It hangs.
    #[error("the plugin did not answer within {0}")]
    Slow(units::Duration),
    /// It says no.
    #[error("the plugin refuses: {0}")]
    Refused(String),
    /// It broke.
    #[error("the plugin failed, or its answer is not understood: {0}")]
    Failed(String),
    /// It died.
    #[error("the connection to the plugin broke: {0}")]
    Broken(String),
    /// It wants what it may not have.
    #[error("the plugin's contribution is not allowed: {0}")]
    Contribution(String),
    /// Whom it is told of cannot be noted.
    #[error("the agent cannot note what the plugin must clean up: {0}")]
    Ledger(String),
}

// === impl Failure ===

impl Failure {
    fn of(status: &Status) -> Self {
        if let Some(source) = std::error::Error::source(status) {
            return Self::Broken(with_causes(source));
        }
        let text = match status.message() {
            "" => format!("{:?}", status.code()),
            text => text.to_owned(),
        };
        match status.code() {
            Code::Internal | Code::Unknown | Code::Unimplemented | Code::DataLoss => Self::Failed(text),
            _ => Self::Refused(text),
        }
    }

    /// With the step in which it happened.
    fn at(self, step: &str) -> IsolatorError {
        let text = format!("{step}: {self}");
        match self {
            Self::Refused(_) => IsolatorError::Refused(text),
            _ => IsolatorError::Failed(text),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Waits for an answer, but not for ever.
    pub async fn invoke<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        let answer = tokio::time::timeout(limit, answer).await;
        let hung = answer.is_err().then(Instant::now);
        *self.hung.lock().unwrap_or_else(PoisonError::into_inner) = hung;
        match answer {
            Err(_) => Err(Failure::Slow(limit.into())),
            Ok(Err(status)) => Err(Failure::of(&status)),
            Ok(Ok(response)) => Ok(response.into_inner()),
        }
    }

    /// The connection, when there is one.
    async fn connected(&self, limit: Duration) -> Result<Session, Failure> {
        let mut presence = self.presence.subscribe();
        let here = presence.wait_for(|presence| matches!(presence, Presence::Here(_)));
        if let Ok(Ok(found)) = tokio::time::timeout(limit, here).await
            && let Presence::Here(session) = &*found
        {
            return Ok(session.clone());
        }
        match &*self.presence.borrow() {
            Presence::Away(why) => Err(Failure::Away(why.clone())),
            // It came this instant.
            Presence::Here(session) => Ok(session.clone()),
        }
    }

    /// The connection, if there is one over which this call is wanted and likely to be answered.
    fn ready(&self, call: Call) -> Option<Session> {
        self.reachable().filter(|session| session.wants(call))
    }

    /// The connection, if there is one over which calls are likely to be answered.
    fn reachable(&self) -> Option<Session> {
        let hung = *self.hung.lock().unwrap_or_else(PoisonError::into_inner);
        if hung.is_some_and(|at| at.elapsed() < QUIET) {
            return None;
        }
        match &*self.presence.borrow() {
            Presence::Here(session) => Some(session.clone()),
            Presence::Away(_) => None,
        }
    }

    /// Has the plugin clean up after a container that is owed. Whether that is done.
    pub async fn clean(self: &Arc<Self>, session: &Session, id: &ContainerId) -> Result<(), Failure> {
        if !self.ledger.begin_cleaning(id) {
            return Ok(());
        }
        let mut turn = Turn { shared: Arc::clone(self), id: id.clone(), cleaned: false };
        if session.wants(Call::Cleanup) {
            let request = proto::CleanupRequest { container_id: Some(id.clone()) };
            self.invoke(self.timeouts.cleanup, session.client.clone().cleanup(request)).await?;
        }
        turn.cleaned = true;
        Ok(())
    }
}

/// The cleaning up of one container; gives it back if it is dropped before it is done.
struct Turn {
    shared: Arc<Shared>,
    id: ContainerId,
    cleaned: bool,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.ledger.end_cleaning(&self.id, self.cleaned);
    }
}

// === impl Plugin ===

impl Plugin {
    async fn prepare(
        &self,
        context: &ContainerContext,
        contribution: &mut Contribution,
    ) -> Result<(), Failure> {
        let shared = &self.shared;
        let session = shared.connected(shared.timeouts.prepare).await?;
        shared.ledger.begin(context).map_err(|error| Failure::Ledger(error.to_string()))?;
        if !session.wants(Call::Prepare) {
            return Ok(());
        }
        let container = wire::container(context, &shared.sandbox_directory);
        let request = proto::PrepareRequest { container: Some(container) };
        let answer = shared.invoke(shared.timeouts.prepare, session.client.clone().prepare(request)).await?;
        let sandbox = wire::sandbox(context, &shared.sandbox_directory);
        let checked = contribution::check(answer, context, sandbox).map_err(Failure::Contribution)?;
        checked
            .add_to(contribution, &context.container_id, shared.cgroups.as_deref())
            .map_err(Failure::Contribution)
    }

    async fn isolate(&self, id: &ContainerId, pid: u32) -> Result<(), Failure> {
        let shared = &self.shared;
        shared.ledger.change(id, |one| one.pid = Some(pid));
        let session = shared.connected(shared.timeouts.isolate).await?;
        if !session.wants(Call::Isolate) {
            return Ok(());
        }
        let cgroups = shared.cgroups.iter().flat_map(|cgroups| cgroups.dirs(id));
        let cgroups = cgroups.map(|(name, dir)| (name.to_owned(), dir.to_string_lossy().into_owned()));
        let request =
            proto::IsolateRequest { container_id: Some(id.clone()), pid, cgroups: cgroups.collect() };
        shared.invoke(shared.timeouts.isolate, session.client.clone().isolate(request)).await?;
        Ok(())
    }

    async fn update(&self, id: &ContainerId, requests: &Resources, limits: &Limits) -> Result<(), Failure> {
        let shared = &self.shared;
        shared.ledger.change(id, |one| {
            one.context.requests = requests.clone();
            one.context.limits.clone_from(limits);
        });
        let Some(session) = shared.ready(Call::Update) else { return Ok(()) };
        let request = proto::UpdateRequest {
            container_id: Some(id.clone()),
            requests: requests.to_wire(),
            limits: limits.clone(),
        };
        shared.invoke(shared.timeouts.update, session.client.clone().update(request)).await?;
        Ok(())
    }

    async fn usage(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> Result<(), Failure> {
        let shared = &self.shared;
        let Some(session) = shared.ready(Call::Usage) else { return Ok(()) };
        let request = proto::UsageRequest { container_id: Some(id.clone()) };
        let answer = shared.invoke(shared.timeouts.usage, session.client.clone().usage(request)).await?;
        if let Some(more) = answer.statistics {
            wire::add_statistics(statistics, more);
        }
        Ok(())
    }

    async fn status(&self, id: &ContainerId, status: &mut ContainerStatus) -> Result<(), Failure> {
        let shared = &self.shared;
        let Some(session) = shared.ready(Call::Status) else { return Ok(()) };
        let request = proto::StatusRequest { container_id: Some(id.clone()) };
        let answer = shared.invoke(shared.timeouts.status, session.client.clone().status(request)).await?;
        if let Some(more) = answer.status {
            wire::add_status(status, more);
        }
        Ok(())
    }

    async fn exited(&self, id: &ContainerId, wait_status: i32) -> Result<Option<Limitation>, Failure> {
        let shared = &self.shared;
        shared.ledger.change(id, |one| one.pid = None);
        let Some(session) = shared.ready(Call::Exited) else { return Ok(None) };
        let request = proto::ExitedRequest { container_id: Some(id.clone()), wait_status };
        let answer = shared.invoke(shared.timeouts.exited, session.client.clone().exited(request)).await?;
        let Some(limitation) = answer.limitation else { return Ok(None) };
        let limitation = wire::limitation(limitation).map_err(Failure::Failed)?;
        if limitation.container_id != *id {
            let text = format!("it was asked of {id} and answers of {}", limitation.container_id);
            return Err(Failure::Failed(text));
        }
        Ok(Some(limitation))
    }

    async fn cleanup(&self, id: &ContainerId) {
        let shared = &self.shared;
        if !shared.ledger.owe(id) {
            return;
        }
        let cleaned = match shared.reachable() {
            Some(session) => shared.clean(&session, id).await,
            None => Err(Failure::Away("it will be asked once it answers".to_owned())),
        };
        if let Err(error) = cleaned {
            tracing::warn!(container = %id, plugin = shared.name, %error, "A plugin has not cleaned up; it will be asked again.");
            shared.owed.notify_one();
        }
    }
}

impl Isolator for Plugin {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn recover<'a>(&'a self, known: &'a [Recovered], _: &'a [ContainerId]) -> Answer<'a> {
        Box::pin(async move {
            let shared = &self.shared;
            let noted = shared.ledger.recover(known);
            noted.map_err(|error| Failure::Ledger(error.to_string()).at("recover"))?;
            // The plugin is told when it is there. Orphans that it was told of are owed already.
            shared.recovered.send_replace(true);
            Ok(())
        })
    }

    fn prepare<'a>(
        &'a self,
        context: &'a ContainerContext,
        contribution: &'a mut Contribution,
    ) -> Answer<'a> {
        Box::pin(
            async move { self.prepare(context, contribution).await.map_err(|error| error.at("prepare")) },
        )
    }

    fn isolate<'a>(&'a self, id: &'a ContainerId, pid: u32) -> Answer<'a> {
        Box::pin(async move { self.isolate(id, pid).await.map_err(|error| error.at("isolate")) })
    }

    fn update<'a>(&'a self, id: &'a ContainerId, requests: &'a Resources, limits: &'a Limits) -> Answer<'a> {
        Box::pin(async move { self.update(id, requests, limits).await.map_err(|error| error.at("update")) })
    }

    fn usage<'a>(&'a self, id: &'a ContainerId, statistics: &'a mut ResourceStatistics) -> Answer<'a> {
        Box::pin(async move { self.usage(id, statistics).await.map_err(|error| error.at("usage")) })
    }

    fn status<'a>(&'a self, id: &'a ContainerId, status: &'a mut ContainerStatus) -> Answer<'a> {
        Box::pin(async move { self.status(id, status).await.map_err(|error| error.at("status")) })
    }

    fn exited<'a>(&'a self, id: &'a ContainerId, wait_status: i32) -> Answer<'a, Option<Limitation>> {
        Box::pin(async move { self.exited(id, wait_status).await.map_err(|error| error.at("exited")) })
    }

    fn cleanup<'a>(&'a self, id: &'a ContainerId) -> Answer<'a> {
        Box::pin(async move {
            self.cleanup(id).await;
            Ok(())
        })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.manager.abort();
            if let Some(program) = self.program.clone() {
                // It may take its time to end.
                let _ = tokio::task::spawn_blocking(move || program.end()).await;
            }
        })
    }
}
