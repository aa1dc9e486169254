//! ATTACH_CONTAINER_INPUT: a stream of calls, of which the first names the container and the others bring what is typed.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::StatusCode;
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use tepui_api::MediaType;
use tepui_api::http::Refusal;
use tepui_api::recordio::Decoder;
use tepui_api::v1::agent::call::AttachContainerInput;
use tepui_api::v1::agent::call::attach_container_input::Type;
use tepui_api::v1::agent::{Call, ProcessIo, process_io};
use tepui_api::v1::{ContainerId, TtyInfo};
use tepui_shim::WindowSize;
use tokio::io::AsyncWriteExt as _;

use super::super::{Answer, Context, stopping};
use super::{check_id, not_found};
use crate::shell::guest::Input;

/// What is still under way when a container ends has this long to arrive, as in Mesos.
const LAST_RECORDS: Duration = Duration::from_secs(1);

/// Between two looks at whether a container that has a terminal still runs.
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);

/// The bytes that a call of a stream may have.
const MAX_CALL: usize = 16 << 20;

/// The calls of a streamed request.
pub(in crate::http) struct Calls<'a> {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send + 'a>>,
    decoder: Decoder,
    media: MediaType,
}

impl<'a> Calls<'a> {
    pub(in crate::http) fn new<B>(body: B, media: MediaType) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'a,
        B::Error: std::fmt::Display,
    {
        let chunks = body.into_data_stream().map(|chunk| chunk.map_err(|error| error.to_string()));
        Self { chunks: Box::pin(chunks), decoder: Decoder::new(), media }
    }

    /// The next one; `None` at the end of the stream.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is not a record or not a call.
    pub(in crate::http) async fn next(&mut self) -> Result<Option<Call>, Refusal> {
        let refused = |error: String| Refusal::bad_request(format!("failed to read the body: {error}"));
        loop {
            if let Some(record) = self.decoder.next_record().map_err(|error| refused(error.to_string()))? {
                let call = tepui_api::decode(self.media, &record);
                return call.map(Some).map_err(|error| Refusal::bad_request(error.to_string()));
            }
            match self.chunks.next().await {
                Some(chunk) => {
                    self.decoder.push(&chunk.map_err(refused)?);
                    if self.decoder.buffered() > MAX_CALL {
                        let message = format!("a call in a stream may have {MAX_CALL} bytes");
                        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message));
                    }
                }
                None if self.decoder.is_between_records() => return Ok(None),
                None => return Err(refused("it ends within a record".to_owned())),
            }
        }
    }
}

/// Answers the call when the stream has ended, or the container.
pub(in crate::http) async fn input(context: &Context, first: Call, calls: &mut Calls<'_>) -> Answer {
    let attach = first.attach_container_input;
    let attach =
        attach.ok_or_else(|| Refusal::bad_request("Expecting 'attach_container_input' to be present"))?;
    match attach.r#type {
        None => return Err(Refusal::bad_request("Expecting 'attach_container_input.type' to be present")),
        Some(number) if number == Type::ContainerId as i32 => {}
        Some(_) => {
            return Err(Refusal::bad_request("Expecting 'attach_container_input.type' to be CONTAINER_ID"));
        }
    }
    let id = attach.container_id.ok_or_else(|| {
        Refusal::bad_request("Expecting 'attach_container_input.container_id' to be present")
    })?;
    check_id(&id, "attach_container_input.container_id")?;
    let busy = || Refusal::new(StatusCode::CONFLICT, "Multiple input connections are not allowed");
    if let Some(session) = context.sessions.get(&id) {
        let mut input = session.input.try_lock().map_err(|_| busy())?;
        feed(&mut input, calls, session.over()).await?;
    } else {
        let terminal = terminal(context, &id).await?;
        let _only = context.sessions.take_terminal(&id).ok_or_else(busy)?;
        feed(&mut Some(terminal), calls, ended(context, &id)).await?;
    }
    Ok(tepui_api::http::empty(StatusCode::OK))
}

/// Waits for a container's end.
async fn ended(context: &Context, id: &ContainerId) {
    loop {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let (backend, id) = (std::sync::Arc::clone(&context.backend), id.clone());
        let look = context.workers.spawn(async move { super::runs(&*backend, &id).await });
        if !matches!(look.await, Ok(true)) {
            return;
        }
    }
}

/// The terminal of a task's own program.
async fn terminal(context: &Context, id: &ContainerId) -> Result<Input, Refusal> {
    let snapshot = context.handle.snapshot().await.map_err(stopping)?;
    let of_task = snapshot.frameworks.tasks().any(|task| task.container == *id);
    if !of_task && context.backend.place(id).is_none() {
        return Err(not_found(id));
    }
    let (backend, owned) = (std::sync::Arc::clone(&context.backend), id.clone());
    let asked = context.workers.spawn(async move { backend.terminal(owned).await });
    let failed = |error: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error);
    match asked.await.map_err(|error| failed(error.to_string()))? {
        Ok(Some(terminal)) => Ok(terminal),
        Ok(None) => Err(failed(format!(
            "I/O switchboard server was disabled for this container: {id} has no terminal (ContainerInfo.tty_info) that could be typed into"
        ))),
        Err(error) => Err(failed(error)),
    }
}

/// Passes on what comes. `None` for an input that was closed.
async fn feed(
    input: &mut Option<Input>,
    calls: &mut Calls<'_>,
    over: impl Future<Output = ()>,
) -> Result<(), Refusal> {
    let reading = async {
        while let Some(call) = calls.next().await? {
            pass(input, checked(call)?).await?;
        }
        Ok(())
    };
    let over = async {
        over.await;
        tokio::time::sleep(LAST_RECORDS).await;
    };
    tokio::select! {
        read = reading => read,
        () = over => Ok(()),
    }
}

/// What a call brings.
#[derive(Debug, PartialEq)]
enum Typed {
    Bytes(Vec<u8>),
    Size(WindowSize),
    Nothing,
}

async fn pass(input: &mut Option<Input>, typed: Typed) -> Result<(), Refusal> {
    let failed = |error: String| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("Failed writing to stdin: {error}"))
    };
    match typed {
        Typed::Nothing => Ok(()),
        Typed::Size(size) => {
            let refused = |error| Refusal::bad_request(format!("Unable to set the window size: {error}"));
            let resize = input.as_ref().and_then(|input| input.resize.as_ref());
            let resize = resize.ok_or_else(|| refused("the container has no terminal".to_owned()))?;
            resize(size).await.map_err(refused)
        }
        Typed::Bytes(bytes) => {
            let open = input.as_mut().ok_or_else(|| failed("it was closed".to_owned()))?;
            if bytes.is_empty() {
                // The end, but for a terminal, where the client is to send the character that means it.
                if open.resize.is_none() {
                    let _ = open.writer.shutdown().await;
                    *input = None;
                }
                return Ok(());
            }
            open.writer.write_all(&bytes).await.map_err(|error| failed(error.to_string()))?;
            open.writer.flush().await.map_err(|error| failed(error.to_string()))
        }
    }
}

/// Checks a call as Mesos' I/O switchboard does.
fn checked(call: Call) -> Result<Typed, Refusal> {
    let expected = |what: &str| Refusal::bad_request(format!("Expecting {what}"));
    let AttachContainerInput { r#type, process_io, .. } =
        call.attach_container_input.ok_or_else(|| expected("'attach_container_input' to be present"))?;
    if r#type != Some(Type::ProcessIo as i32) {
        return Err(expected("'attach_container_input.type' to be 'PROCESS_IO'"));
    }
    let ProcessIo { r#type, data, control } =
        process_io.ok_or_else(|| expected("'attach_container_input.process_io' to be present"))?;
    let kind = r#type.ok_or_else(|| expected("'process_io.type' to be present"))?;
    match process_io::Type::try_from(kind) {
        Ok(process_io::Type::Data) => {
            let data = data.ok_or_else(|| expected("'process_io.data' to be present"))?;
            if data.r#type != Some(process_io::data::Type::Stdin as i32) {
                return Err(expected("'process_io.data.type' to be 'STDIN'"));
            }
            data.data.map(Typed::Bytes).ok_or_else(|| expected("'process_io.data.data' to be present"))
        }
        Ok(process_io::Type::Control) => {
            let control = control.ok_or_else(|| expected("'process_io.control' to be present"))?;
            let kind = control.r#type.ok_or_else(|| expected("'process_io.control.type' to be present"))?;
            match process_io::control::Type::try_from(kind) {
                Ok(process_io::control::Type::TtyInfo) => {
                    let info = control
                        .tty_info
                        .ok_or_else(|| expected("'process_io.control.tty_info' to be present"))?;
                    window_size(&info)
                        .map(Typed::Size)
                        .ok_or_else(|| expected("'tty_info.window_size' to be present"))
                }
                Ok(process_io::control::Type::Heartbeat) if control.heartbeat.is_some() => Ok(Typed::Nothing),
                Ok(process_io::control::Type::Heartbeat) => {
                    Err(expected("'process_io.control.heartbeat' to be present"))
                }
                _ => Err(Refusal::bad_request("'process_io.control.type' is unknown")),
            }
        }
        _ => Err(Refusal::bad_request("'process_io.type' is unknown")),
    }
}

/// As the kernel takes it.
pub(super) fn window_size(info: &TtyInfo) -> Option<WindowSize> {
    let fits = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let size = info.window_size.as_ref()?;
    Some(WindowSize { rows: fits(size.rows), columns: fits(size.columns) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(process_io: serde_json::Value) -> Result<Typed, String> {
        let call = json!({ "type": "ATTACH_CONTAINER_INPUT",
            "attach_container_input": { "type": "PROCESS_IO", "process_io": process_io } });
        checked(tepui_api::decode(MediaType::Json, call.to_string().as_bytes()).unwrap())
            .map_err(|refusal| refusal.message)
    }

    #[test]
    fn what_is_typed_is_checked() {
        let data = json!({ "type": "DATA", "data": { "type": "STDIN", "data": "bHM=" } });
        assert_eq!(check(data), Ok(Typed::Bytes(b"ls".to_vec())));
        let size = json!({ "type": "CONTROL", "control":
            { "type": "TTY_INFO", "tty_info": { "window_size": { "rows": 4, "columns": 70000 } } } });
        assert_eq!(check(size), Ok(Typed::Size(WindowSize { rows: 4, columns: u16::MAX })));
        let heartbeat = json!({ "type": "CONTROL", "control": { "type": "HEARTBEAT", "heartbeat": {} } });
        assert_eq!(check(heartbeat), Ok(Typed::Nothing));
        for (wrong, words) in [
            (json!({}), "'process_io.type'"),
            (json!({ "type": "DATA" }), "'process_io.data'"),
            (json!({ "type": "DATA", "data": { "type": "STDOUT", "data": "" } }), "'STDIN'"),
            (json!({ "type": "DATA", "data": { "type": "STDIN" } }), "'process_io.data.data'"),
            (json!({ "type": "CONTROL" }), "'process_io.control'"),
            (json!({ "type": "CONTROL", "control": { "type": "TTY_INFO", "tty_info": {} } }), "window_size"),
            (json!({ "type": "CONTROL", "control": { "type": "HEARTBEAT" } }), "heartbeat"),
        ] {
            assert!(check(wrong.clone()).unwrap_err().contains(words), "{wrong}");
        }
    }

    #[tokio::test]
    async fn calls_are_cut_out_of_the_stream() {
        let record = tepui_api::recordio::encode(br#"{"type":"GET_HEALTH"}"#);
        let body = |bytes: Vec<u8>| http_body_util::Full::new(Bytes::from(bytes));
        let mut calls = Calls::new(body([&record[..], &record[..]].concat()), MediaType::Json);
        assert!(calls.next().await.unwrap().is_some());
        assert!(calls.next().await.unwrap().is_some());
        assert_eq!(calls.next().await, Ok(None));
        let mut cut = Calls::new(body(record[..5].to_vec()), MediaType::Json);
        assert!(cut.next().await.is_err());
    }
}
