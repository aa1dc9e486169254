//! Reading and writing a cgroup's files, with errors that name the file and the value.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;

use super::CgroupError;

/// Writes a value, in one system call as cgroup files want it. Never creates a file.
pub fn write(path: &Path, value: impl ToString) -> Result<(), CgroupError> {
    let value = value.to_string();
    let written =
        OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| CgroupError::Write { path: path.to_owned(), value, source })
}

/// The whole text.
pub fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| CgroupError::io("read", path, source))
}

/// The whole text; `None` when there is no such file, or its cgroup is gone.
pub fn read_if_there(path: &Path) -> Result<Option<String>, CgroupError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(CgroupError::io("read", path, source)),
    }
}

/// One number.
pub fn read_number<T: FromStr>(path: &Path) -> Result<T, CgroupError> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| CgroupError::Parse { path: path.to_owned(), text })
}

/// One number; `None` when there is no such file, or its cgroup is gone.
pub fn read_number_if_there<T: FromStr>(path: &Path) -> Result<Option<T>, CgroupError> {
    let Some(text) = read_if_there(path)? else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| CgroupError::Parse { path: path.to_owned(), text })
}

/// Lines of a key and a number, as in `memory.stat`.
pub fn read_keyed(path: &Path) -> Result<Keyed, CgroupError> {
    read(path).map(|text| Keyed::parse(&text))
}

/// The content of a file that has a key and a number on each line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keyed(BTreeMap<String, u64>);

impl Keyed {
    /// Reads the text of such a file; lines of another form are left out.
    pub fn parse(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        });
        Keyed(pairs.collect())
    }

    /// The number of a key.
    pub fn get(&self, key: &str) -> Option<u64> {
        self.0.get(key).copied()
    }
}

/// Whether the file, or the cgroup under an open file, no longer exists.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
