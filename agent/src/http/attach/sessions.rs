//! LAUNCH_NESTED_CONTAINER_SESSION: a command in a container's namespaces, known by an id of its own for as long as it runs, and its end for a while longer.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tepui_api::MediaType;
use tepui_api::http::Refusal;
use tepui_api::v1::agent::call::Type;
use tepui_api::v1::agent::{Call, Response, response};
use tepui_api::v1::{CommandInfo, ContainerId, ContainerInfo};
use tokio::sync::{mpsc, watch};

use super::super::{Answer, Context};
use super::check_id;
use super::input::window_size;
use super::media::Form;
use super::output::answer;
use crate::shell::guest::{Guest, Input, Piece};

/// So many ends are kept for who asks later; the oldest are forgotten first.
const KEPT: usize = 1000;
/// When a program has ended, what still holds its output has so long to write something.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// A reader beside the one who launched the session is let go when so many pieces wait for it.
const WAITING: usize = 1024;

/// The sessions that run, and how others ended. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<All>>);

#[derive(Default)]
struct All {
    known: HashMap<ContainerId, Arc<Session>>,
    /// Those that have ended, the oldest first.
    ended: VecDeque<ContainerId>,
    /// The tasks whose terminals somebody types into.
    terminals: HashSet<ContainerId>,
}

/// A command beside a container's own.
pub(super) struct Session {
    /// Who types holds it; absent once it was closed.
    pub(super) input: tokio::sync::Mutex<Option<Input>>,
    signals: mpsc::UnboundedSender<i32>,
    /// Those who read beside the one who launched it.
    readers: Mutex<Vec<mpsc::Sender<Piece>>>,
    end: watch::Receiver<Option<Ended>>,
}

/// As wait(2) tells it, or why nobody knows.
type Ended = Result<i32, String>;

/// Ends a session when the connection that launched it breaks.
struct Launcher(mpsc::UnboundedSender<i32>);

impl Drop for Launcher {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.send(libc::SIGKILL);
    }
}

/// The right to type into a task's terminal.
pub(super) struct Typing {
    sessions: Sessions,
    id: ContainerId,
}

impl Drop for Typing {
    fn drop(&mut self) {
        self.sessions.all().terminals.remove(&self.id);
    }
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, id: &ContainerId) -> Option<Arc<Session>> {
        self.all().known.get(id).cloned()
    }

    /// What a session writes from now on; nothing from one that has ended.
    pub(super) fn attach(&self, id: &ContainerId) -> Option<mpsc::Receiver<Piece>> {
        let session = self.get(id)?;
        let (to, pieces) = mpsc::channel(WAITING);
        let mut readers = session.readers();
        if session.end.borrow().is_none() {
            readers.push(to);
        }
        Some(pieces)
    }

    /// The right to type into a task's terminal, unless somebody has it.
    pub(super) fn take_terminal(&self, id: &ContainerId) -> Option<Typing> {
        let taken = self.all().terminals.insert(id.clone());
        taken.then(|| Typing { sessions: self.clone(), id: id.clone() })
    }

    /// Makes a command known. Gives what it writes, for the one who launched it. `None` if another has taken the id meanwhile.
    fn begin(
        &self,
        workers: &tokio::runtime::Handle,
        id: ContainerId,
        guest: Guest,
    ) -> Option<mpsc::Receiver<Piece>> {
        let Guest { input, output, signals, end: guest_end } = guest;
        let (tell, end) = watch::channel(None);
        let session = Arc::new(Session {
            input: tokio::sync::Mutex::new(Some(input)),
            signals,
            readers: Mutex::default(),
            end,
        });
        match self.all().known.entry(id.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(vacant) => vacant.insert(Arc::clone(&session)),
        };
        let (to, pieces) = mpsc::channel(1);
        let sessions = self.clone();
        workers.spawn(async move {
            let ended = session.pass_on(output, &to, guest_end).await;
            let ended = ended.unwrap_or_else(|_| Err("the agent lost sight of it".to_owned()));
            tracing::info!(container = %id, ?ended, "a session has ended");
            tell.send_replace(Some(ended));
            // The answer ends no sooner: its end would end what still has to tell its status.
            drop(to);
            session.readers().clear();
            sessions.forget_old(id);
        });
        Some(pieces)
    }

    fn forget_old(&self, ended: ContainerId) {
        let mut all = self.all();
        all.ended.push_back(ended);
        while all.ended.len() > KEPT {
            if let Some(oldest) = all.ended.pop_front() {
                all.known.remove(&oldest);
            }
        }
    }

    /// Forgets a session that has ended. `None` where there is none of this id; `false` if it runs.
    fn forget(&self, id: &ContainerId) -> Option<bool> {
        let mut all = self.all();
        let over = all.known.get(id)?.end.borrow().is_some();
        if over {
            all.known.remove(id);
            all.ended.retain(|ended| ended != id);
        }
        Some(over)
    }

    /// The container that a session beneath this one is to be run in.
    fn host_of(&self, id: &ContainerId) -> ContainerId {
        let mut host = id;
        while self.all().known.contains_key(host)
            && let Some(parent) = &host.parent
        {
            host = parent;
        }
        host.clone()
    }
}

impl Session {
    fn readers(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Piece>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until all has been written and read; gives what `end` does.
    async fn pass_on<T>(
        &self,
        mut output: mpsc::Receiver<Piece>,
        to: &mpsc::Sender<Piece>,
        mut end: impl Future<Output = T> + Unpin,
    ) -> T {
        let mut ended = None;
        loop {
            let piece = match &ended {
                None => tokio::select! {
                    piece = output.recv() => piece,
                    end = &mut end => {
                        ended = Some(end);
                        continue;
                    }
                },
                // Others may hold its output for ever. It is read as long as something comes.
                Some(_) => tokio::time::timeout(LAST_OUTPUT, output.recv()).await.unwrap_or(None),
            };
            let Some(piece) = piece else { break };
            self.readers().retain(|reader| reader.try_send(piece.clone()).is_ok());
            // Who launched it and does not read makes it wait; who has gone ends it.
            let _ = to.send(piece).await;
        }
        match ended {
            Some(ended) => ended,
            None => end.await,
        }
    }

    /// How it ended, once it has; `None` if nobody knows.
    async fn status(&self) -> Option<i32> {
        self.over().await;
        let ended = self.end.borrow().clone();
        ended.and_then(Result::ok)
    }

    /// Waits for its end.
    pub(super) fn over(&self) -> impl Future<Output = ()> + use<> {
        let mut end = self.end.clone();
        async move {
            let _ = end.wait_for(Option::is_some).await;
        }
    }
}

/// Answers LAUNCH_NESTED_CONTAINER_SESSION.
pub(in crate::http) async fn launch(context: &Context, call: Call, form: Form) -> Answer {
    let launch = call
        .launch_nested_container_session
        .ok_or_else(|| Refusal::bad_request("Expecting 'launch_nested_container_session' to be present"))?;
    let id = launch.container_id;
    check_id(&id, "launch_nested_container_session.container_id")?;
    let Some(parent) = id.parent.as_deref() else {
        return Err(Refusal::bad_request(
            "Expecting 'launch_nested_container_session.container_id.parent' to be present",
        ));
    };
    let container = launch.container.unwrap_or_default();
    check_container(&container)?;
    let command = check_command(launch.command.unwrap_or_default())?;
    if context.sessions.get(&id).is_some() {
        // As Mesos answers a launch that was made already.
        return Ok(tepui_api::http::empty(StatusCode::ACCEPTED));
    }
    let host = context.sessions.host_of(parent);
    if context.backend.status(host.clone()).await.is_err() {
        return Err(Refusal::bad_request(format!("Parent container {parent} does not exist")));
    }
    // Without a size, as Mesos', it has the usual one.
    let terminal = container.tty_info.map(|info| window_size(&info).unwrap_or_default());
    let backend = Arc::clone(&context.backend);
    let entering = context.workers.spawn(async move { backend.enter(host, command, terminal).await });
    let entered = entering.await.map_err(|error| Refusal::bad_request(error.to_string()))?;
    let guest = entered.map_err(Refusal::bad_request)?;
    tracing::info!(container = %id, "a session has begun");
    let launcher = Launcher(guest.signals.clone());
    Ok(match context.sessions.begin(&context.workers, id, guest) {
        Some(pieces) => answer(form, pieces, launcher),
        None => tepui_api::http::empty(StatusCode::ACCEPTED),
    })
}

fn check_command(command: CommandInfo) -> Result<CommandInfo, Refusal> {
    let refused = |what: &str| {
        Refusal::bad_request(format!("'launch_nested_container_session.command' is invalid: {what}"))
    };
    if command.value().is_empty() {
        return Err(refused("'CommandInfo.value' is missing"));
    }
    if !command.uris.is_empty() {
        return Err(refused(
            "a session has the sandbox of its parent, into which nothing is fetched ('uris')",
        ));
    }
    Ok(command)
}

/// A session is in its parent's container, so that all it can have of its own is a terminal.
fn check_container(container: &ContainerInfo) -> Result<(), Refusal> {
    let refused =
        |what: &str| Refusal::bad_request(format!("'launch_nested_container_session.container{what}"));
    if container.linux_info.as_ref().is_some_and(|info| info.share_cgroups == Some(false)) {
        return Err(refused(
            ".linux_info' is invalid: 'share_cgroups' cannot be set to 'false' for nested container sessions",
        ));
    }
    let own = container.mesos.as_ref().is_some_and(|mesos| mesos.image.is_some())
        || !container.volumes.is_empty()
        || !container.network_infos.is_empty();
    if own || container.docker.is_some() {
        return Err(refused(
            "' is invalid: a session is in the container of its parent and has no image, volumes or networks of its own",
        ));
    }
    Ok(())
}

/// Answers a call about a session; `None` if it is about another container.
pub(in crate::http) async fn of_session(context: &Context, call: &Call, media: MediaType) -> Option<Answer> {
    let done = || Some(Ok(tepui_api::http::empty(StatusCode::OK)));
    match call.r#type() {
        Type::WaitNestedContainer => {
            let id = &call.wait_nested_container.as_ref()?.container_id;
            let exit_status = context.sessions.get(id)?.status().await;
            let wait = response::WaitNestedContainer { exit_status, ..Default::default() };
            let response = Response {
                r#type: Some(response::Type::WaitNestedContainer as i32),
                wait_nested_container: Some(wait),
                ..Response::default()
            };
            Some(Ok(tepui_api::http::message(media, &response)))
        }
        Type::WaitContainer => {
            let id = &call.wait_container.as_ref()?.container_id;
            let exit_status = context.sessions.get(id)?.status().await;
            let response = Response {
                r#type: Some(response::Type::WaitContainer as i32),
                wait_container: Some(response::WaitContainer { exit_status, ..Default::default() }),
                ..Response::default()
            };
            Some(Ok(tepui_api::http::message(media, &response)))
        }
        Type::KillNestedContainer | Type::KillContainer => {
            let of_nested = call.kill_nested_container.as_ref().map(|kill| (&kill.container_id, kill.signal));
            let of_any = call.kill_container.as_ref().map(|kill| (&kill.container_id, kill.signal));
            let (id, signal) = of_nested.or(of_any)?;
            let session = context.sessions.get(id)?;
            if session.end.borrow().is_some() {
                let message = format!("Container '{id}' cannot be found (or is already killed)");
                return Some(Err(Refusal::new(StatusCode::NOT_FOUND, message)));
            }
            let _ = session.signals.send(signal.unwrap_or(libc::SIGKILL));
            done()
        }
        Type::RemoveNestedContainer | Type::RemoveContainer => {
            let of_nested = call.remove_nested_container.as_ref().map(|remove| &remove.container_id);
            let id = of_nested.or(call.remove_container.as_ref().map(|remove| &remove.container_id))?;
            if context.sessions.forget(id)? {
                return done();
            }
            let message = "Nested container has not terminated yet";
            Some(Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)))
        }
        _ => None,
    }
}
