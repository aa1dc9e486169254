//! A ZooKeeper server of a test's own.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tepui_coordinator::registry::{RegistryError, Term, ZooKeeperRegistry};
use tepui_zookeeper::Url;
use tokio::runtime::Runtime;

/// Debian's, which names all it needs in its manifest; and no log, which else goes wherever log4j wants.
const CLASSES: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar";

/// The runtime in which sessions are served.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

/// A server on its own. It ends with this value.
pub(crate) struct ZooKeeper {
    dir: TempDir,
    port: u16,
    server: Option<Child>,
}

impl ZooKeeper {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Nobody else takes the port meanwhile, except by a rare accident.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut zookeeper = Self { dir, port, server: None };
        zookeeper.restart();
        zookeeper
    }

    /// Starts the server again, with what it has on disk, and waits until it serves.
    pub(crate) fn restart(&mut self) {
        let dir = self.dir.path();
        let settings = format!(
            "dataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\ntickTime=500\nmaxClientCnxns=0\n\
             admin.enableServer=false\n4lw.commands.whitelist=srvr\n",
            dir.display(),
            self.port
        );
        let file = dir.join("zoo.cfg");
        std::fs::write(&file, settings).unwrap();
        let log = File::create(dir.join("log")).unwrap();
        let server = Command::new("java")
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", CLASSES])
            .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("java starts: install libzookeeper-java and default-jre-headless");
        self.server = Some(server);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.serves() {
            assert!(Instant::now() < deadline, "{}", std::fs::read_to_string(dir.join("log")).unwrap());
            let ended = self.server.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{}", std::fs::read_to_string(dir.join("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn serves(&self) -> bool {
        let ask = || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"srvr")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok::<_, std::io::Error>(answer)
        };
        ask().is_ok_and(|answer| answer.contains("Mode: standalone"))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        server.kill().unwrap();
        server.wait().unwrap();
    }

    pub(crate) fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn url(&self) -> Url {
        url(&self.servers())
    }

    /// Begins a term in the registry.
    pub(crate) fn registry(&self, term: &str) -> ZooKeeperRegistry {
        self.try_registry(term).unwrap()
    }

    pub(crate) fn try_registry(&self, term: &str) -> Result<ZooKeeperRegistry, RegistryError> {
        open(&self.url(), Duration::from_secs(20), term)
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `[user:password@]host:port`, and these tests' path.
pub(crate) fn url(servers: &str) -> Url {
    format!("zk://{servers}/tepui/of this test").parse().unwrap()
}

pub(crate) fn open(url: &Url, timeout: Duration, term: &str) -> Result<ZooKeeperRegistry, RegistryError> {
    ZooKeeperRegistry::open(url, timeout, Term { id: term, elected_by: None }, runtime().handle().clone())
}
