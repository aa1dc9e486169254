//! The frameworks that have, or lately had, something on this agent. Shared with readers: all
//! containers here are persistent ones, whose clone costs nothing.

use std::sync::Arc;

use imbl::{OrdMap, Vector};
use tepui_api::v1::{ExecutorId, FrameworkId, FrameworkInfo, TaskId};

use super::executor::{CompletedExecutor, Executor, ExecutorKey};
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
    /// Its own executors.
    pub executors: OrdMap<ExecutorId, Arc<Executor>>,
    /// Those that are over, the latest last.
    pub completed_executors: Vector<Arc<CompletedExecutor>>,
}

/// All frameworks.
#[derive(Debug, Clone, Default)]
pub struct Frameworks {
    /// Those with tasks.
    pub active: OrdMap<FrameworkId, Framework>,
    /// Those without, the latest last.
    pub completed: Vector<Framework>,
}

// === impl Framework ===

impl Framework {
    fn new(info: Arc<FrameworkInfo>) -> Self {
        Self {
            info,
            fate: FrameworkFate::Active,
            tasks: OrdMap::new(),
            completed: Vector::new(),
            executors: OrdMap::new(),
            completed_executors: Vector::new(),
        }
    }
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
            let past = past.map(|at| self.completed.remove(at));
            let fresh = Framework {
                fate: FrameworkFate::Active,
                ..past.unwrap_or_else(|| Framework::new(info.clone()))
            };
            self.active.insert(id.clone(), fresh);
        }
        self.active.entry(id.clone()).or_insert_with(|| Framework::new(info))
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

    /// An executor.
    #[must_use]
    pub fn executor(&self, key: &ExecutorKey) -> Option<&Arc<Executor>> {
        self.active.get(&key.framework)?.executors.get(&key.executor)
    }

    /// An executor, to change it.
    pub fn executor_mut(&mut self, key: &ExecutorKey) -> Option<&mut Executor> {
        let executors = &mut self.active.get_mut(&key.framework)?.executors;
        executors.get_mut(&key.executor).map(Arc::make_mut)
    }

    /// All executors of all frameworks.
    pub fn executors(&self) -> impl Iterator<Item = &Arc<Executor>> {
        self.active.values().flat_map(|framework| framework.executors.values())
    }

    /// The tasks that an executor has been given or waits to be given, or whose updates are not acknowledged yet.
    pub fn tasks_of<'a>(&'a self, key: &'a ExecutorKey) -> impl Iterator<Item = &'a Arc<Task>> {
        let tasks =
            self.active.get(&key.framework).into_iter().flat_map(|framework| framework.tasks.values());
        tasks.filter(|task| task.is_delegated_to(key))
    }

    /// Takes an executor out of the living; it becomes history.
    pub fn complete_executor(&mut self, key: &ExecutorKey, keep: usize) {
        let Some(framework) = self.active.get_mut(&key.framework) else { return };
        let Some(executor) = framework.executors.remove(&key.executor) else { return };
        framework.completed_executors.push_back(Arc::new(executor.completed()));
        while framework.completed_executors.len() > keep {
            framework.completed_executors.pop_front();
        }
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
