//! The fetcher over a web server of its own.

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Mutex;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;

/// What a server answers.
#[derive(Clone)]
enum Page {
    File(Vec<u8>),
    /// Without a length.
    Endless(Vec<u8>),
    /// Says how long it is, sends a part and falls silent.
    Silent,
    /// Says how long it is, sends a part and hangs up.
    Broken,
    Redirect(String),
}

/// A web server, with a count of what it was asked for.
struct Web {
    address: String,
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Web {
    async fn start(pages: &[(&str, Page)]) -> Self {
        let pages: HashMap<String, Page> =
            pages.iter().map(|(name, page)| ((*name).to_owned(), page.clone())).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (pages, count) = (pages.clone(), Arc::clone(&count));
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        request.push(stream.read_u8().await.ok()?);
                    }
                    let text = String::from_utf8(request).ok()?;
                    let path = text.split(' ').nth(1)?.to_owned();
                    *count.lock().unwrap().entry(path.clone()).or_default() += 1;
                    let close = "Connection: close\r\n\r\n";
                    let (head, body) = match pages.get(&path) {
                        None => (format!("404 Not Found\r\nContent-Length: 0\r\n{close}"), vec![]),
                        Some(Page::File(body)) => {
                            (format!("200 OK\r\nContent-Length: {}\r\n{close}", body.len()), body.clone())
                        }
                        Some(Page::Endless(body)) => (format!("200 OK\r\n{close}"), body.clone()),
                        Some(Page::Silent | Page::Broken) => {
                            (format!("200 OK\r\nContent-Length: 100\r\n{close}"), b"a part".to_vec())
                        }
                        Some(Page::Redirect(to)) => {
                            (format!("302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n{close}"), vec![])
                        }
                    };
                    stream.write_all(format!("HTTP/1.1 {head}").as_bytes()).await.ok()?;
                    stream.write_all(&body).await.ok()?;
                    if matches!(pages.get(&path), Some(Page::Silent)) {
                        tokio::time::sleep(Duration::from_secs(600)).await;
                    }
                    Some(())
                });
            }
        });
        Self { address, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().get(path).copied().unwrap_or(0)
    }
}

/// A fetcher and a sandbox.
struct World {
    dir: tempfile::TempDir,
    fetcher: Fetcher,
    stop: watch::Sender<bool>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            cache_dir: dir.path().join("cache"),
            cache_size: 1000,
            stall_timeout: Duration::from_millis(300),
            home: Some(dir.path().join("home")),
        };
        std::fs::create_dir(dir.path().join("home")).unwrap();
        std::fs::create_dir(dir.path().join("sandbox")).unwrap();
        std::fs::write(dir.path().join("sandbox/stderr"), "").unwrap();
        Self { fetcher: Fetcher::new(settings).unwrap(), dir, stop: watch::Sender::new(false) }
    }

    fn sandbox(&self) -> PathBuf {
        self.dir.path().join("sandbox")
    }

    async fn fetch(&self, uris: &[Uri]) -> Result<(), FetchError> {
        let (id, sandbox) = (ContainerId { value: "c".into(), ..ContainerId::default() }, self.sandbox());
        let job = Job { container: &id, uris, sandbox: &sandbox, user: None };
        self.fetcher.fetch(job, &Stop::of(self.stop.subscribe())).await
    }

    fn names(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.sandbox()).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "stderr");
        names.sort();
        names
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.sandbox().join(name)).unwrap()
    }

    fn cached_files(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("cache")).unwrap().count()
    }
}

fn uri(value: impl Into<String>) -> Uri {
    Uri { value: value.into(), ..Uri::default() }
}

fn cached(value: impl Into<String>) -> Uri {
    Uri { cache: Some(true), ..uri(value) }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn files_come_from_everywhere() {
    let web = Web::start(&[
        ("/a", Page::File(b"from the net".to_vec())),
        ("/b?x=1", Page::Endless(b"without a length".to_vec())),
        ("/moved", Page::Redirect("/a".into())),
        ("/log.gz", Page::File(gzip(b"a log"))),
    ])
    .await;
    let world = World::new();
    std::fs::write(world.dir.path().join("home/local"), "local").unwrap();
    let absolute = world.dir.path().join("home/program");
    std::fs::write(&absolute, "program").unwrap();
    std::fs::set_permissions(&absolute, std::fs::Permissions::from_mode(0o4775)).unwrap();
    let absolute = absolute.display().to_string();
    let uris = [
        uri(web.url("/a")),
        uri(web.url("/b?x=1")),
        uri(web.url("/moved")),
        uri(web.url("/log.gz")),
        uri("local"),
        uri(&absolute),
        Uri {
            output_file: Some("d/e/f".into()),
            executable: Some(true),
            ..uri(format!("file://{absolute}"))
        },
    ];
    world.fetch(&uris).await.unwrap();
    assert_eq!(world.names(), ["a", "b?x=1", "d", "local", "log", "log.gz", "moved", "program"]);
    assert_eq!((world.text("a"), world.text("moved")), ("from the net".into(), "from the net".into()));
    assert_eq!((world.text("log"), world.text("d/e/f")), ("a log".into(), "program".into()));
    let mode = |name: &str| world.sandbox().join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("a"), mode("program"), mode("d/e/f")), (0o644, 0o755, 0o755));
    assert_eq!(world.text("stderr").lines().count(), uris.len());
    assert!(world.text("stderr").contains("12 bytes"), "{}", world.text("stderr"));
    assert_eq!((world.fetcher.counts().succeeded, world.fetcher.counts().failed), (1, 0));
}

#[tokio::test]
async fn what_fails_says_why_and_leaves_no_half_file() {
    let web = Web::start(&[
        ("/silent", Page::Silent),
        ("/broken", Page::Broken),
        ("/bad.tgz", Page::File(b"<html>".repeat(200))),
        ("/good", Page::File(b"x".to_vec())),
    ])
    .await;
    let none = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (uri_text, words) in [
        (web.url("/none"), "404"),
        (web.url("/silent"), "no byte came for 0.3 s"),
        (web.url("/broken"), "Failed to fetch"),
        (web.url("/bad.tgz"), "cannot be unpacked: it is no valid tar archive"),
        (format!("http://{none}/x"), "refused"),
        ("/no/such/file".to_owned(), "No such file"),
        ("/dev/zero".to_owned(), "is no file"),
        ("/tmp".to_owned(), "is no file"),
        ("ftp://h/x".to_owned(), "http, https or file"),
    ] {
        let world = World::new();
        let error = world.fetch(&[uri(web.url("/good")), uri(&uri_text)]).await.unwrap_err().to_string();
        assert!(error.contains(words) && error.contains(&uri_text), "{uri_text}: {error}");
        let left = world.names();
        match uri_text.as_str() {
            text if text.ends_with(".tgz") => assert_eq!(left, ["bad.tgz", "good"]),
            // All are looked at before the first is fetched.
            text if text.starts_with("ftp") => assert_eq!(left, [""; 0]),
            _ => assert_eq!(left, ["good"], "{uri_text}"),
        }
        assert_eq!(world.fetcher.counts().failed, 1);
    }
}

#[tokio::test]
async fn a_link_in_the_sandbox_is_not_followed() {
    let world = World::new();
    let secret = world.dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    std::fs::write(world.dir.path().join("home/a"), "a").unwrap();
    std::os::unix::fs::symlink(&secret, world.sandbox().join("a")).unwrap();
    std::os::unix::fs::symlink(world.dir.path(), world.sandbox().join("up")).unwrap();
    world.fetch(&[uri("a")]).await.unwrap();
    assert_eq!((world.text("a"), std::fs::read_to_string(&secret).unwrap()), ("a".into(), "secret".into()));
    let through = Uri { output_file: Some("up/new".into()), ..uri("a") };
    assert!(matches!(world.fetch(&[through]).await, Err(FetchError::Failed { .. })));
    assert!(!world.dir.path().join("new").exists());
}

#[tokio::test]
async fn the_cache_is_asked_first_and_passed_by_when_it_has_no_room() {
    let web = Web::start(&[
        ("/a", Page::File(b"once".to_vec())),
        ("/log.gz", Page::File(gzip(b"a log"))),
        ("/large", Page::File(vec![b'x'; 2000])),
        ("/unsized", Page::Endless(b"y".to_vec())),
    ])
    .await;
    let world = World::new();
    for _ in 0..3 {
        world.fetch(&[cached(web.url("/a")), cached(web.url("/log.gz"))]).await.unwrap();
    }
    assert_eq!((web.asked("/a"), web.asked("/log.gz"), world.cached_files()), (1, 1, 2));
    // What is unpacked from the cache is not there as it was.
    assert_eq!((world.names(), world.text("log")), (vec!["a".to_owned(), "log".to_owned()], "a log".into()));
    world.fetch(&[cached(web.url("/large")), cached(web.url("/unsized"))]).await.unwrap();
    assert_eq!((world.text("large").len(), world.text("unsized")), (2000, "y".into()));
    assert_eq!(world.cached_files(), 2);
    let counts = world.fetcher.counts();
    assert_eq!((counts.cache_size, counts.succeeded), (1000, 4));
    let all: u64 = std::fs::read_dir(world.dir.path().join("cache"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!(counts.cache_used, all);
    assert!(world.fetch(&[cached(web.url("/none"))]).await.unwrap_err().to_string().contains("404"));
}

#[tokio::test]
async fn who_is_stopped_is_stopped_at_once_and_leaves_nothing_in_the_cache() {
    let web = Web::start(&[("/silent", Page::Silent)]).await;
    for how in [uri, cached] {
        let world = World::new();
        let began = std::time::Instant::now();
        let uris = [how(web.url("/silent"))];
        let stop = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            world.stop.send_replace(true);
        };
        let (fetched, ()) = tokio::join!(world.fetch(&uris), stop);
        assert_eq!(fetched, Err(FetchError::Stopped));
        // The page is silent for as long as anybody listens.
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!(world.names(), [""; 0]);
        // A thread that was writing may need a moment.
        let left = || (world.cached_files(), world.fetcher.counts().cache_used);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while left() != (0, 0) && std::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(left(), (0, 0));
    }
}

#[tokio::test]
async fn a_user_gets_what_it_may_read_and_owns_it() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let world = World::new();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(world.dir.path(), open).unwrap();
    std::os::unix::fs::chown(world.sandbox(), Some(nobody.uid.as_raw()), None).unwrap();
    std::os::unix::fs::chown(world.sandbox().join("stderr"), Some(nobody.uid.as_raw()), None).unwrap();
    let (public, secret) = (world.dir.path().join("home/public"), world.dir.path().join("home/secret"));
    std::fs::write(&public, "public").unwrap();
    std::fs::write(&secret, "secret").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    for make in [uri, cached] {
        let (id, sandbox) = (ContainerId { value: "c".into(), ..ContainerId::default() }, world.sandbox());
        let fetch = |uris: Vec<Uri>| {
            let (id, sandbox, stop) = (&id, &sandbox, Stop::of(world.stop.subscribe()));
            let fetcher = &world.fetcher;
            async move {
                let job = Job { container: id, uris: &uris, sandbox, user: Some("nobody") };
                fetcher.fetch(job, &stop).await
            }
        };
        fetch(vec![make(public.display().to_string())]).await.unwrap();
        assert_eq!(sandbox.join("public").metadata().unwrap().uid(), nobody.uid.as_raw());
        let error = fetch(vec![make(secret.display().to_string())]).await.unwrap_err();
        assert!(error.to_string().contains("Permission denied"), "{error}");
    }
    assert!(world.text("stderr").contains("Permission denied"));
}
