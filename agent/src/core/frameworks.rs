//! The frameworks that have, or lately had, something on this agent. Shared with readers: all
//! containers here are persistent ones, whose clone costs nothing.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use tepui_api::v1::{FrameworkId, FrameworkInfo, TaskId};

use super::input::FrameworkFate;
use super::task::{CompletedTask, Task, TaskKey};

/// How many frameworks are remembered after their last task. Mesos' figure.
const MAX_COMPLETED_FRAMEWORKS: usize = 50;

/// A framework with something on this agent.
#[derive(Debug, Clone)]
pub struct Framework {
    /// As its scheduler last described it.
    pub info: Arc<FrameworkInfo>,
    /// Whether it goes on.
    pub fate: FrameworkFate,
    /// Its tasks that run or have unacknowledged updates.
    pub tasks: OrdMap<TaskId, Arc<Task>>,
    /// Those that are over, the latest last.
    pub completed: Vector<Arc<CompletedTask>>,
}

/// All frameworks.
#[derive(Debug, Clone, Default)]
pub struct Frameworks {
    /// Those with tasks.
    pub active: OrdMap<FrameworkId, Framework>,
    /// Those without, the latest last.
    pub completed: Vector<Framework>,
}

// === impl Frameworks ===

impl Frameworks {
    /// One with tasks.
    #[must_use]
    pub fn get(&self, id: &FrameworkId) -> Option<&Framework> {
        self.active.get(id)
    }

    /// The framework, which is made if it has nothing here yet; its history comes back if there is one.
    pub fn enter(&mut self, id: &FrameworkId, info: Arc<FrameworkInfo>) -> &mut Framework {
        if !self.active.contains_key(id) {
            let past = self.completed.iter().position(|f| f.info.id.as_ref() == Some(id));
            let completed = past.map(|at| self.completed.remove(at).completed).unwrap_or_default();
            let fresh = Framework {
                info: info.clone(),
                fate: FrameworkFate::Active,
                tasks: OrdMap::new(),
                completed,
            };
            self.active.insert(id.clone(), fresh);
        }
        let framework = self.active.entry(id.clone());
        framework.or_insert_with(|| Framework {
            info,
            fate: FrameworkFate::Active,
            tasks: OrdMap::new(),
            completed: Vector::new(),
        })
    }

    /// A task.
    #[must_use]
    pub fn task(&self, key: &TaskKey) -> Option<&Arc<Task>> {
        self.active.get(&key.framework)?.tasks.get(&key.task)
    }

    /// A task, to change it.
    pub fn task_mut(&mut self, key: &TaskKey) -> Option<&mut Task> {
        let tasks = &mut self.active.get_mut(&key.framework)?.tasks;
        tasks.get_mut(&key.task).map(Arc::make_mut)
    }

    /// Takes a task out of the living; it becomes history.
    pub fn complete(&mut self, key: &TaskKey, keep: usize) {
        let Some(framework) = self.active.get_mut(&key.framework) else { return };
        let Some(task) = framework.tasks.remove(&key.task) else { return };
        framework.completed.push_back(Arc::new(task.completed()));
        while framework.completed.len() > keep {
            framework.completed.pop_front();
        }
    }

    /// Takes a framework out of the living; it becomes history.
    pub fn retire(&mut self, id: &FrameworkId) {
        let Some(framework) = self.active.remove(id) else { return };
        self.completed.push_back(framework);
        while self.completed.len() > MAX_COMPLETED_FRAMEWORKS {
            self.completed.pop_front();
        }
    }

    /// All tasks of all frameworks.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.active.values().flat_map(|framework| framework.tasks.values())
    }
}
