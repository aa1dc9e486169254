//! HTTP/1.1 as bytes, so that nothing is hidden.

use std::collections::BTreeMap;

use tepui_coordinator::Running;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::in_time;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// By the name exactly as it was sent.
    pub headers: BTreeMap<String, String>,
    /// Without chunks' sizes.
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Sends one request and reads the whole answer.
pub async fn request(
    running: &Running,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    in_time("an answer", async {
        let mut stream = TcpStream::connect(running.address()).await.unwrap();
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        parse(&all)
    })
    .await
}

/// Sends a request and reads only the head of the answer; the rest is on the stream, after what has been
/// read of it already.
pub async fn open(
    running: &Running,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (Answer, TcpStream) {
    in_time("the head of an answer", async {
        let mut stream = TcpStream::connect(running.address()).await.unwrap();
        let mut text = format!("POST {path} HTTP/1.1\r\nHost: test\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let (status, headers) = parse_head(&head);
        (Answer { status, headers, body: Vec::new() }, stream)
    })
    .await
}

pub async fn get(running: &Running, path: &str) -> Answer {
    request(running, "GET", path, &[], "").await
}

/// Posts JSON, taking JSON.
pub async fn post_json(running: &Running, path: &str, body: &str) -> Answer {
    request(
        running,
        "POST",
        path,
        &[("Content-Type", "application/json"), ("Accept", "application/json")],
        body,
    )
    .await
}

fn parse(all: &[u8]) -> Answer {
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head") + 4;
    let (status, headers) = parse_head(&all[..end]);
    let rest = &all[end..];
    let body = match headers.get("Transfer-Encoding").map(String::as_str) {
        Some("chunked") => unchunk(rest),
        _ => rest.to_vec(),
    };
    Answer { status, headers, body }
}

fn parse_head(head: &[u8]) -> (u16, BTreeMap<String, String>) {
    let text = std::str::from_utf8(head).unwrap();
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    (status, headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[at + 2..at + 2 + size]);
        rest = &rest[at + 2 + size + 2..];
        if size == 0 {
            break;
        }
    }
    body
}
