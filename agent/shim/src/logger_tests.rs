use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn log(&self, max_size: u64, keep: u32) -> LogFile {
        LogFile::open(&self.path("stdout"), None, Some(LogLimits { max_size, keep })).unwrap()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn files_move_on_and_the_oldest_goes() {
    let dir = Dir::new();
    fs::write(dir.path("stdout"), "before\n").unwrap();
    let mut log = dir.log(10, 2);
    log.write(b"one\n").unwrap();
    assert_eq!(dir.names(), ["stdout", "stdout.1"]);
    assert_eq!((dir.text("stdout.1"), dir.text("stdout")), ("before\n".into(), "one\n".into()));
    log.write(b"two\nthree\nfour\n").unwrap();
    assert_eq!(dir.names(), ["stdout", "stdout.1", "stdout.2"]);
    assert_eq!(dir.text("stdout.2"), "one\ntwo\n");
    assert_eq!((dir.text("stdout.1"), dir.text("stdout")), ("three\n".into(), "four\n".into()));
    log.write(b"0123456789\n").unwrap();
    assert_eq!((dir.text("stdout.1"), dir.text("stdout")), ("0123456789".into(), "\n".into()));
    assert_eq!(dir.names().len(), 3);
}

#[test]
fn without_former_files_a_full_one_is_removed() {
    let dir = Dir::new();
    let mut log = dir.log(10, 0);
    log.write(b"one\ntwo\nthree\n").unwrap();
    assert_eq!((dir.names(), dir.text("stdout")), (vec!["stdout".to_owned()], "three\n".into()));
}

#[test]
fn no_byte_is_lost_and_no_file_too_large_and_no_line_cut_that_fits() {
    let dir = Dir::new();
    let mut log = dir.log(100, 10_000);
    let mut all = Vec::new();
    for number in 0..600_usize {
        let line = format!("{number} {}\n", "x".repeat(number % 90));
        // In pieces as a pipe may give them.
        for piece in line.as_bytes().chunks(7) {
            log.write(piece).unwrap();
        }
        all.extend_from_slice(line.as_bytes());
    }
    let files = dir.names().len() - 1;
    let mut read = Vec::new();
    for name in (1..=files).rev().map(|number| format!("stdout.{number}")).chain(["stdout".to_owned()]) {
        let text = fs::read(dir.path(&name)).unwrap();
        assert!(text.len() <= 100, "{name}");
        read.extend(text);
    }
    assert_eq!(read, all);

    let dir = Dir::new();
    let mut log = dir.log(100, 10_000);
    for number in 0..500_usize {
        log.write(format!("{number} {}\n", "x".repeat(number % 90)).as_bytes()).unwrap();
    }
    for name in dir.names() {
        assert!(dir.text(&name).ends_with('\n'), "{name}");
    }
}

#[test]
fn what_the_user_makes_of_the_directory_leads_nowhere() {
    let dir = Dir::new();
    let secret = dir.path("secret");
    fs::write(&secret, "secret").unwrap();
    symlink(&secret, dir.path("stdout")).unwrap();
    let limits = Some(LogLimits { max_size: 10, keep: 1 });
    assert!(LogFile::open(&dir.path("stdout"), None, limits).is_err());
    fs::remove_file(dir.path("stdout")).unwrap();

    let mut log = dir.log(10, 1);
    log.write(b"one\n").unwrap();
    fs::remove_file(dir.path("stdout")).unwrap();
    symlink(&secret, dir.path("stdout")).unwrap();
    // The link itself moves away.
    log.write(b"two\nthree\n").unwrap();
    assert_eq!((dir.text("stdout"), dir.text("secret")), ("three\n".into(), "secret".into()));
    // Removed, it is made again; and a directory in the way stops nothing.
    fs::remove_file(dir.path("stdout")).unwrap();
    log.write(b"0123\n4567\n").unwrap();
    assert_eq!(dir.text("stdout"), "0123\n4567\n");
    fs::remove_file(dir.path("stdout.1")).unwrap();
    fs::create_dir_all(dir.path("stdout.1/x")).unwrap();
    log.write(b"89\n").unwrap();
    assert_eq!(dir.text("stdout"), "0123\n4567\n89\n");
}

#[test]
fn a_logger_writes_what_comes_until_the_end() {
    let dir = Dir::new();
    let limits = LogLimits { max_size: 1 << 20, keep: 3 };
    let plan = plan(&dir);
    let (mut logger, outputs) = Logger::begin(&plan, &Rotation { stdout: limits, stderr: limits }).unwrap();
    let [mut joined, _] = logger.outputs().unwrap().map(File::from);
    let Outputs { mut stdout, mut stderr } = outputs;
    stderr.write_all(b"error\n").unwrap();
    let writer = std::thread::spawn(move || {
        // More than a pipe holds.
        for number in 0..20_000 {
            writeln!(stdout, "{number:06}").unwrap();
        }
        writeln!(joined, "joined").unwrap();
    });
    while !writer.is_finished() {
        logger.go_on();
    }
    writer.join().unwrap();
    drop(stderr);
    let began = Instant::now();
    logger.finish();
    assert!(began.elapsed() < PATIENCE, "the end is known when it is there");
    let text = dir.text("stdout");
    assert!(text.starts_with("000000\n") && text.ends_with("019999\njoined\n"));
    assert_eq!((text.len(), dir.text("stderr")), (20_000 * 7 + 7, "error\n".into()));
}

#[test]
fn who_joins_when_the_output_was_closed_is_heard() {
    let dir = Dir::new();
    let limits = LogLimits { max_size: 1 << 20, keep: 3 };
    let (mut logger, outputs) =
        Logger::begin(&plan(&dir), &Rotation { stdout: limits, stderr: limits }).unwrap();
    drop(outputs);
    logger.go_on();
    assert_eq!(logger.waiting().count(), 0, "nothing to wait for");
    let [mut joined, _] = logger.outputs().unwrap().map(File::from);
    writeln!(joined, "joined").unwrap();
    drop(joined);
    logger.finish();
    assert_eq!(dir.text("stdout"), "joined\n");
}

fn plan(dir: &Dir) -> LaunchPlan {
    let text = serde_json::json!({
        "container_id": "c", "rootfs": "host", "stdout": dir.path("stdout"), "stderr": dir.path("stderr"),
        "stdio_owner": (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()),
        "exec": {"path": "true", "argv": []}, "first_process": "init",
    });
    serde_json::from_value(text).unwrap()
}
