//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container with networks of its own.
//!
//! They are made in the container's directory before its root file system, which has them mounted, and filled once the addresses are known.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::outcome::{Dns, Outcome};

const HOSTS: &str = "hosts";
const HOSTNAME: &str = "hostname";
const RESOLV_CONF: &str = "resolv.conf";

/// Each file: its name in the container's directory, and where the container sees it.
pub(super) const FILES: [(&str, &str); 3] =
    [(HOSTS, "/etc/hosts"), (HOSTNAME, "/etc/hostname"), (RESOLV_CONF, "/etc/resolv.conf")];

/// Makes the files, empty.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    FILES.iter().try_for_each(|(name, _)| fs::write(directory.join(name), ""))
}

/// Fills them. In place: the container sees the very files.
pub(super) fn fill(directory: &Path, hostname: &str, outcomes: &[Outcome], dns: &Dns) -> io::Result<()> {
    fs::write(directory.join(HOSTNAME), format!("{hostname}\n"))?;
    fs::write(directory.join(HOSTS), hosts(hostname, outcomes))?;
    let resolv = if dns.nameservers.is_empty() {
        // A host without one has no name servers to give.
        fs::read("/etc/resolv.conf").unwrap_or_default()
    } else {
        resolv_conf(dns).into_bytes()
    };
    fs::write(directory.join(RESOLV_CONF), resolv)
}

/// Removes them.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    FILES.iter().try_for_each(|(name, _)| match fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// Where they are mounted. On the host's own root file system, a file that the host has not is not made.
pub(super) fn mounts(directory: &Path, on_image: bool) -> Vec<(PathBuf, PathBuf)> {
    let here = FILES.iter().filter(|(_, target)| on_image || Path::new(target).is_file());
    here.map(|(name, target)| (directory.join(name), PathBuf::from(target))).collect()
}

/// The first address of each kind is the hostname's.
fn hosts(hostname: &str, outcomes: &[Outcome]) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    let addresses = || outcomes.iter().flat_map(|outcome| &outcome.addresses);
    let first = [addresses().find(|one| one.is_ipv4()), addresses().find(|one| one.is_ipv6())];
    for address in first.into_iter().flatten() {
        let _ = writeln!(text, "{address} {hostname}");
    }
    text
}

/// As resolv.conf(5) has it.
fn resolv_conf(dns: &Dns) -> String {
    let mut text = String::new();
    if let Some(domain) = &dns.domain {
        let _ = writeln!(text, "domain {domain}");
    }
    for (word, values) in [("search", &dns.search), ("options", &dns.options)] {
        if !values.is_empty() {
            let _ = writeln!(text, "{word} {}", values.join(" "));
        }
    }
    for server in &dns.nameservers {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_plugins_said() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path()).unwrap();
        let outcomes = [
            Outcome {
                addresses: vec!["fd00::2".parse().unwrap(), "10.0.0.2".parse().unwrap()],
                ..Outcome::default()
            },
            Outcome { addresses: vec!["10.9.0.2".parse().unwrap()], ..Outcome::default() },
        ];
        let dns = Dns {
            nameservers: vec!["10.0.0.1".to_owned(), "10.0.0.3".to_owned()],
            domain: Some("example".to_owned()),
            search: vec!["a.example".to_owned(), "b.example".to_owned()],
            options: vec!["ndots:2".to_owned()],
        };
        fill(dir.path(), "box", &outcomes, &dns).unwrap();
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("hostname"), "box\n");
        assert!(read("hosts").ends_with("10.0.0.2 box\nfd00::2 box\n"), "{}", read("hosts"));
        assert_eq!(
            read("resolv.conf"),
            "domain example\nsearch a.example b.example\noptions ndots:2\nnameserver 10.0.0.1\nnameserver 10.0.0.3\n"
        );
        remove(dir.path()).unwrap();
        remove(dir.path()).unwrap();
    }
}
