//! What an isolator remembers of its containers.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::isolator::{ContainerId, IsolatorError};

/// A value for each container. Calls for different containers come from different threads.
#[derive(Debug)]
pub struct Table<T>(Mutex<HashMap<ContainerId, T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table(Mutex::default())
    }
}

impl<T> Table<T> {
    /// Remembers a container, in place of what was known of it.
    pub fn insert(&self, id: &ContainerId, value: T) {
        self.lock().insert(id.clone(), value);
    }

    /// Forgets a container.
    pub fn remove(&self, id: &ContainerId) -> Option<T> {
        self.lock().remove(id)
    }

    /// Reads or changes what is known of a container. `look` must not wait.
    pub fn with<R>(&self, id: &ContainerId, look: impl FnOnce(&mut T) -> R) -> Result<R, IsolatorError> {
        match self.lock().get_mut(id) {
            Some(value) => Ok(look(value)),
            None => Err(IsolatorError::Unknown(id.clone())),
        }
    }

    /// No change is made in more than one step, so what a panicking thread left behind is whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
