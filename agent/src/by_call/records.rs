//! What is written down of containers that were asked for by calls: a file each, `record` in a directory for each container below
//! `<runtime_dir>/by-call`, in which those of its nested containers are. Not synced: no container survives the death of the machine.

use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use prost::Message as _;
use tepui_api::v1::{ContainerId, Resource, TaskInfo};

use super::{Asked, Ended};
use crate::core::{Launch, Limitation};
use crate::store::redact;

/// Beside a container's record, those of the containers nested in it.
const NESTED: &str = "containers";
const FILE: &str = "record";
const NEW_FILE: &str = "record.new";

/// A container. Numbers once used are never used again for something else.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    /// Its id.
    #[prost(message, required, tag = "1")]
    pub(super) container: ContainerId,
    /// What was asked for, without secrets: command, container, resources and limits.
    #[prost(message, required, tag = "2")]
    info: TaskInfo,
    /// Its sandbox; empty if that is not for this to remove.
    #[prost(string, required, tag = "3")]
    directory: String,
    /// Who it runs as.
    #[prost(string, optional, tag = "4")]
    user: Option<String>,
    /// How it ended.
    #[prost(message, optional, tag = "5")]
    end: Option<EndRecord>,
}

/// How a container ended.
#[derive(Clone, PartialEq, prost::Message)]
struct EndRecord {
    /// As wait(2) gives it.
    #[prost(int32, optional, tag = "1")]
    status: Option<i32>,
    /// The limit for which it was ended.
    #[prost(message, optional, tag = "2")]
    limitation: Option<LimitationRecord>,
}

/// A limit that a container exceeded.
#[derive(Clone, PartialEq, prost::Message)]
struct LimitationRecord {
    /// A `TaskStatus.Reason`.
    #[prost(int32, required, tag = "1")]
    reason: i32,
    /// With figures.
    #[prost(string, required, tag = "2")]
    message: String,
    /// The resources it exceeded.
    #[prost(message, repeated, tag = "3")]
    resources: Vec<Resource>,
}

/// Where they are.
#[derive(Debug, Clone)]
pub(super) struct Records {
    directory: PathBuf,
}

// === impl Records ===

impl Records {
    pub(super) fn new(runtime_dir: &Path) -> Self {
        Self { directory: runtime_dir.join("by-call") }
    }

    fn of(&self, id: &ContainerId) -> PathBuf {
        match &id.parent {
            None => self.directory.join(&id.value),
            Some(parent) => self.of(parent).join(NESTED).join(&id.value),
        }
    }

    /// Appears whole or not at all.
    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        let directory = self.of(&record.container);
        // What a command has in its environment is nobody else's.
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let new = directory.join(NEW_FILE);
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&record.encode_to_vec())?;
        std::fs::rename(new, directory.join(FILE))
    }

    /// Removes that of a container with those of all that are nested in it.
    pub(super) fn remove(&self, id: &ContainerId) -> io::Result<()> {
        match std::fs::remove_dir_all(self.of(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// All that are there. One that cannot be read is left out, so that its container is ended as one that nobody knows.
    pub(super) fn all(&self) -> Vec<Record> {
        let mut found = Vec::new();
        collect(&self.directory, &mut found);
        found
    }
}

fn collect(directory: &Path, into: &mut Vec<Record>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        match std::fs::read(path.join(FILE)).map(|bytes| Record::decode(bytes.as_slice())) {
            Ok(Ok(record)) => into.push(record),
            Ok(Err(error)) => {
                tracing::error!(path = %path.display(), %error, "the record of a container cannot be read")
            }
            // Only those nested in it were asked for by calls.
            Err(_) => {}
        }
        collect(&path.join(NESTED), into);
    }
}

// === impl Record ===

impl Record {
    pub(super) fn new(asked: Asked, directory: &Path, user: Option<String>) -> Self {
        let info = TaskInfo {
            command: Some(asked.command),
            container: asked.container,
            resources: asked.resources,
            limits: asked.limits.into_iter().collect(),
            ..TaskInfo::default()
        };
        Self {
            container: asked.id,
            info,
            directory: directory.to_string_lossy().into_owned(),
            user,
            end: None,
        }
    }

    /// How a container ended that was not asked for by a call.
    pub(super) fn of_another(container: ContainerId, ended: &Ended) -> Self {
        let mut record = Self { container, ..Self::default() };
        record.end(ended);
        record
    }

    /// The sandbox that goes with it.
    pub(super) fn sandbox(&self) -> Option<PathBuf> {
        Some(PathBuf::from(&self.directory)).filter(|directory| !directory.as_os_str().is_empty())
    }

    /// To make the container, and then without what nobody may read on a disk.
    pub(super) fn take_launch(&mut self) -> Launch {
        let command = self.info.command.clone().unwrap_or_default();
        let launch = super::launch(&self.info, self.directory.clone().into(), self.user.clone(), command);
        redact(&mut self.info);
        launch
    }

    /// To take the container over.
    pub(super) fn launch(&self) -> Launch {
        let command = self.info.command.clone().unwrap_or_default();
        super::launch(&self.info, self.directory.clone().into(), self.user.clone(), command)
    }

    pub(super) fn end(&mut self, ended: &Ended) {
        let limitation = ended.limitation.as_ref().map(|limitation| LimitationRecord {
            reason: limitation.reason as i32,
            message: limitation.message.clone(),
            resources: limitation.resources.clone(),
        });
        self.end = Some(EndRecord { status: ended.status, limitation });
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        let end = self.end.as_ref()?;
        let limitation = end.limitation.as_ref().map(|limitation| Limitation {
            reason: limitation.reason.try_into().unwrap_or_default(),
            message: limitation.message.clone(),
            resources: limitation.resources.clone(),
        });
        Some(Ended { status: end.status, limitation })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tepui_api::v1::task_status::Reason;
    use tepui_api::v1::value::Scalar;

    use super::*;

    #[test]
    fn what_is_written_down_is_read_again_until_its_root_goes() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path());
        assert!(records.all().is_empty());
        let root = ContainerId::new("root");
        let child = ContainerId { parent: Some(Box::new(root.clone())), ..ContainerId::new("record") };
        let grandchild =
            ContainerId { parent: Some(Box::new(child.clone())), ..ContainerId::new("containers") };
        let limits = HashMap::from([("mem".to_owned(), Scalar { value: f64::INFINITY })]);
        for id in [&child, &grandchild] {
            let asked = Asked { id: id.clone(), limits: limits.clone(), ..Asked::default() };
            records.save(&Record::new(asked, Path::new("/sandbox"), Some("nobody".into()))).unwrap();
        }
        let mut read = records.all();
        assert_eq!(
            read.iter().map(|one| one.container.clone()).collect::<Vec<_>>(),
            [child.clone(), grandchild]
        );
        let launch = read[0].launch();
        assert_eq!((launch.limits["mem"], launch.user.as_deref()), (f64::INFINITY, Some("nobody")));
        assert_eq!(read[0].ended(), None);

        let limitation = Limitation {
            reason: Reason::ContainerLimitationMemory,
            message: "too much".into(),
            resources: Vec::new(),
        };
        let ended = Ended { status: Some(9), limitation: Some(limitation) };
        read[0].end(&ended);
        records.save(&read[0]).unwrap();
        assert_eq!(records.all()[0].ended(), Some(ended));
        records.remove(&root).unwrap();
        assert!(records.all().is_empty());
        records.remove(&root).unwrap();
    }
}
