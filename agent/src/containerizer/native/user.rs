//! Who a container's program runs as.
//!
//! A name is looked up on the host, as in Mesos; if the host does not know it, in the image.

use std::ffi::CString;

use tepui_images::RootFs;

use crate::containerizer::error::PrepareError;

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
    /// Without the primary one, or with it: it does not matter.
    pub groups: Vec<u32>,
}

/// Looks a user up; the agent's own without a name. Blocks on the system's user database.
pub(super) fn find(name: Option<&str>, image: Option<&RootFs>) -> Result<User, PrepareError> {
    let Some(name) = name else { return own() };
    let lookup = |source: nix::Error| PrepareError::Lookup { user: name.to_owned(), source: source.into() };
    match (nix::unistd::User::from_name(name).map_err(lookup)?, image) {
        (Some(user), _) => {
            let c_name = CString::new(name).map_err(|_| PrepareError::NoUser(name.to_owned()))?;
            let groups = nix::unistd::getgrouplist(&c_name, user.gid).map_err(lookup)?;
            let groups = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
            Ok(User { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
        }
        (None, Some(image)) => {
            let user = tepui_images::resolve_user(image, name)?;
            Ok(User { uid: user.uid, gid: user.gid, groups: user.additional_gids })
        }
        (None, None) => Err(PrepareError::NoUser(name.to_owned())),
    }
}

fn own() -> Result<User, PrepareError> {
    let failed = |source: nix::Error| PrepareError::Lookup {
        user: "(the agent's own)".to_owned(),
        source: source.into(),
    };
    let groups = nix::unistd::getgroups().map_err(failed)?;
    Ok(User {
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        let root = find(Some("root"), None).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        assert!(matches!(find(Some("no-such-user-here"), None), Err(PrepareError::NoUser(_))));
        assert_eq!(find(None, None).unwrap().uid, nix::unistd::geteuid().as_raw());
    }
}
