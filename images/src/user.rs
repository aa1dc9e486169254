//! Users by name or id, looked up in the image's own `/etc/passwd` and `/etc/group`, as Docker does.

use std::io;

use crate::rootfs::RootFs;
use crate::view::View;

/// Far above any honest one, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, those of which the image's `/etc/group` makes the user a member; none when a group was named.
    pub additional_gids: Vec<u32>,
    /// The user's name, if the image knows it.
    pub name: Option<String>,
    /// The home directory; `/` if the image knows none.
    pub home: String,
}

/// Why a user cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The image does not know the name.
    #[error("the image has no user '{name}' in its /etc/passwd; name one that it has, or a numeric id")]
    NoUser {
        /// The name.
        name: String,
    },
    /// The image does not know the group.
    #[error("the image has no group '{name}' in its /etc/group; name one that it has, or a numeric id")]
    NoGroup {
        /// The name.
        name: String,
    },
    /// The image's files cannot be read.
    #[error("the image's users cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// Resolves `USER[:GROUP]`, each a name or an id, in the image's own files. An id need not be in them; a name must. Blocks.
///
/// # Errors
/// When a name is not in the image, or its files cannot be read.
pub fn resolve_user(root: &RootFs, spec: &str) -> Result<ResolvedUser, UserError> {
    let view = View::open(root)?;
    let read = |path| -> io::Result<String> {
        Ok(view
            .read(path, MAX_FILE)?
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default())
    };
    resolve(&read("etc/passwd")?, &read("etc/group")?, spec)
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn resolve(passwd: &str, group: &str, spec: &str) -> Result<ResolvedUser, UserError> {
    let (user, named_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    };
    // Docker takes an empty user for root.
    let user = if user.is_empty() { "0" } else { user };
    let id = user.parse::<u32>().ok();
    // A name made of digits wins over the id, as with chown.
    let line = passwd_lines(passwd)
        .find(|line| line.name == user)
        .or_else(|| passwd_lines(passwd).find(|line| Some(line.uid) == id));
    let (uid, own_gid) = match (&line, id) {
        (Some(line), _) => (line.uid, line.gid),
        (None, Some(id)) => (id, 0),
        (None, None) => return Err(UserError::NoUser { name: user.to_owned() }),
    };
    let gid = named_group.map(|name| find_group(group, name)).transpose()?.unwrap_or(own_gid);
    let name = line.as_ref().map(|line| line.name);
    let additional_gids = match (named_group, name) {
        (None, Some(name)) => group_lines(group)
            .filter(|line| line.gid != gid && line.members.split(',').any(|member| member == name))
            .map(|line| line.gid)
            .collect(),
        _ => Vec::new(),
    };
    let home = line.as_ref().map(|line| line.home).filter(|home| !home.is_empty()).unwrap_or("/");
    Ok(ResolvedUser { uid, gid, additional_gids, name: name.map(str::to_owned), home: home.to_owned() })
}

fn find_group(group: &str, name: &str) -> Result<u32, UserError> {
    let known = group_lines(group).find(|line| line.name == name).map(|line| line.gid);
    known.or_else(|| name.parse().ok()).ok_or_else(|| UserError::NoGroup { name: name.to_owned() })
}

/// `name:password:uid:gid:comment:home:shell`; other lines are passed over.
fn passwd_lines(text: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(PasswdLine { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// `name:password:gid:members`; other lines are passed over.
fn group_lines(text: &str) -> impl Iterator<Item = GroupLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupLine { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
#[path = "user_tests.rs"]
mod tests;
