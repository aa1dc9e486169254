//! A session with ZooKeeper in which one term writes, and no earlier one can any more.

use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tepui_zookeeper::client::{Client, CreateMode, Error, MultiWriteError, MultiWriter};
use tepui_zookeeper::{Session, Url};

use super::batch::Op;
use super::{ROOT, Term};
use crate::registry::{RegistryError, Table};

/// Raised when an older Tepui could no longer read the nodes rightly. A table more needs no new number,
/// since a table that is not known is refused.
const FORMAT: u64 = 1;
/// Between two attempts when the connection broke. The end of the session ends them.
const RETRY: Duration = Duration::from_millis(50);

/// What the registry's node holds.
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: u64,
}

/// What the term's node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    term: String,
    batch: u64,
}

/// See the module.
pub(super) struct Fence {
    session: Session,
    /// The path of the registry's node.
    root: String,
    /// What this term wrote last to its node, and the version that the node has since.
    mark: Mark,
    version: i32,
}

/// What came of a transaction.
enum Fate {
    Landed,
    /// It did not land.
    Lost,
}

// === impl Fence ===

impl Fence {
    pub(super) async fn open(url: &Url, timeout: Duration, term: Term<'_>) -> Result<Self, RegistryError> {
        let opened = Session::open(url, timeout).await;
        let session =
            opened.map_err(|error| RegistryError::ZooKeeper { doing: "reached", error: error.into() })?;
        let root = format!("{}/{ROOT}", url.path());
        let mark = Mark { term: term.id.to_owned(), batch: 0 };
        let mut fence = Self { session, root, mark: mark.clone(), version: 0 };
        fence.prepare().await?;
        fence.version = fence.term_version().await?;
        fence.begin(mark, term.elected_by).await?;
        Ok(fence)
    }

    /// Makes the registry's node if need be, and refuses what a newer version made.
    async fn prepare(&self) -> Result<(), RegistryError> {
        let path = self.session.url().path();
        let options = CreateMode::Persistent.with_acls(self.session.acls());
        self.retried(path, "made", || self.client().mkdir(path, &options)).await?;
        let format = json(&Format { format: FORMAT });
        self.made_if_absent(&self.root, &format).await?;
        // Another server than the one we are connected to may know more.
        self.retried(&self.root, "read", || self.client().sync(&self.root)).await?;
        let data = self.data(&self.root).await?;
        let found: Format =
            serde_json::from_slice(&data).map_err(|_| RegistryError::NoRegistry { registry: self.name() })?;
        if found.format > FORMAT {
            return Err(RegistryError::Format { registry: self.name(), found: found.format, known: FORMAT });
        }
        self.tables().await?;
        Ok(())
    }

    async fn made_if_absent(&self, path: &str, data: &[u8]) -> Result<(), RegistryError> {
        let options = CreateMode::Persistent.with_acls(self.session.acls());
        let create = || async {
            match self.client().create(path, data, &options).await {
                Ok(_) | Err(Error::NodeExists) => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.retried(path, "made", create).await
    }

    async fn term_version(&self) -> Result<i32, RegistryError> {
        let path = self.term_path();
        self.made_if_absent(&path, &json(&Mark { term: String::new(), batch: 0 })).await?;
        let (_, stat) = self.retried(&path, "read", || self.client().get_data(&path)).await?;
        Ok(stat.version)
    }

    /// Takes the registry from whoever had it.
    async fn begin(&mut self, mark: Mark, elected_by: Option<&str>) -> Result<(), RegistryError> {
        let add = |writer: &mut MultiWriter<'_>| match elected_by {
            // -1 stands for any version: it is to be there.
            Some(node) => writer.add_check_version(node, -1),
            None => Ok(()),
        };
        self.transact(mark, add).await
    }

    /// Writes all of these, or none.
    ///
    /// # Errors
    /// When a later term has begun, the session has ended, or ZooKeeper refuses.
    pub(super) async fn commit(&mut self, ops: &[Op]) -> Result<(), RegistryError> {
        if ops.is_empty() {
            return Ok(());
        }
        let options = CreateMode::Persistent.with_acls(self.session.acls());
        let mark = Mark { batch: self.mark.batch + 1, ..self.mark.clone() };
        let add = |writer: &mut MultiWriter<'_>| {
            ops.iter().try_for_each(|op| match op {
                Op::Create { path, data } => writer.add_create(path, data, &options),
                Op::Set { path, data } => writer.add_set_data(path, data, None),
                Op::Delete { path } => writer.add_delete(path, None),
            })
        };
        self.transact(mark, add).await
    }

    /// Writes the mark, and the rest with it, on condition of the version that the last write left.
    async fn transact(
        &mut self,
        mark: Mark,
        add: impl Fn(&mut MultiWriter<'_>) -> Result<(), Error>,
    ) -> Result<(), RegistryError> {
        let (path, data) = (self.term_path(), json(&mark));
        loop {
            let mut writer = self.client().new_multi_writer();
            let added = writer.add_set_data(&path, &data, Some(self.version)).and_then(|()| add(&mut writer));
            added.map_err(|error| self.failed(&path, "written", error))?;
            let fate = match writer.commit().await {
                Ok(_) => Fate::Landed,
                // Somebody else's write, or our own whose answer was lost.
                Err(MultiWriteError::OperationFailed { index: 0, source: Error::BadVersion }) => {
                    self.fate(&mark).await?
                }
                Err(error) if is_passing(&Error::from(error.clone())) => {
                    tracing::warn!(%error, "a write of the registry was not answered; looking whether it landed");
                    tokio::time::sleep(RETRY).await;
                    self.fate(&mark).await?
                }
                Err(MultiWriteError::OperationFailed { index: 1, source: Error::NoNode })
                    if mark.batch == 0 =>
                {
                    return Err(RegistryError::NotElected { registry: self.name() });
                }
                Err(error) => return Err(self.failed(&path, "written", error.into())),
            };
            if let Fate::Landed = fate {
                self.version = self.version.wrapping_add(1);
                self.mark = mark;
                return Ok(());
            }
        }
    }

    /// Whether a transaction has landed. One that is under way still and lands after this look makes the
    /// next attempt fail for its version, and the look after that one sees it.
    async fn fate(&self, mark: &Mark) -> Result<Fate, RegistryError> {
        let path = self.term_path();
        self.retried(&path, "read", || self.client().sync(&path)).await?;
        let (data, stat) = self.retried(&path, "read", || self.client().get_data(&path)).await?;
        let found: Option<Mark> = serde_json::from_slice(&data).ok();
        if stat.version == self.version {
            return Ok(Fate::Lost);
        }
        if stat.version == self.version.wrapping_add(1) && found.as_ref() == Some(mark) {
            return Ok(Fate::Landed);
        }
        let by = found.map_or_else(|| "another".to_owned(), |found| found.term);
        Err(RegistryError::Deposed { registry: self.name(), by })
    }

    /// The tables that are there.
    pub(super) async fn tables(&self) -> Result<Vec<Table>, RegistryError> {
        let names = self.children(&self.root).await?;
        let names = names.into_iter().filter(|name| name != TERM);
        let table = |name: String| {
            Table::named(&name)
                .ok_or_else(|| RegistryError::UnknownTable { registry: self.name(), table: name.clone() })
        };
        names.map(table).collect()
    }

    pub(super) async fn children(&self, path: &str) -> Result<Vec<String>, RegistryError> {
        self.retried(path, "read", || self.client().list_children(path)).await
    }

    pub(super) async fn data(&self, path: &str) -> Result<Vec<u8>, RegistryError> {
        Ok(self.retried(path, "read", || self.client().get_data(path)).await?.0)
    }

    /// The path of the registry's node.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// Where it is, for words.
    pub(super) fn name(&self) -> String {
        format!("{}/{ROOT}", self.session.url())
    }

    fn term_path(&self) -> String {
        format!("{}/{TERM}", self.root)
    }

    /// Asks until there is an answer. Only for what may be done twice.
    async fn retried<T, F: Future<Output = Result<T, Error>>>(
        &self,
        path: &str,
        doing: &'static str,
        ask: impl Fn() -> F,
    ) -> Result<T, RegistryError> {
        loop {
            match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) if is_passing(&error) => tokio::time::sleep(RETRY).await,
                Err(error) => return Err(self.failed(path, doing, error)),
            }
        }
    }

    fn client(&self) -> &Client {
        self.session.client()
    }

    fn failed(&self, path: &str, doing: &'static str, error: Error) -> RegistryError {
        RegistryError::ZooKeeper { doing, error: self.session.error(path, error).into() }
    }
}

/// The name of the term's node.
const TERM: &str = "term";

/// Whether the next attempt may well go better: the connection broke, and the session has not ended.
fn is_passing(error: &Error) -> bool {
    matches!(
        error,
        Error::ConnectionLoss
            | Error::SessionMoved
            | Error::Timeout
            | Error::Throttled
            | Error::UnexpectedError(_)
            | Error::Custom(_)
    )
}

fn json(value: &impl Serialize) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "plain structs of strings and numbers")]
    serde_json::to_vec(value).expect("serializable")
}
