//! The format of the file, and how one of an earlier version is brought up to it: step by step, each step in a
//! transaction of its own together with the number of the format that it makes, so that a kill between two loses nothing.
//!
//! | format | since then |
//! | --- | --- |
//! | 1 | agent, frameworks, tasks, updates and how many of them were acknowledged |
//! | 2 | in `meta`: the drain under way, and the machine's boot id |
//! | 3 | frameworks' own executors |
//!
//! A version that does not know a format refuses it: it could lose what it does not know of. A file of each format is kept in
//! `tests/fixtures`.

use std::path::Path;

use redb::{Database, ReadableDatabase as _, WriteTransaction};

use super::tables::{ACKNOWLEDGED, EXECUTORS, FRAMEWORKS, META, TASKS, UPDATES};
use super::{StoreError, database_error};

/// What has to be done to a file to give it the next format.
type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// The first step makes format 2 of format 1, and so on. Format 2 has only more in it, and format 3 one table more.
const STEPS: &[Step] = &[|_| Ok(()), |writing| writing.open_table(EXECUTORS).map(drop).map_err(Into::into)];

/// The format that this version reads and writes.
pub const FORMAT: u32 = 1 + STEPS.len() as u32;

/// Gives the file the present format.
///
/// # Errors
/// When the file cannot be read or written, or has a later format.
pub fn to_present(path: &Path, database: &Database) -> Result<(), StoreError> {
    let failed = |error: redb::Error| database_error(path, error);
    let Some(found) = format(database).map_err(failed)? else {
        return prepare(database).map_err(failed);
    };
    let later = || StoreError::Format { path: path.to_owned(), found, known: FORMAT };
    let from = usize::try_from(found).ok().and_then(|found| found.checked_sub(1)).ok_or_else(later)?;
    let steps = STEPS.get(from..).ok_or_else(later)?;
    for (step, makes) in steps.iter().zip(found + 1..) {
        tracing::info!(path = %path.display(), format = makes, "bringing the agent's state up to a later format");
        take(database, *step, makes).map_err(failed)?;
    }
    Ok(())
}

fn take(database: &Database, step: Step, makes: u32) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    step(&writing)?;
    writing.open_table(META)?.insert("format", makes.to_le_bytes().as_slice())?;
    Ok(writing.commit()?)
}

/// The format of a file; `None` when it is new.
pub fn format(database: &Database) -> Result<Option<u32>, redb::Error> {
    let reading = database.begin_read()?;
    let meta = match reading.open_table(META) {
        Ok(meta) => meta,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let bytes = meta.get("format")?.and_then(|value| value.value().try_into().ok());
    Ok(bytes.map(u32::from_le_bytes))
}

/// A new file.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    writing.open_table(META)?.insert("format", FORMAT.to_le_bytes().as_slice())?;
    writing.open_table(FRAMEWORKS)?;
    writing.open_table(TASKS)?;
    writing.open_table(UPDATES)?;
    writing.open_table(EXECUTORS)?;
    writing.open_table(ACKNOWLEDGED)?;
    Ok(writing.commit()?)
}

/// Puts a format number into a file that is not open.
#[cfg(test)]
pub fn write_format(path: &Path, format: u32) {
    let database = super::open_database(path).unwrap();
    take(&database, |_| Ok(()), format).unwrap();
}
