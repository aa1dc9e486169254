//! Weights of roles: from the registry or, when that has none, from the flags.

use tepui_api::resources::roles;
use tepui_api::v1::WeightInfo;

use super::io::RegistryChange;
use super::registry::Pending;
use super::{Core, Reply, RequestId};

/// Why weights cannot be set.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum WeightError {
    #[error("Failed to validate update weights request JSON: Invalid role '{role}': {error}")]
    Role { role: String, error: String },
    #[error("Failed to validate update weights request JSON: Unknown role '{0}'")]
    Unknown(String),
    #[error(
        "Failed to validate update weights request JSON for role '{role}': Invalid weight '{weight}': \
         Weights must be positive"
    )]
    Weight { role: String, weight: f64 },
}

impl Core {
    /// Takes over the weights of the registry; when there are none, those of the flags go into it, as in Mesos.
    pub(super) fn recover_weights(&mut self, recovered: Vec<(String, f64)>) {
        if recovered.is_empty() {
            if !self.settings.weights.is_empty() {
                let weights = self.settings.weights.clone();
                self.persist(None, RegistryChange::Weights(weights), Pending::Nothing);
            }
            return;
        }
        if !self.settings.weights.is_empty() {
            tracing::warn!(
                "--weights is ignored, since the registry has weights; change them by UPDATE_WEIGHTS"
            );
        }
        self.state.weights = recovered.iter().cloned().collect();
        self.allocator.replace_weights(recovered);
    }

    /// The call `UPDATE_WEIGHTS`.
    pub(super) fn update_weights(&mut self, request: RequestId, weights: Vec<WeightInfo>) {
        let checked: Result<Vec<(String, f64)>, WeightError> =
            weights.into_iter().map(|weight| self.check_weight(&weight)).collect();
        match checked {
            Ok(weights) => {
                let pending = Pending::Weights { weights: weights.clone(), request };
                self.persist(None, RegistryChange::Weights(weights), pending);
            }
            Err(error) => self.refuse(request, 400, error.to_string()),
        }
    }

    fn check_weight(&self, info: &WeightInfo) -> Result<(String, f64), WeightError> {
        let role = info.role().trim().to_owned();
        if let Err(error) = roles::validate(&role) {
            return Err(WeightError::Role { role, error: error.to_string() });
        }
        // As for Mesos, "*" is always among the roles that may be used.
        let unknown = |only: &Vec<String>| role != "*" && !only.contains(&role);
        if self.settings.roles.as_ref().is_some_and(unknown) {
            return Err(WeightError::Unknown(role));
        }
        if !info.weight.is_finite() || info.weight <= 0.0 {
            return Err(WeightError::Weight { role, weight: info.weight });
        }
        Ok((role, info.weight))
    }

    /// The registry has new weights. All offers are taken back if they are to the advantage of anyone, so that
    /// the new shares count at once.
    pub(super) fn weights_written(&mut self, weights: Vec<(String, f64)>, request: RequestId) {
        let in_use = |role: &String| {
            let mut frameworks = self.state.frameworks.values();
            frameworks.any(|framework| framework.roles().iter().any(|own| roles::is_in_subtree(own, role)))
        };
        let rescind = weights.iter().any(|(role, _)| in_use(role));
        for (role, weight) in &weights {
            self.state.weights.insert(role.clone(), *weight);
        }
        self.allocator.update_weights(weights);
        if rescind {
            let offers: Vec<_> = self.offers.keys().copied().collect();
            let mut offers = offers;
            offers.sort_unstable();
            for offer in offers {
                self.rescind_offer(offer);
            }
        }
        self.reply(request, Reply::Ok);
    }
}
