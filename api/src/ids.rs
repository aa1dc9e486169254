//! The ids of the API are messages with one string; these make them handy.

use std::fmt;

use crate::v1::{
    AgentId, ContainerId, ExecutorId, FrameworkId, OfferId, OperationId, ResourceProviderId, TaskId,
};

macro_rules! id {
    ($ty:ident) => {
        impl $ty {
            /// The id of this value.
            pub fn new(value: impl Into<String>) -> Self {
                Self { value: value.into() }
            }
            /// Its value.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.value
            }
        }
        impl From<&str> for $ty {
            fn from(value: &str) -> Self {
                Self::new(value)
            }
        }
        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(&self.value)
            }
        }
    };
}

id!(AgentId);
id!(ExecutorId);
id!(FrameworkId);
id!(OfferId);
id!(OperationId);
id!(ResourceProviderId);
id!(TaskId);

impl ContainerId {
    /// The id of a container without a parent.
    pub fn new(value: impl Into<String>) -> Self {
        Self { value: value.into(), parent: None }
    }
}

/// `parent.child`, as Mesos writes it.
impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(parent) = &self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(&self.value)
    }
}
