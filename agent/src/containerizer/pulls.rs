//! How far the pulls of images are, for `GET /tepui/v1/pulls`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::models::CreateImageInfo;
use serde_json::{Value, json};
use tepui_images::{Phase, Progress, ProgressFn};

const DOWNLOADING: &str = "downloading";
const UNPACKING: &str = "unpacking";
const DONE: &str = "done";

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
    layers: BTreeMap<String, Layer>,
}

/// How far a layer is, in bytes.
struct Layer {
    done: u64,
    total: u64,
    phase: &'static str,
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
            let phase = match progress.phase {
                Phase::Waiting | Phase::Fetching => DOWNLOADING,
                Phase::Unpacking => UNPACKING,
                Phase::Done | Phase::Present => DONE,
            };
            if let Some(pull) = pulls.lock().pulls.get_mut(&number) {
                let layer = Layer { done: progress.done, total: progress.total, phase };
                pull.layers.insert(progress.layer.to_string(), layer);
            }
        })
    }

    /// To be called with what a Docker engine says of a pull. It tells a layer's size only while the layer moves.
    pub(super) fn hear_engine(&self, info: &CreateImageInfo) {
        let (Some(id), Some(status)) = (&info.id, &info.status) else { return };
        let phase = match status.as_str() {
            "Pulling fs layer" | "Waiting" | "Downloading" => DOWNLOADING,
            "Verifying Checksum" | "Download complete" | "Extracting" => UNPACKING,
            "Pull complete" | "Already exists" => DONE,
            // Of the image, not of a layer.
            _ => return,
        };
        let mut state = self.pulls.lock();
        let Some(pull) = state.pulls.get_mut(&self.number) else { return };
        let layer = pull.layers.entry(id.clone()).or_insert(Layer { done: 0, total: 0, phase });
        layer.phase = phase;
        let bytes = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok());
        if let Some(detail) = &info.progress_detail
            && let (DOWNLOADING, Some(done), Some(total)) =
                (phase, bytes(detail.current), bytes(detail.total))
        {
            (layer.done, layer.total) = (done, total);
        }
        if phase != DOWNLOADING {
            layer.done = layer.total;
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.pulls.lock().pulls.remove(&self.number);
    }
}

impl Pull {
    fn to_json(&self) -> Value {
        let layer = |(digest, layer): (&String, &Layer)| json!({ "digest": digest, "done": layer.done, "total": layer.total, "phase": layer.phase });
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
