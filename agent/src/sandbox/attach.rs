//! Giving sandboxes the names under which they can be read.

use std::path::{Path, PathBuf};

use tepui_api::v1::AgentId;

use super::files::Files;
use super::{gc, paths};

/// Gives a sandbox its names; with `latest` also those of its executor's newest run.
pub fn attach(files: &Files, sandbox: &Path, latest: bool) {
    files.attach(sandbox, sandbox);
    let shown = shown(sandbox);
    if let Some(shown) = &shown {
        files.attach(sandbox, shown);
    }
    if latest {
        files.attach(sandbox, &sandbox.with_file_name(paths::LATEST));
        if let Some(shown) = &shown {
            files.attach(sandbox, &shown.with_file_name(paths::LATEST));
        }
    }
}

/// Gives all sandboxes of an agent that are on the disk their names.
pub fn attach_all(files: &Files, work_dir: &Path, agent: &AgentId) {
    let own = paths::agent(work_dir, agent);
    for sandbox in gc::all(work_dir).into_iter().filter(|sandbox| sandbox.starts_with(&own)) {
        let latest = std::fs::read_link(sandbox.with_file_name(paths::LATEST));
        attach(files, &sandbox, latest.is_ok_and(|latest| latest == sandbox));
    }
}

/// `/frameworks/…/executors/…/runs/…`: the end of the path.
fn shown(sandbox: &Path) -> Option<PathBuf> {
    let framework =
        sandbox.ancestors().find(|part| part.file_name().is_some_and(|name| name == "frameworks"))?;
    Some(Path::new("/frameworks").join(sandbox.strip_prefix(framework).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandboxes_on_the_disk_get_all_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let run = |agent: &str, name: &str| {
            let sandbox = dir.path().join(format!("slaves/{agent}/frameworks/F/executors/E/runs/{name}"));
            super::super::create(&sandbox, None).unwrap();
            sandbox
        };
        let (_old, new, other) = (run("A", "one"), run("A", "two"), run("B", "three"));
        let files = Files::default();
        attach_all(&files, dir.path(), &"A".into());
        let names = files.names();
        for name in ["/frameworks/F/executors/E/runs/latest", "/frameworks/F/executors/E/runs/two"] {
            assert_eq!(names.get(Path::new(name)), Some(&new));
        }
        assert_eq!(names.get(&new.with_file_name("latest")), Some(&new));
        assert!(names.contains_key(Path::new("/frameworks/F/executors/E/runs/one")));
        assert!(!names.contains_key(&other));
    }
}
