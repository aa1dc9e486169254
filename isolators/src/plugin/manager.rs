//! What looks after the connection to a plugin: one task, for as long as the agent runs.
//!
//! ```text
//!  connect ── Handshake ── Recover ── [here: calls are made] ── the connection ends ──┐
//!     ▲            any failure: a pause, longer each time                             │
//!     └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! While the plugin is here, limitations are taken from `Watch`, and what is owed is cleaned up.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::channel::{self, ConnectError, Connection, Session, with_causes};
use super::program::Program;
use super::proto::{self, Call};
use super::{PROTOCOL_VERSION, Presence, Shared, wire};

/// Pauses between attempts to connect: the first, and the longest.
const CONNECT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Pauses between attempts to have the plugin clean up.
const CLEAN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Between two attempts to watch.
const WATCH: Duration = Duration::from_secs(1);
/// After how many attempts in a row that came to a connection, but not to hands shaken, a program is started anew.
const ATTEMPTS: u32 = 3;

/// Keeps a plugin connected.
pub(super) struct Manager {
    shared: Arc<Shared>,
    socket: PathBuf,
    program: Option<Arc<Program>>,
}

/// Why there is no connection.
enum Absent {
    /// Nobody listens.
    Unreachable(String),
    /// Somebody does, who makes no sense.
    Unfit(String),
}

// === impl Manager ===

impl Manager {
    pub fn new(shared: Arc<Shared>, socket: PathBuf, program: Option<Arc<Program>>) -> Self {
        Self { shared, socket, program }
    }

    pub async fn run(self) {
        // The sender is in `self`.
        let _ = self.shared.recovered.subscribe().wait_for(|recovered| *recovered).await;
        let mut pause = CONNECT.0;
        let mut unfit = 0;
        let mut told = String::new();
        loop {
            let why = match self.establish().await {
                Ok((session, mut connection)) => {
                    (pause, unfit) = (CONNECT.0, 0);
                    if let Some(program) = &self.program {
                        program.note_use();
                    }
                    tracing::info!(plugin = self.shared.name, "A plugin is here.");
                    self.shared.presence.send_replace(Presence::Here(session.clone()));
                    let why = self.attend(&session, &mut connection).await;
                    tracing::warn!(
                        plugin = self.shared.name,
                        why,
                        "A plugin has gone; launches that need it wait, and fail if it does not come back."
                    );
                    told.clone_from(&why);
                    why
                }
                Err(Absent::Unreachable(why)) => why,
                Err(Absent::Unfit(why)) => {
                    unfit += 1;
                    if unfit == ATTEMPTS {
                        unfit = 0;
                        if let Some(program) = &self.program {
                            program.start_anew();
                        }
                    }
                    why
                }
            };
            if why != told {
                tracing::warn!(
                    plugin = self.shared.name,
                    why,
                    "A plugin cannot be used; launches that need it wait, and fail if it does not come."
                );
                told.clone_from(&why);
            }
            self.shared.presence.send_replace(Presence::Away(why));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(CONNECT.1);
        }
    }

    /// Connects, shakes hands, and tells of the containers.
    async fn establish(&self) -> Result<(Session, Connection), Absent> {
        let absent = |error: ConnectError| match error {
            ConnectError::Unreachable(error) => {
                let state = self.program.as_ref().and_then(|program| program.trouble()).unwrap_or_default();
                let socket = self.socket.display();
                Absent::Unreachable(format!("{state}nobody listens at {socket} ({error})"))
            }
            ConnectError::Broken(error) => {
                Absent::Unfit(format!("handshake: the connection broke: {}", with_causes(&error)))
            }
        };
        let (client, connection) = channel::connect(&self.socket).await.map_err(absent)?;
        let shared = &self.shared;
        let unfit = |step: &str, error: super::calls::Failure| Absent::Unfit(format!("{step}: {error}"));
        let request =
            proto::HandshakeRequest { protocol_version: PROTOCOL_VERSION, name: shared.name.clone() };
        let answer = shared.invoke(shared.timeouts.handshake, client.clone().handshake(request)).await;
        let answer = answer.map_err(|error| unfit("handshake", error))?;
        let calls = fit(&shared.name, &answer).map_err(|why| Absent::Unfit(format!("handshake: {why}")))?;
        let session = Session { client, calls: Arc::new(calls) };
        if session.wants(Call::Recover) {
            let (live, orphans) = shared.ledger.all();
            let containers = live.iter().map(|one| wire::running(one, &shared.sandbox_directory)).collect();
            let request = proto::RecoverRequest { containers, orphans };
            let recovered =
                shared.invoke(shared.timeouts.recover, session.client.clone().recover(request)).await;
            recovered.map_err(|error| unfit("recover", error))?;
        }
        Ok((session, connection))
    }

    /// Until the connection ends; why it did.
    async fn attend(&self, session: &Session, connection: &mut Connection) -> String {
        tokio::select! {
            why = connection.ended() => why,
            () = self.watch(session) => String::new(),
            () = self.clean(session) => String::new(),
        }
    }

    /// Takes limitations, for ever.
    async fn watch(&self, session: &Session) {
        if !session.wants(Call::Watch) {
            return std::future::pending().await;
        }
        loop {
            let mut client = session.client.clone();
            let why = match client.watch(proto::WatchRequest {}).await {
                Ok(stream) => self.heed(stream.into_inner()).await,
                Err(status) => status.message().to_owned(),
            };
            tracing::warn!(
                plugin = self.shared.name,
                why,
                "A plugin ends its stream of limitations; it is asked for a new one."
            );
            tokio::time::sleep(WATCH).await;
        }
    }

    /// Until the stream ends; why it did.
    async fn heed(&self, mut stream: tonic::Streaming<proto::Limitation>) -> String {
        loop {
            let limitation = match stream.message().await {
                Ok(Some(limitation)) => limitation,
                Ok(None) => return "it is at its end".to_owned(),
                Err(status) => return status.message().to_owned(),
            };
            let checked = wire::limitation(limitation).and_then(|limitation| {
                match self.shared.ledger.has(&limitation.container_id) {
                    true => Ok(limitation),
                    false => {
                        Err(format!("a limitation of {}, which is no container", limitation.container_id))
                    }
                }
            });
            match checked {
                // Nobody hears it only when the agent ends.
                Ok(limitation) => drop(self.shared.limitations.send(limitation)),
                Err(why) => {
                    tracing::warn!(plugin = self.shared.name, why, "A plugin reports what makes no sense.");
                }
            }
        }
    }

    /// Has the plugin clean up what is owed, for ever.
    async fn clean(&self, session: &Session) {
        let mut pause = CLEAN.0;
        loop {
            let mut failed = false;
            for id in self.shared.ledger.owed() {
                match self.shared.clean(session, &id).await {
                    Ok(()) => {
                        tracing::info!(container = %id, plugin = self.shared.name, "A plugin has cleaned up what it owed.");
                    }
                    Err(error) => {
                        tracing::warn!(container = %id, plugin = self.shared.name, %error, "A plugin has not cleaned up; it will be asked again.");
                        failed = true;
                        // One that hangs would hang again.
                        break;
                    }
                }
            }
            if failed {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(CLEAN.1);
            } else {
                pause = CLEAN.0;
                self.shared.owed.notified().await;
                // Whoever woke us has just been told no.
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// The calls that the plugin wants, if it is the right one.
fn fit(name: &str, answer: &proto::HandshakeResponse) -> Result<BTreeSet<Call>, String> {
    if answer.protocol_version != PROTOCOL_VERSION {
        return Err(format!(
            "it speaks version {} of the protocol, and this agent version {PROTOCOL_VERSION}",
            answer.protocol_version
        ));
    }
    if answer.name != name {
        return Err(format!("it says that it is '{}', and not '{name}'", answer.name));
    }
    let calls: BTreeSet<Call> = answer.calls().filter(|call| *call != Call::Unspecified).collect();
    if calls.is_empty() {
        return Err("it wants no call".to_owned());
    }
    Ok(calls)
}
