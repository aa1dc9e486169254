//! A registry of a few lines that counts its requests and misbehaves as told.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::image::Built;

/// One request, as far as it matters.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// First byte wanted.
    pub from: Option<usize>,
    pub authorization: Option<String>,
    /// How often this path was asked for before.
    pub repetition: usize,
}

/// How to answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// As a registry does.
    Properly,
    /// As a registry does, but break off after so many bytes of the body.
    BreakOff(usize),
    /// As a registry that knows no ranges does, breaking off after so many bytes.
    WithoutRange(usize),
    /// Send this, with these header lines.
    Send { status: u16, headers: Vec<String>, body: Vec<u8> },
    /// Send so much, then nothing, until the server is stopped.
    Stall(usize),
}

type Behaviour = dyn Fn(&Request) -> Answer + Send + Sync;

/// The server; dropped, it stops.
pub struct Server {
    /// `127.0.0.1:PORT`.
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    documents: Mutex<BTreeMap<String, Vec<u8>>>,
    behaviour: Mutex<Arc<Behaviour>>,
    requests: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            documents: Mutex::default(),
            behaviour: Mutex::new(Arc::new(|_| Answer::Properly)),
            requests: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let serving = shared.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(connection));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves the image as `repository:tag`.
    pub fn add(&self, repository: &str, tag: &str, image: &Built) {
        let mut documents = self.shared.documents.lock().unwrap();
        for (digest, content) in &image.blobs {
            documents.insert(format!("/v2/{repository}/blobs/{digest}"), content.clone());
        }
        let manifest = &image.blobs[&image.manifest];
        documents.insert(format!("/v2/{repository}/manifests/{tag}"), manifest.clone());
        documents.insert(format!("/v2/{repository}/manifests/{}", image.manifest), manifest.clone());
    }

    /// Serves any bytes under a path.
    pub fn put(&self, path: &str, content: &[u8]) {
        self.shared.documents.lock().unwrap().insert(path.to_owned(), content.to_vec());
    }

    pub fn behave(&self, behaviour: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *self.shared.behaviour.lock().unwrap() = Arc::new(behaviour);
    }

    /// Requests so far whose path contains `part`.
    pub fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.path.contains(part)).count()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn serve(&self, connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let Some(request) = self.read_request(&mut reader) else { return };
        let behaviour = self.behaviour.lock().unwrap().clone();
        let answer = behaviour(&request);
        let document = self.documents.lock().unwrap().get(&request.path).cloned();
        // The client may hang up at any time.
        let _ = self.answer(connection, &request, answer, document);
    }

    fn read_request(&self, reader: &mut impl std::io::BufRead) -> Option<Request> {
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let path = first.split(' ').nth(1)?.to_owned();
        let mut request = Request { path, from: None, authorization: None, repetition: 0 };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => {
                    request.from = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok()
                }
                "authorization" => request.authorization = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut requests = self.requests.lock().unwrap();
        request.repetition = requests.iter().filter(|earlier| earlier.path == request.path).count();
        requests.push(request.clone());
        Some(request)
    }

    fn answer(
        &self,
        mut connection: TcpStream,
        request: &Request,
        answer: Answer,
        document: Option<Vec<u8>>,
    ) -> std::io::Result<()> {
        let (from, limit, stall) = match answer {
            Answer::Send { status, headers, body } => {
                let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
                write!(
                    connection,
                    "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                )?;
                return connection.write_all(&body);
            }
            Answer::Properly => (request.from, usize::MAX, false),
            Answer::BreakOff(limit) => (request.from, limit, false),
            Answer::WithoutRange(limit) => (None, limit, false),
            Answer::Stall(limit) => (request.from, limit, true),
        };
        let Some(document) = document else {
            return connection
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        let body = &document[from.unwrap_or(0).min(document.len())..];
        let status = match from {
            Some(from) => format!(
                "206 Partial Content\r\nContent-Range: bytes {from}-{}/{}",
                document.len() - 1,
                document.len()
            ),
            None => "200 OK".to_owned(),
        };
        write!(
            connection,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        )?;
        connection.write_all(&body[..limit.min(body.len())])?;
        while stall && !self.stopped.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}
