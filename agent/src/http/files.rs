//! `/files/browse`, `/files/read`, `/files/download` and `/files/debug`, with Mesos' parameters and answers.

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value as Json, json};
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use tepui_api::http::{Body, Refusal};
use tepui_api::v1::FileInfo;

use super::query::Query;
use super::{Answer, Context};
use crate::sandbox::files::{Files, FilesError};

/// How much of a download is read at a time.
const CHUNK: usize = 64 << 10;

impl From<FilesError> for Refusal {
    fn from(error: FilesError) -> Self {
        let status = match error {
            FilesError::NotFound(_) => StatusCode::NOT_FOUND,
            FilesError::Outside(_) | FilesError::Directory(_) | FilesError::Special(_) => {
                StatusCode::BAD_REQUEST
            }
            FilesError::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, format!("{error}.\n"))
    }
}

/// Reads from the disk on a thread that may wait for it.
pub(super) async fn blocking<T: Send + 'static>(
    files: &Arc<Files>,
    work: impl FnOnce(&Files) -> Result<T, FilesError> + Send + 'static,
) -> Result<T, Refusal> {
    let files = Arc::clone(files);
    let done = tokio::task::spawn_blocking(move || work(&files)).await;
    let done = done.map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the file could not be read: {error}"))
    })?;
    Ok(done?)
}

pub(super) async fn browse(context: &Context, query: &Query) -> Answer {
    let path = path(query)?;
    let infos = blocking(&context.files, move |files| files.browse(&path)).await?;
    Ok(query.json(&Json::from(infos.iter().map(info).collect::<Vec<_>>())))
}

/// One file, as `ls -l` would show it.
fn info(info: &FileInfo) -> Json {
    #[expect(clippy::cast_precision_loss, reason = "whole seconds, as Mesos shows them")]
    let mtime = info.mtime.map_or(0.0, |time| (time.nanoseconds / 1_000_000_000) as f64);
    json!({
        "gid": info.gid(),
        "mode": mode(info.mode()),
        "mtime": mtime,
        "nlink": info.nlink(),
        "path": info.path,
        "size": info.size(),
        "uid": info.uid(),
    })
}

/// A file's type and permissions as letters.
fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let letters = ['r', 'w', 'x'].into_iter().cycle();
    let bits = (0..9).rev().zip(letters).map(|(bit, letter)| if mode >> bit & 1 == 1 { letter } else { '-' });
    std::iter::once(kind).chain(bits).collect()
}

pub(super) async fn read(context: &Context, query: &Query) -> Answer {
    let path = path(query)?;
    let offset = number(query, "offset")?;
    let length = number(query, "length")?.and_then(|length| u64::try_from(length).ok());
    // Without an offset, or with -1, only the file's size is wanted.
    let (from, length) = match offset.map(u64::try_from) {
        Some(Ok(from)) => (from, length),
        _ => (0, Some(0)),
    };
    let piece = blocking(&context.files, move |files| files.read(&path, from, length)).await?;
    let told = match offset {
        Some(offset) if offset >= 0 => from,
        _ => piece.size,
    };
    Ok(query.json(&json!({"data": String::from_utf8_lossy(&piece.data), "offset": told})))
}

pub(super) async fn download(context: &Context, query: &Query) -> Answer {
    let path = path(query)?;
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let (file, size) = blocking(&context.files, move |files| files.open_file(&path)).await?;
    let mut answer: Response<Body> = tepui_api::http::stream("application/octet-stream", chunks(file, size));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    if let Ok(disposition) = HeaderValue::from_str(&format!("attachment; filename={name}")) {
        headers.insert(CONTENT_DISPOSITION, disposition);
    }
    Ok(answer)
}

/// The file as it was when it was opened: what a task appends meanwhile is not sent.
fn chunks(file: File, size: u64) -> impl futures_util::Stream<Item = Bytes> + Send + 'static {
    stream::unfold((file, size), |(mut file, left)| async move {
        if left == 0 {
            return None;
        }
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; wanted];
            let count = file.read(&mut chunk)?;
            chunk.truncate(count);
            Ok::<_, std::io::Error>((chunk, file))
        });
        let (chunk, file) = read.await.ok()?.ok().filter(|(chunk, _)| !chunk.is_empty())?;
        let left = left - chunk.len() as u64;
        Some((Bytes::from(chunk), (file, left)))
    })
}

/// The names, and the directories they lead to.
pub(super) fn debug(context: &Context, query: &Query) -> Answer {
    let names = context.files.names();
    let names =
        names.iter().map(|(name, to)| (name.display().to_string(), Json::from(to.display().to_string())));
    Ok(query.json(&Json::Object(names.collect())))
}

fn path(query: &Query) -> Result<String, Refusal> {
    let path = query.get("path").filter(|path| !path.is_empty());
    path.map(str::to_owned).ok_or_else(|| Refusal::bad_request("Expecting 'path=value' in query.\n"))
}

/// A number from -1 on.
fn number(query: &Query, name: &str) -> Result<Option<i64>, Refusal> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let number: i64 =
        text.parse().map_err(|error| Refusal::bad_request(format!("Failed to parse {name}: {error}.\n")))?;
    if number < -1 {
        return Err(Refusal::bad_request(format!("Negative {name} provided: {number}.\n")));
    }
    Ok(Some(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_letters() {
        assert_eq!(mode(0o100_644), "-rw-r--r--");
        assert_eq!(mode(0o040_750), "drwxr-x---");
        assert_eq!(mode(0o120_777), "lrwxrwxrwx");
    }
}
