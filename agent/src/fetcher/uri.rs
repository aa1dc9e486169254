//! What a `CommandInfo.URI` asks for: [`Wanted`].
//!
//! A URI is taken as Mesos takes it: the name of the file is what follows the last slash, a query included; what has no scheme is a
//! path of this machine.

use std::path::{Component, Path, PathBuf};

use tepui_api::v1::command_info::Uri;

use super::error::UriError;

/// Where a container's own output goes. Nothing is fetched in their place.
pub(super) const RESERVED: [&str; 2] = ["stdout", "stderr"];

/// Archives by the end of their name, as in Mesos; the last three are ours.
const ARCHIVES: [&str; 11] =
    [".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".zip", ".tar.zst", ".tzst", ".tbz"];

/// A file that a task wants in its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The URI, for people: without a password.
    pub(super) shown: String,
    /// The URI as it was given, by which it is cached.
    pub(super) uri: String,
    pub(super) location: Location,
    /// Where it goes, relative to the sandbox.
    pub(super) output: PathBuf,
    /// Make it a program, and leave it packed.
    pub(super) executable: bool,
    /// Unpack it, if it is packed.
    pub(super) packing: Option<Packing>,
    pub(super) cache: bool,
}

/// Where a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    Net(String),
    File(PathBuf),
}

/// How a file is packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packing {
    /// Many files; of which kind, its content says.
    Archive,
    /// One file; it goes under this name into the sandbox.
    Gzip(PathBuf),
}

// === impl Wanted ===

impl Wanted {
    /// Reads a URI. Relative paths are below `home` (`--frameworks_home`).
    pub(super) fn of(uri: &Uri, home: Option<&Path>) -> Result<Self, UriError> {
        let name = base_name(&uri.value)?;
        let output = match uri.output_file.as_deref() {
            Some(output) => output_path(output)?,
            None => file_name(&name)?,
        };
        if RESERVED.iter().any(|name| output == Path::new(name)) {
            return Err(UriError::Reserved(output.display().to_string()));
        }
        let extract = uri.extract() && !uri.executable();
        Ok(Self {
            shown: shown(&uri.value),
            uri: uri.value.clone(),
            location: location(&uri.value, home)?,
            packing: if extract { packing(&output) } else { None },
            output,
            executable: uri.executable(),
            cache: uri.cache(),
        })
    }
}

/// What follows the last slash; may be empty.
fn base_name(uri: &str) -> Result<String, UriError> {
    if uri.contains(['\\', '\'', '\0']) {
        return Err(UriError::Characters);
    }
    let rest = match uri.find("://") {
        Some(at) if at > 1 => {
            let rest = &uri[at + 3..];
            match rest.split_once('/') {
                Some((_, path)) if !path.is_empty() => rest,
                _ => return Err(UriError::NoPath),
            }
        }
        // Of a path, slashes at its end do not count.
        _ => uri.trim_end_matches('/'),
    };
    Ok(rest.rsplit('/').next().unwrap_or_default().to_owned())
}

fn file_name(name: &str) -> Result<PathBuf, UriError> {
    match name.trim_start() {
        "" | "." | ".." => Err(UriError::NoName),
        name if name.len() > 255 => Err(UriError::LongName),
        name => Ok(PathBuf::from(name)),
    }
}

fn output_path(output: &str) -> Result<PathBuf, UriError> {
    if output.is_empty() {
        return Err(UriError::EmptyOutput);
    }
    let mut path = PathBuf::new();
    for component in Path::new(output).components() {
        match component {
            Component::Normal(name) if !output.contains('\0') => path.push(name),
            Component::CurDir => {}
            _ => return Err(UriError::Output),
        }
    }
    if path.as_os_str().is_empty() { Err(UriError::Output) } else { Ok(path) }
}

fn location(uri: &str, home: Option<&Path>) -> Result<Location, UriError> {
    // As Mesos does it.
    let uri = uri.trim_start();
    let net = ["http://", "https://"];
    if net.iter().any(|scheme| uri.starts_with(scheme)) {
        return Ok(Location::Net(uri.to_owned()));
    }
    if let Some(path) = uri.strip_prefix("file://") {
        let path = Path::new(path.strip_prefix("localhost").unwrap_or(path));
        return if path.is_absolute() {
            Ok(Location::File(path.to_owned()))
        } else {
            Err(UriError::RelativeFile)
        };
    }
    if let Some((scheme, _)) = uri.split_once("://") {
        return Err(UriError::Scheme(scheme.to_owned()));
    }
    let path = Path::new(uri);
    match home {
        _ if path.is_absolute() => Ok(Location::File(path.to_owned())),
        Some(home) => Ok(Location::File(home.join(path))),
        None => Err(UriError::NoHome),
    }
}

fn packing(output: &Path) -> Option<Packing> {
    let name = output.file_name()?.to_str()?;
    if ARCHIVES.iter().any(|end| name.ends_with(end)) {
        return Some(Packing::Archive);
    }
    let plain = name.strip_suffix(".gz").filter(|plain| !matches!(*plain, "" | "." | ".."))?;
    // Not in the place of output; it stays as it is.
    (!RESERVED.contains(&plain)).then(|| Packing::Gzip(PathBuf::from(plain)))
}

/// A URI without its password, and without its query, which often is a key to what it names.
pub(super) fn shown(uri: &str) -> String {
    let Some((scheme, rest)) = uri.split_once("://") else { return uri.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (login, host) = match authority.rsplit_once('@').map(|(login, host)| (login.split_once(':'), host)) {
        Some((Some((user, _)), host)) => (format!("{user}:***@"), host),
        _ => (String::new(), authority),
    };
    let path = match path.split_once('?') {
        Some((path, _)) => format!("{path}?***"),
        None => path.to_owned(),
    };
    format!("{scheme}://{login}{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(value: &str) -> Result<Wanted, UriError> {
        Wanted::of(&Uri { value: value.into(), ..Uri::default() }, Some(Path::new("/home")))
    }

    fn output(value: &str) -> Result<String, UriError> {
        wanted(value).map(|wanted| wanted.output.display().to_string())
    }

    #[test]
    fn names_are_those_of_mesos() {
        for (uri, name) in [
            ("http://h/a.tgz", "a.tgz"),
            ("https://h:1/d/a?x=1&y=/b", "b"),
            ("http://h/a?x=1", "a?x=1"),
            ("file:///d/a", "a"),
            ("/d/a/", "a"),
            ("a", "a"),
            ("d/a", "a"),
            ("  /d/a", "a"),
        ] {
            assert_eq!(output(uri).unwrap(), name, "{uri}");
        }
        for (uri, error) in [
            ("http://h", UriError::NoPath),
            ("http://h/", UriError::NoPath),
            ("http://h/d/", UriError::NoName),
            ("http://h/d/..", UriError::NoName),
            ("/", UriError::NoName),
            ("", UriError::NoName),
            ("http://h/a'b", UriError::Characters),
            ("http://h/a\\b", UriError::Characters),
            ("a\0b", UriError::Characters),
            ("http://h/stderr", UriError::Reserved("stderr".into())),
            ("ftp://h/a", UriError::Scheme("ftp".into())),
            ("hdfs://h/a", UriError::Scheme("hdfs".into())),
            ("file://a/b", UriError::RelativeFile),
        ] {
            assert_eq!(output(uri).unwrap_err(), error, "{uri}");
        }
        assert_eq!(output(&format!("/{}", "x".repeat(256))).unwrap_err(), UriError::LongName);
    }

    #[test]
    fn places_are_those_of_mesos() {
        let location = |uri: &str| wanted(uri).unwrap().location;
        assert_eq!(location(" http://h/a"), Location::Net("http://h/a".into()));
        assert_eq!(location("file://localhost/d/a"), Location::File("/d/a".into()));
        assert_eq!(location("/d/a"), Location::File("/d/a".into()));
        assert_eq!(location("d/a"), Location::File("/home/d/a".into()));
        let nowhere = Wanted::of(&Uri { value: "d/a".into(), ..Uri::default() }, None);
        assert_eq!(nowhere.unwrap_err(), UriError::NoHome);
    }

    #[test]
    fn an_output_file_stays_in_the_sandbox() {
        let named = |output: &str| {
            let uri = Uri { value: "http://h/d/".into(), output_file: Some(output.into()), ..Uri::default() };
            Wanted::of(&uri, None).map(|wanted| wanted.output)
        };
        assert_eq!(named("a/./b").unwrap(), Path::new("a/b"));
        assert_eq!(named("logs/stdout").unwrap(), Path::new("logs/stdout"));
        assert_eq!(named("").unwrap_err(), UriError::EmptyOutput);
        for bad in ["/a", "../a", "a/../../b", "..", ".", "a\0b"] {
            assert_eq!(named(bad).unwrap_err(), UriError::Output, "{bad:?}");
        }
        assert_eq!(named("./stdout").unwrap_err(), UriError::Reserved("stdout".into()));
    }

    #[test]
    fn what_is_packed_is_told_by_its_name() {
        let packing = |uri: &str| wanted(uri).unwrap().packing;
        for name in
            ["a.tar", "a.tgz", "a.tar.gz", "a.tbz2", "a.tar.bz2", "a.txz", "a.tar.xz", "a.zip", "a.tar.zst"]
        {
            assert_eq!(packing(&format!("http://h/{name}")), Some(Packing::Archive), "{name}");
        }
        assert_eq!(packing("/d/log.gz"), Some(Packing::Gzip("log".into())));
        for plain in ["/d/a.jar", "/d/.gz", "/d/a.tgz?x=1", "/d/stdout.gz"] {
            assert_eq!(packing(plain), None, "{plain}");
        }
        let with = |executable, extract| {
            let uri = Uri { value: "/a.tgz".into(), executable, extract, ..Uri::default() };
            Wanted::of(&uri, None).unwrap().packing
        };
        assert_eq!((with(Some(true), Some(true)), with(None, Some(false))), (None, None));
    }

    #[test]
    fn a_password_and_a_query_are_not_shown() {
        assert_eq!(shown("http://u:p@w@h:1/a@b"), "http://u:***@h:1/a@b");
        assert_eq!(shown("https://h/a.tgz?signature=abc"), "https://h/a.tgz?***");
        for plain in ["http://h/a:b@c", "http://u@h/a", "/a:b@c", "a"] {
            assert_eq!(shown(plain), plain);
        }
    }
}
