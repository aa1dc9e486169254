//! What resources must fulfil beyond being resources, before a task, executor or operation may use
//! them. The rules are those of Mesos' `master/validation.cpp`.

use super::{Resource, ResourceName, Resources};

/// Why resources cannot be used as someone wants to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UseError {
    /// Part of a GPU.
    #[error("'gpus' must be a whole number")]
    FractionalGpus,
    /// A volume on what may be taken back.
    #[error("the persistent volume '{0}' cannot be on revocable resources")]
    RevocableVolume(String),
    /// A volume nobody owns.
    #[error("the persistent volume '{0}' must be reserved to a role")]
    UnreservedVolume(String),
    /// A volume that is not put anywhere.
    #[error("the persistent volume '{0}' needs a 'volume' that says where it is in the container")]
    VolumeMissing(String),
    /// The agent knows where it is.
    #[error("the 'volume' of the persistent volume '{0}' cannot have a 'host_path'")]
    VolumeHostPath(String),
    /// It becomes a folder's name.
    #[error(
        "'{0}' cannot be the id of a persistent volume: it must be 1 to 255 characters long, not '.' or '..', and without slashes and control characters"
    )]
    PersistenceId(String),
    /// A volume that is gone after.
    #[error("a disk with a 'volume' must have 'persistence' too")]
    VolumeWithoutPersistence,
    /// A `DiskInfo` that says nothing.
    #[error("a DiskInfo must have 'persistence' or 'source'")]
    EmptyDiskInfo,
    /// Reserved, yet it may be taken back.
    #[error("revocable resources cannot be reserved dynamically")]
    RevocableReservation,
    /// One id twice in a role.
    #[error("the persistence id '{id}' is there twice for role '{role}'")]
    DuplicatePersistenceId {
        /// The id.
        id: String,
        /// Of the reservation.
        role: String,
    },
    /// Without `allocation_info`.
    #[error("the resources are not allocated to a role")]
    NotAllocated,
    /// With more than one.
    #[error("the resources are allocated to the roles '{0}' and '{1}', but they must all be of one")]
    TwoAllocations(String, String),
    /// Some of a name revocable, some not.
    #[error("revocable and other '{0}' cannot be used together")]
    MixedRevocable(String),
    /// From more than one.
    #[error("the resources are from more than one provider, or some are the agent's own")]
    TwoProviders,
}

impl Resources {
    /// Checks each resource: GPUs are whole; a persistent volume is reserved, has a mount point in the
    /// container and a usable id; what is reserved dynamically is not revocable.
    ///
    /// # Errors
    /// When one is not so.
    pub fn check_use(&self) -> Result<(), UseError> {
        self.iter().try_for_each(Resource::check_use)
    }

    /// Checks that no role has two persistent volumes of one id here.
    ///
    /// # Errors
    /// With the id.
    pub fn check_persistence_ids(&self) -> Result<(), UseError> {
        let key = |resource: &Resource| {
            Some((resource.persistence_id()?.to_owned(), resource.reserved_to()?.clone()))
        };
        let mut keys: Vec<_> = self.iter().filter_map(key).collect();
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            Some([(id, role), ..]) => {
                Err(UseError::DuplicatePersistenceId { id: id.clone(), role: role.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// The one role that all are allocated to; `None` when there is nothing.
    ///
    /// # Errors
    /// When one is allocated to none, or two to different ones.
    pub fn allocation_role(&self) -> Result<Option<&str>, UseError> {
        let mut role = None;
        for resource in self.iter() {
            let of = resource.allocation().filter(|of| !of.is_empty()).ok_or(UseError::NotAllocated)?;
            match role {
                Some(other) if other != of => {
                    return Err(UseError::TwoAllocations(String::from(other), of.to_owned()));
                }
                _ => role = Some(of),
            }
        }
        Ok(role)
    }

    /// Checks that of no name there are both revocable and other resources.
    ///
    /// # Errors
    /// With the name.
    pub fn check_revocable(&self) -> Result<(), UseError> {
        let mixed = |resource: &&Resource| {
            resource.is_revocable()
                && self.iter().any(|other| other.name() == resource.name() && !other.is_revocable())
        };
        match self.iter().find(mixed) {
            Some(resource) => Err(UseError::MixedRevocable(resource.name().to_string())),
            None => Ok(()),
        }
    }

    /// The one provider that all are from; `None` for the agent itself.
    ///
    /// # Errors
    /// When they are from different ones.
    pub fn single_provider(&self) -> Result<Option<&str>, UseError> {
        let mut providers = self.iter().map(Resource::provider);
        let first = providers.next().flatten();
        if providers.all(|other| other == first) { Ok(first) } else { Err(UseError::TwoProviders) }
    }
}

impl Resource {
    fn check_use(&self) -> Result<(), UseError> {
        let fractional = self.as_scalar().is_some_and(|amount| !amount.is_whole());
        if *self.name() == ResourceName::Gpus && fractional {
            return Err(UseError::FractionalGpus);
        }
        self.check_disk_use()?;
        if self.is_dynamically_reserved() && self.is_revocable() {
            return Err(UseError::RevocableReservation);
        }
        Ok(())
    }

    fn check_disk_use(&self) -> Result<(), UseError> {
        let Some(disk) = self.disk() else { return Ok(()) };
        let Some(persistence) = &disk.persistence else {
            return match (&disk.volume, &disk.source) {
                (Some(_), _) => Err(UseError::VolumeWithoutPersistence),
                (None, None) => Err(UseError::EmptyDiskInfo),
                (None, Some(_)) => Ok(()),
            };
        };
        let id = || persistence.id.clone();
        if self.is_revocable() {
            return Err(UseError::RevocableVolume(id()));
        }
        if self.is_unreserved() {
            return Err(UseError::UnreservedVolume(id()));
        }
        let volume = disk.volume.as_ref().ok_or_else(|| UseError::VolumeMissing(id()))?;
        if volume.host_path.is_some() {
            return Err(UseError::VolumeHostPath(id()));
        }
        if is_folder_name(&persistence.id) { Ok(()) } else { Err(UseError::PersistenceId(id())) }
    }
}

/// The rule for ids that become folders: `common::validation::validateID` in Mesos.
fn is_folder_name(id: &str) -> bool {
    !matches!(id, "" | "." | "..")
        && id.len() <= 255
        && !id.chars().any(|c| c == '/' || c == '\\' || c.is_ascii_control())
}
