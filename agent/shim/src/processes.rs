//! Which processes a container consists of, and how signals reach them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::plan::{FirstProcess, LaunchPlan, files};
use crate::protocol::SignalScope;

/// The processes of a container that was started.
pub(crate) struct Processes {
    init: Pid,
    first: FirstProcess,
    cgroup_procs: Option<PathBuf>,
}

impl Processes {
    pub(crate) fn new(init: Pid, plan: &LaunchPlan) -> Self {
        let own = plan.cgroup_procs.first().filter(|_| !plan.shared_cgroups);
        Self { init, first: plan.first_process, cgroup_procs: own.cloned() }
    }

    /// Sends a signal to all that `scope` means, `except` for those that pass signals on to one that gets it in any case.
    pub(crate) fn signal(&self, number: i32, scope: SignalScope, except: &[Pid]) -> io::Result<()> {
        // Nobody can pass on what stops him, too.
        if scope == SignalScope::Program && self.first == FirstProcess::Init && number == libc::SIGSTOP {
            return stop(self.init);
        }
        // The end of a PID namespace's first process is the end of all in it.
        let first_suffices = self.first == FirstProcess::Init && number == libc::SIGKILL;
        if scope == SignalScope::Program || first_suffices || self.first == FirstProcess::Holder {
            return send(self.init, number);
        }
        let passes_on = self.first == FirstProcess::Init;
        let others = self.list()?.into_iter().filter(|pid| !(passes_on && *pid == self.init));
        let others = others.filter(|pid| number == libc::SIGKILL || !except.contains(pid));
        others.map(|pid| send(pid, number)).filter(|sent| !is_gone(sent)).collect()
    }

    /// Ends what the program has left. Only for a shim that adopts orphans, and whose other child has been waited for.
    pub(crate) fn end_the_rest(&self) {
        loop {
            let left = self.list().unwrap_or_default();
            for pid in left.iter().filter(|pid| **pid != self.init) {
                let _ = send(*pid, libc::SIGKILL);
            }
            while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                if status == WaitStatus::StillAlive {
                    break;
                }
            }
            if left.is_empty() {
                return;
            }
            // There is nothing to wait on: a cgroup's processes need not be our children.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn list(&self) -> io::Result<Vec<Pid>> {
        // Containers nested in this one may be in its cgroups.
        let alone = !Path::new(files::NESTED).exists();
        match (&self.cgroup_procs, self.first) {
            (Some(procs), _) if alone => Ok(pids(fs::read_to_string(procs)?.lines()).collect()),
            (_, FirstProcess::Init) => in_namespace_of(self.init),
            (_, FirstProcess::Program) => descendants(),
            (_, FirstProcess::Holder) => Ok(vec![self.init]),
        }
    }
}

fn pids<'a>(names: impl Iterator<Item = &'a str>) -> impl Iterator<Item = Pid> {
    names.filter_map(|name| name.parse().ok()).map(Pid::from_raw)
}

fn everybody() -> io::Result<Vec<Pid>> {
    let names: Vec<_> =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    Ok(pids(names.iter().map(String::as_str)).collect())
}

fn in_namespace_of(init: Pid) -> io::Result<Vec<Pid>> {
    let namespace = |pid: Pid| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let wanted = namespace(init)?;
    Ok(everybody()?.into_iter().filter(|pid| namespace(*pid).is_ok_and(|found| found == wanted)).collect())
}

/// A process' children, theirs, and so on.
///
/// By a file that only some kernels have (`CONFIG_PROC_CHILDREN`), as the search through all processes takes milliseconds on a busy machine.
pub(crate) fn below(process: Pid) -> Vec<Pid> {
    let own = Pid::this();
    if !PathBuf::from(format!("/proc/{own}/task/{own}/children")).exists() {
        return family(process).unwrap_or_default();
    }
    let mut found = children(process);
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children(*pid));
        next += 1;
    }
    found
}

fn children(process: Pid) -> Vec<Pid> {
    // Each thread has its own.
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| pids(list.split_whitespace()).collect::<Vec<_>>()).collect()
}

/// This process' children, theirs, and so on.
fn descendants() -> io::Result<Vec<Pid>> {
    family(Pid::this())
}

/// The same of any process, by a search through all.
fn family(first: Pid) -> io::Result<Vec<Pid>> {
    let parents: Vec<_> = everybody()?.into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = HashSet::from([first]);
    loop {
        let before = family.len();
        family.extend(
            parents
                .iter()
                .filter(|(_, parent)| family.contains(parent))
                .map(|(pid, _)| *pid)
                .collect::<Vec<_>>(),
        );
        if family.len() == before {
            family.remove(&first);
            return Ok(family.into_iter().collect());
        }
    }
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may have anything in it, but what follows has no parenthesis: state, parent, ...
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

fn is_gone(sent: &io::Result<()>) -> bool {
    sent.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
}

/// Stops the program of a process that passes signals on: whoever it would pass them on to.
pub(crate) fn stop(process: Pid) -> io::Result<()> {
    let own = everybody()?.into_iter().filter(|pid| parent(*pid) == Some(process));
    own.map(|pid| send(pid, libc::SIGSTOP)).filter(|sent| !is_gone(sent)).collect()
}

pub(crate) fn send(pid: Pid, number: i32) -> io::Result<()> {
    // SAFETY: takes integers only. Not `nix`'s, which has no real-time signals. The process is our unreaped child, or was just seen in the container.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) })?;
    Ok(())
}
