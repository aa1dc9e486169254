//! Shows a task's stdout and stderr while it runs, by reading its sandbox from the agent.
//!
//! One [`Follower`] an instance: it asks the agent for what is new in each file and writes it here,
//! quickly while there is output and less often while there is none, and reads to the end once the
//! task has ended.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use tepui_api::MediaType;
use tepui_api::client::{Client, ClientError};
use tepui_api::v1::{self, agent};
use tokio::sync::watch;

/// How much one call asks for, in bytes.
const CHUNK: u64 = 256 * 1024;
const QUICK: Duration = Duration::from_millis(30);
const SLOW: Duration = Duration::from_millis(300);
/// How long an agent may fail to answer after the task's end before its output is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which of our own streams a file goes to.
#[derive(Clone, Copy, Debug)]
enum Stream {
    Stdout,
    Stderr,
}

/// A file that was put aside, and does not change any more: its size in bytes, and when it was written last, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Aside {
    size: u64,
    written: i64,
}

/// Follows the output of one task.
pub struct Follower {
    client: Client,
    files: Vec<File>,
    /// Begins every line when there are several instances.
    prefix: Option<String>,
}

struct File {
    path: String,
    stream: Stream,
    /// How much of it was shown, in bytes.
    read: u64,
    /// Those that a logger had put aside before it began this one, the last first; `None` until anybody has looked.
    aside: Option<Vec<Aside>>,
    /// With a prefix, the part of a line that has not ended.
    partial: Vec<u8>,
}

impl Follower {
    /// Follows the task of this framework on the agent at `authority`.
    #[must_use]
    pub fn new(
        authority: &str,
        framework: &v1::FrameworkId,
        task: &v1::TaskId,
        prefix: Option<String>,
    ) -> Self {
        let run = format!("/frameworks/{framework}/executors/{task}/runs/latest");
        let client = Client::new(authority, MediaType::Protobuf);
        let mut follower = Self { prefix, ..Self::of_run(client, &run, true, true) };
        for file in &mut follower.files {
            // From the task's start: nothing has been put aside yet.
            file.aside = Some(Vec::new());
        }
        follower
    }

    /// Follows one or both files of a sandbox, as an agent that speaks protobuf names it.
    #[must_use]
    pub fn of_run(client: Client, run: &str, stdout: bool, stderr: bool) -> Self {
        let file = |name: &str, stream| File {
            path: format!("{run}/{name}"),
            stream,
            read: 0,
            aside: None,
            partial: Vec::new(),
        };
        let files =
            [stdout.then(|| file("stdout", Stream::Stdout)), stderr.then(|| file("stderr", Stream::Stderr))];
        Self { client, files: files.into_iter().flatten().collect(), prefix: None }
    }

    /// Shows output until `ended` is true and all of it has been shown.
    ///
    /// # Errors
    /// When the agent does not answer for long after the end.
    pub async fn follow(mut self, mut ended: watch::Receiver<bool>) -> Result<(), ClientError> {
        let mut pause = QUICK;
        let mut failing_since: Option<tokio::time::Instant> = None;
        loop {
            // Read after seeing the end, so that what came just before it is shown too.
            let last = *ended.borrow_and_update();
            match self.advance(last).await {
                Ok(true) => {
                    pause = QUICK;
                    failing_since = None;
                    continue;
                }
                Ok(false) => {
                    failing_since = None;
                    if last {
                        break;
                    }
                }
                Err(error) => {
                    let since = *failing_since.get_or_insert_with(tokio::time::Instant::now);
                    let refused = matches!(error, ClientError::Status { .. });
                    if last && (refused || since.elapsed() > PATIENCE) {
                        return Err(error);
                    }
                }
            }
            pause = (pause * 2).min(SLOW);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = ended.changed(), if !last => pause = QUICK,
            }
        }
        for file in &mut self.files {
            if !file.partial.is_empty() {
                let rest = std::mem::take(&mut file.partial);
                show(file.stream, self.prefix.as_deref(), &[rest, b"\n".to_vec()].concat());
            }
        }
        Ok(())
    }

    /// Shows what is new; whether there was anything. `last`: nothing more will be written.
    async fn advance(&mut self, last: bool) -> Result<bool, ClientError> {
        let mut any = false;
        for file in &mut self.files {
            if let Some(data) = file.next(&self.client, last).await? {
                any = true;
                file.write(data, self.prefix.as_deref());
            }
        }
        Ok(any)
    }
}

/// How many of those that are aside now were not when there were those before; all, when none of these is left.
fn put_aside_since(before: &[Aside], now: &[Aside]) -> usize {
    if before.is_empty() {
        return now.len();
    }
    let follows = |since: &usize| before.iter().zip(&now[*since..]).all(|(one, other)| one == other);
    // Files that are filled at once look alike; how many more there are tells them apart until the oldest are removed.
    let more = now.len().saturating_sub(before.len());
    (more..now.len()).find(follows).unwrap_or(now.len())
}

/// The files that a logger has put aside for this one, the last first.
async fn aside(client: &Client, path: &str) -> Result<Vec<Aside>, ClientError> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let list = agent::call::ListFiles { path: directory.to_owned() };
    let call = agent::Call {
        r#type: Some(agent::call::Type::ListFiles as i32),
        list_files: Some(list),
        ..Default::default()
    };
    let answer: agent::Response = client.call("/api/v1", &call).await?;
    let infos = answer.list_files.unwrap_or_default().file_infos;
    let name = path.rsplit('/').next().unwrap_or_default();
    let numbered: BTreeMap<u32, Aside> = infos
        .iter()
        .filter_map(|info| {
            let number = info.path.rsplit('/').next()?.strip_prefix(name)?.strip_prefix('.')?.parse().ok()?;
            let written = info.mtime.as_ref().map_or(0, |time| time.nanoseconds);
            Some((number, Aside { size: info.size(), written }))
        })
        .collect();
    Ok((1..).map_while(|number| numbered.get(&number).copied()).collect())
}

/// A piece of a file of a sandbox, from this offset on.
async fn read(client: &Client, path: &str, offset: u64) -> Result<agent::response::ReadFile, ClientError> {
    let read = agent::call::ReadFile { path: path.to_owned(), offset, length: Some(CHUNK) };
    let call = agent::Call {
        r#type: Some(agent::call::Type::ReadFile as i32),
        read_file: Some(read),
        ..Default::default()
    };
    let answer: agent::Response = client.call("/api/v1", &call).await?;
    Ok(answer.read_file.unwrap_or_default())
}

impl File {
    /// What follows what was shown; `None` if there is nothing yet. May be empty, though there is more.
    async fn next(&mut self, client: &Client, last: bool) -> Result<Option<Vec<u8>>, ClientError> {
        let before = match &mut self.aside {
            Some(before) => before,
            unknown => unknown.insert(aside(client, &self.path).await?),
        };
        let found = read(client, &self.path, self.read).await?;
        let nothing = found.data.is_empty() && found.size == self.read;
        // At the end it may be another file of the same length.
        if nothing && !(last && self.read > 0) {
            return Ok(None);
        }
        // What was read may be that of a file which was begun meanwhile.
        let now = aside(client, &self.path).await?;
        let began = put_aside_since(before, &now);
        if began == 0 && nothing {
            return Ok(None);
        }
        if began == 0 {
            // One that is shorter than it was has been cut.
            self.read = if found.size < self.read { 0 } else { self.read + found.data.len() as u64 };
            return Ok(Some(found.data));
        }
        if began == now.len() && !before.is_empty() {
            // What there was to show of it is gone. It goes on with the oldest that is left.
            (self.read, *before) = (0, Vec::new());
            return Ok(Some(Vec::new()));
        }
        let left = read(client, &format!("{}.{began}", self.path), self.read).await;
        // They may have moved on while it was read.
        if aside(client, &self.path).await? != now {
            return Ok(Some(Vec::new()));
        }
        let left = left?;
        self.read += left.data.len() as u64;
        if self.read >= left.size {
            self.read = 0;
            *before = now[began - 1..].to_vec();
        }
        Ok(Some(left.data))
    }

    fn write(&mut self, data: Vec<u8>, prefix: Option<&str>) {
        if prefix.is_none() {
            show(self.stream, None, &data);
            return;
        }
        self.partial.extend_from_slice(&data);
        if let Some(end) = self.partial.iter().rposition(|b| *b == b'\n') {
            let rest = self.partial.split_off(end + 1);
            let lines = std::mem::replace(&mut self.partial, rest);
            show(self.stream, prefix, &lines);
        }
    }
}

/// Writes bytes as they are. When nobody reads any more, the task still goes on.
fn show(stream: Stream, prefix: Option<&str>, bytes: &[u8]) {
    let bytes = match prefix {
        None => bytes.to_vec(),
        Some(prefix) => {
            let lines = bytes.split_inclusive(|b| *b == b'\n');
            lines.flat_map(|line| [prefix.as_bytes(), line].concat()).collect()
        }
    };
    let _ = match stream {
        Stream::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(&bytes).and_then(|()| out.flush())
        }
        Stream::Stderr => std::io::stderr().lock().write_all(&bytes),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_put_aside_are_known_again() {
        let files = |numbers: &[i64]| -> Vec<Aside> {
            numbers.iter().map(|number| Aside { size: 10, written: *number }).collect()
        };
        for (before, now, since) in [
            (&[][..], &[][..], 0),
            (&[], &[2, 1], 2),
            (&[1], &[1], 0),
            (&[1], &[3, 2, 1], 2),
            (&[2, 1], &[4, 3, 2], 2),
            // Two that look alike, in the order that fits.
            (&[1, 2], &[1, 1, 2], 1),
            (&[1], &[4, 3], 2),
            (&[1, 1], &[1, 1, 1, 1], 2),
        ] {
            assert_eq!(put_aside_since(&files(before), &files(now)), since, "{before:?} {now:?}");
        }
    }
}
