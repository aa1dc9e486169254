//! The core as its shell sees it: inputs in, outputs out.

mod accept;
mod agents;
mod frameworks;
mod group;
mod offers;
mod operators;
mod reconcile;
mod task_rules;
mod tasks;
mod world;
