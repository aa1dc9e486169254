//! Reading and writing a cgroup's files, with errors that name the file and the value.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
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
    slurp(path).map_err(|source| CgroupError::io("read", path, source))
}

/// The whole text; `None` when there is no such file, or its cgroup is gone.
pub fn read_if_there(path: &Path) -> Result<Option<String>, CgroupError> {
    match slurp(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(CgroupError::io("read", path, source)),
    }
}

/// Opens, reads and closes, and nothing else: the kernel does not know the length of such a file before it is read, and usage reads many.
fn slurp(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; CHUNK];
    let mut length = 0;
    loop {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
    }
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The kernel gives at most a page at once; most files of cgroups are shorter.
const CHUNK: usize = 4096;

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
    read(path).map(Keyed)
}

/// The content of a file that has a key and a number on each line. Kept as text, since few of many keys are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keyed(String);

impl Keyed {
    /// Takes the text of such a file; lines of another form are passed over.
    pub fn parse(text: &str) -> Self {
        Keyed(text.to_owned())
    }

    /// The number of a key.
    pub fn get(&self, key: &str) -> Option<u64> {
        let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
        self.0.lines().find_map(value)
    }
}

/// Whether the file, or the cgroup under an open file, no longer exists.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_whole_and_its_number_read() {
        let keyed = Keyed::parse("cache_extra 1\ncache 2\nrss x\nrss_huge 4 \n");
        assert_eq!((keyed.get("cache"), keyed.get("rss"), keyed.get("rss_huge")), (Some(2), None, Some(4)));
        assert_eq!(keyed.get("cach"), None);
    }

    #[test]
    fn a_text_of_any_length_is_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK] {
            let path = dir.path().join(length.to_string());
            std::fs::write(&path, "x".repeat(length)).unwrap();
            assert_eq!(read(&path).unwrap().len(), length);
        }
        assert_eq!(read_if_there(&dir.path().join("absent")).unwrap(), None);
    }
}
