//! How far the pulls of images are, for `GET /tepui/v1/pulls`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tepui_images::{Phase, Progress, ProgressFn};

/// The pulls under way. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Pulls {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    next: u64,
    pulls: BTreeMap<u64, Pull>,
}

struct Pull {
    image: String,
    layers: BTreeMap<String, Progress>,
}

/// A pull, listed for as long as this lives.
pub(super) struct Listed {
    pulls: Pulls,
    number: u64,
}

impl Pulls {
    /// A list of `{image, layers: [{digest, done, total, phase}]}`; `phase` is `downloading`, `unpacking` or `done`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let state = self.lock();
        state.pulls.values().map(Pull::to_json).collect()
    }

    pub(super) fn begin(&self, image: &str) -> Listed {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.pulls.insert(number, Pull { image: image.to_owned(), layers: BTreeMap::new() });
        Listed { pulls: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listed {
    /// To be called with each report on a layer.
    pub(super) fn hear(&self) -> ProgressFn {
        let (pulls, number) = (self.pulls.clone(), self.number);
        Arc::new(move |progress: Progress| {
            if let Some(pull) = pulls.lock().pulls.get_mut(&number) {
                pull.layers.insert(progress.layer.to_string(), progress);
            }
        })
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.pulls.lock().pulls.remove(&self.number);
    }
}

impl Pull {
    fn to_json(&self) -> Value {
        let layer = |(digest, progress): (&String, &Progress)| {
            let phase = match progress.phase {
                Phase::Waiting | Phase::Fetching => "downloading",
                Phase::Unpacking => "unpacking",
                Phase::Done | Phase::Present => "done",
            };
            json!({ "digest": digest, "done": progress.done, "total": progress.total, "phase": phase })
        };
        json!({ "image": self.image, "layers": self.layers.iter().map(layer).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_images::Digest;

    #[test]
    fn pulls_are_listed_while_they_last() {
        let pulls = Pulls::default();
        assert_eq!(pulls.to_json(), json!([]));
        let listed = pulls.begin("busybox:1.36");
        assert_eq!(pulls.to_json(), json!([{ "image": "busybox:1.36", "layers": [] }]));
        let layer = Digest::of(b"layer");
        let hear = listed.hear();
        hear(Progress { layer: layer.clone(), done: 1, total: 4, phase: Phase::Fetching });
        hear(Progress { layer: layer.clone(), done: 4, total: 4, phase: Phase::Unpacking });
        let layers = json!([{ "digest": layer.to_string(), "done": 4, "total": 4, "phase": "unpacking" }]);
        assert_eq!(pulls.to_json(), json!([{ "image": "busybox:1.36", "layers": layers }]));
        drop(listed);
        hear(Progress { layer, done: 4, total: 4, phase: Phase::Done });
        assert_eq!(pulls.to_json(), json!([]));
    }
}
