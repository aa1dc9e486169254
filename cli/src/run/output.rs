//! Shows a task's stdout and stderr while it runs, by reading its sandbox from the agent.
//!
//! One [`Follower`] an instance: it asks the agent for what is new in each file and writes it here,
//! quickly while there is output and less often while there is none, and reads to the end once the
//! task has ended.

use std::io::Write as _;
use std::time::Duration;

use tepui_api::v1::{self, agent};
use tepui_api::{MediaType, client::Client};
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
    read: u64,
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
        Self { prefix, ..Self::of_run(client, &run, true, true) }
    }

    /// Follows one or both files of a sandbox, as an agent that speaks protobuf names it.
    #[must_use]
    pub fn of_run(client: Client, run: &str, stdout: bool, stderr: bool) -> Self {
        let file =
            |name: &str, stream| File { path: format!("{run}/{name}"), stream, read: 0, partial: Vec::new() };
        let files =
            [stdout.then(|| file("stdout", Stream::Stdout)), stderr.then(|| file("stderr", Stream::Stderr))];
        Self { client, files: files.into_iter().flatten().collect(), prefix: None }
    }

    /// Shows output until `ended` is true and all of it has been shown.
    ///
    /// # Errors
    /// When the agent does not answer for long after the end.
    pub async fn follow(
        mut self,
        mut ended: watch::Receiver<bool>,
    ) -> Result<(), tepui_api::client::ClientError> {
        let mut pause = QUICK;
        let mut failing_since: Option<tokio::time::Instant> = None;
        loop {
            // Read after seeing the end, so that what came just before it is shown too.
            let last = *ended.borrow_and_update();
            match self.advance().await {
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
                    let refused = matches!(error, tepui_api::client::ClientError::Status { .. });
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

    /// Shows what is new; whether there was anything.
    async fn advance(&mut self) -> Result<bool, tepui_api::client::ClientError> {
        let mut any = false;
        for file in &mut self.files {
            let found = read(&self.client, &file.path, file.read).await?;
            if found.size < file.read {
                // It was rotated: what was not read yet is in the one before.
                let before = format!("{}.1", file.path);
                while let Ok(rest) = read(&self.client, &before, file.read).await
                    && !rest.data.is_empty()
                {
                    file.read += rest.data.len() as u64;
                    file.write(rest.data, self.prefix.as_deref());
                }
                file.read = 0;
                any = true;
                continue;
            }
            let data = found.data;
            if data.is_empty() {
                continue;
            }
            any = true;
            file.read += data.len() as u64;
            file.write(data, self.prefix.as_deref());
        }
        Ok(any)
    }
}

/// A piece of a file of a sandbox, from this offset on.
async fn read(
    client: &Client,
    path: &str,
    offset: u64,
) -> Result<agent::response::ReadFile, tepui_api::client::ClientError> {
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
