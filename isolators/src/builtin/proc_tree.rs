//! What a process and all its descendants use, from `/proc/<pid>/stat` (`proc_pid_stat(5)`).
//!
//! `/proc/<pid>/task/<tid>/children` leads from each process to those it made, so that only the container's own are looked at. A kernel
//! without that file (`CONFIG_PROC_CHILDREN`) costs a pass over all of `/proc`. A process whose parents have all ended is no longer found.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use super::cgroups_cpu::ticks_per_second;

/// The sum over a tree of processes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TreeUsage {
    /// Seconds in user mode.
    pub user_secs: f64,
    /// Seconds in the kernel.
    pub system_secs: f64,
    /// Resident bytes; pages that several share count for each.
    pub rss_bytes: u64,
}

/// One process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
    rss_pages: u64,
}

/// What `root` and its descendants use now. Nothing once it has ended.
///
/// # Errors
/// When `/proc` cannot be listed.
pub fn usage(root: u32) -> io::Result<TreeUsage> {
    // That of this process is there if the kernel has it at all, whatever becomes of `root` meanwhile.
    if Path::new("/proc/thread-self/children").exists() { descend(root) } else { search(root) }
}

/// From parent to child.
fn descend(root: u32) -> io::Result<TreeUsage> {
    let mut found = Sum::default();
    let mut left = vec![root];
    while let Some(pid) = left.pop() {
        // It may have ended meanwhile.
        let Some(stat) = stat(pid) else { continue };
        found.add(stat);
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            left.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    Ok(found.usage())
}

/// By one pass over `/proc`, which tells who descends from whom.
fn search(root: u32) -> io::Result<TreeUsage> {
    let mut stats: HashMap<u32, Stat> = HashMap::new();
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
            stats.insert(pid, stat);
        }
    }
    Ok(sum(root, &stats, &children))
}

fn stat(pid: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn sum(root: u32, stats: &HashMap<u32, Stat>, children: &HashMap<u32, Vec<u32>>) -> TreeUsage {
    let mut found = Sum::default();
    let mut left = vec![root];
    while let Some(pid) = left.pop() {
        if let Some(stat) = stats.get(&pid) {
            found.add(*stat);
        }
        left.extend(children.get(&pid).into_iter().flatten().filter(|child| **child != pid));
    }
    found.usage()
}

/// What several processes use together.
#[derive(Debug, Default)]
struct Sum {
    user_ticks: u64,
    system_ticks: u64,
    rss_pages: u64,
}

impl Sum {
    fn add(&mut self, stat: Stat) {
        self.user_ticks = self.user_ticks.saturating_add(stat.user_ticks);
        self.system_ticks = self.system_ticks.saturating_add(stat.system_ticks);
        self.rss_pages = self.rss_pages.saturating_add(stat.rss_pages);
    }

    fn usage(&self) -> TreeUsage {
        let ticks = ticks_per_second();
        TreeUsage {
            user_secs: self.user_ticks as f64 / ticks,
            system_secs: self.system_ticks as f64 / ticks,
            rss_bytes: self.rss_pages.saturating_mul(page_size()),
        }
    }
}

fn page_size() -> u64 {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}

/// The second field is the name in parentheses and may itself have spaces and parentheses; after it come single words.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    // The first word here is field 3.
    let field = |number: usize| rest.split_whitespace().nth(number - 3);
    Some(Stat {
        parent: field(4)?.parse().ok()?,
        user_ticks: field(14)?.parse().ok()?,
        system_ticks: field(15)?.parse().ok()?,
        rss_pages: field(24)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_parentheses_is_no_trouble() {
        let line =
            "42 (a) b) S 7 42 42 0 -1 4194560 1 2 3 4 500 60 8 9 20 0 1 0 77 1000 88 18446744073709551615\n";
        assert_eq!(parse(line), Some(Stat { parent: 7, user_ticks: 500, system_ticks: 60, rss_pages: 88 }));
        assert_eq!(parse("42 (cut"), None);
    }

    #[test]
    fn descendants_are_summed_and_strangers_are_not() {
        let stat = |parent| Stat { parent, user_ticks: 100, system_ticks: 10, rss_pages: 1 };
        let stats = HashMap::from([(1, stat(0)), (2, stat(1)), (3, stat(2)), (4, stat(1)), (5, stat(2))]);
        let children = HashMap::from([(0, vec![1]), (1, vec![2, 4]), (2, vec![3, 5])]);
        assert_eq!(sum(2, &stats, &children).rss_bytes, 3 * page_size());
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(usage(std::process::id()).unwrap().rss_bytes > 1 << 16);
        assert!(search(std::process::id()).unwrap().rss_bytes > 1 << 16);
    }

    /// Whoever finds the way by children must find what a look at everybody finds.
    #[test]
    fn a_grandchild_made_by_a_thread_is_found() {
        let found = std::thread::spawn(|| {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "sleep 60 & read line; kill $!"]).stdin(Stdio::piped());
            let mut child = shell.spawn().unwrap();
            let begin = std::time::Instant::now();
            let found = loop {
                let (down, all) = (descend(child.id()).unwrap(), search(child.id()).unwrap());
                // A shell alone is not that large, with its child the sum is that of two.
                let alone = stat(child.id()).unwrap().rss_pages * page_size();
                if down.rss_bytes > alone && down.rss_bytes == all.rss_bytes {
                    break true;
                }
                if begin.elapsed().as_secs() > 20 {
                    break false;
                }
            };
            drop(child.stdin.take());
            child.wait().unwrap();
            found && descend(child.id()).unwrap() == TreeUsage::default()
        });
        assert!(found.join().unwrap());
    }
}
