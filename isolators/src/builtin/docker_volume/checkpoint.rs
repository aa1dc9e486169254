//! What survives the agent: which volumes each container uses, in `<--docker_volume_checkpoint_dir>/<container>/volumes`, as in Mesos.
//!
//! The file is there before a plugin is asked to mount anything, and until it was asked to take it away; a second write adds where a
//! volume is mounted. A write is a new file that takes the place of the old one, synced before.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A volume of a driver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// The plugin.
    pub driver: String,
    /// The volume's name there.
    pub name: String,
}

/// A volume that a container uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Which.
    #[serde(flatten)]
    pub volume: Name,
    /// Where it is on the host, once it is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountpoint: Option<PathBuf>,
}

#[derive(Serialize, Deserialize)]
struct Volumes {
    #[serde(default)]
    volumes: Vec<Used>,
}

/// The directory of all.
#[derive(Debug)]
pub struct Checkpoints {
    root: PathBuf,
}

impl Checkpoints {
    /// Makes the directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Checkpoints { root: root.canonicalize()? })
    }

    /// Its path, links resolved.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes down what a container uses.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn save(&self, container: &str, volumes: &[Used]) -> io::Result<()> {
        let dir = self.root.join(container);
        fs::create_dir_all(&dir)?;
        let text = serde_json::to_vec(&Volumes { volumes: volumes.to_vec() })?;
        let new = dir.join("volumes.new");
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, dir.join("volumes"))?;
        File::open(&dir)?.sync_all()?;
        File::open(&self.root)?.sync_all()
    }

    /// What a container uses. One that was only begun uses nothing.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(&self, container: &str) -> io::Result<Vec<Used>> {
        match fs::read(self.root.join(container).join("volumes")) {
            Ok(text) if text.is_empty() => Ok(Vec::new()),
            Ok(text) => Ok(serde_json::from_slice::<Volumes>(&text)?.volumes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// All containers that something is written down of.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.root)?.filter_map(Result::ok);
        let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        Ok(dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    /// Forgets a container.
    ///
    /// # Errors
    /// When the disk does not let go.
    pub fn remove(&self, container: &str) -> io::Result<()> {
        let dir = self.root.join(container);
        for name in ["volumes.new", "volumes"] {
            missing_is_fine(fs::remove_file(dir.join(name)))?;
        }
        missing_is_fine(fs::remove_dir(dir))
    }
}

fn missing_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(checkpoints.load("c").unwrap(), []);
        let volume = Name { driver: "d".into(), name: "n".into() };
        let mut used = vec![Used { volume, mountpoint: None }];
        checkpoints.save("c", &used).unwrap();
        assert_eq!(checkpoints.load("c").unwrap(), used);
        let text = fs::read_to_string(checkpoints.root().join("c/volumes")).unwrap();
        assert_eq!(text, r#"{"volumes":[{"driver":"d","name":"n"}]}"#, "Mesos' own form");
        used[0].mountpoint = Some("/m".into());
        checkpoints.save("c", &used).unwrap();
        assert_eq!(checkpoints.load("c").unwrap(), used);
        assert_eq!(checkpoints.list().unwrap(), ["c"]);
        checkpoints.remove("c").unwrap();
        checkpoints.remove("c").unwrap();
        assert!(checkpoints.list().unwrap().is_empty());
    }
}
