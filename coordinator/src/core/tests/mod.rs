//! The core as its shell sees it: inputs in, outputs out.

mod accept;
mod agents;
mod drain;
mod frameworks;
mod gone;
mod group;
mod maintenance;
mod offers;
mod operators;
mod reconcile;
mod removals;
mod running;
mod task_rules;
mod tasks;
mod weights;
mod world;
