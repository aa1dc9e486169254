//! The endpoints that change something: `/weights`, `/maintenance/…`, `/machine/…`, `/teardown`.
//!
//! Their bodies are JSON, whatever their `Content-Type` says, as in Mesos.

use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tepui_api::codec::encode_json;
use tepui_api::http::{self as api, Body, Refusal, read_body};
use tepui_api::v1::{FrameworkId, MachineId, WeightInfo};

use super::super::query::Query;
use super::super::{Context, operator, stopping};
use super::json;
use crate::core::{OperatorCall, Snapshot};

/// Which endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Teardown,
    Weights,
    Schedule,
    Status,
    MachineDown,
    MachineUp,
}

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn find(path: &str) -> Option<Self> {
        Some(match path {
            "/teardown" => Self::Teardown,
            "/weights" => Self::Weights,
            "/maintenance/schedule" => Self::Schedule,
            "/maintenance/status" => Self::Status,
            "/machine/down" => Self::MachineDown,
            "/machine/up" => Self::MachineUp,
            _ => return None,
        })
    }

    /// The methods that it takes, as the answer to another one names them.
    fn methods(self) -> (&'static [Method], &'static str) {
        match self {
            Self::Teardown | Self::MachineDown | Self::MachineUp => (&[Method::POST], "POST"),
            Self::Weights => (&[Method::GET, Method::PUT], "GET or PUT"),
            Self::Schedule => (&[Method::GET, Method::POST], "GET or POST"),
            Self::Status => (&[Method::GET], "GET"),
        }
    }

    /// Answers one request.
    pub(super) async fn answer(
        self,
        context: &Arc<Context>,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let (methods, names) = self.methods();
        if !methods.contains(request.method()) {
            return Ok(api::method_not_allowed(names, request.method()));
        }
        if request.method() == Method::GET {
            return Ok(match context.core.read().await {
                Ok(state) => json(query, self.show(&state)),
                Err(gone) => stopping(gone),
            });
        }
        let body = read_body(request.into_body()).await?;
        let call = match self {
            Self::Teardown => OperatorCall::Teardown(framework_of(&body)?),
            Self::Weights => OperatorCall::UpdateWeights(read::<Vec<WeightInfo>>(&body)?),
            Self::Schedule => OperatorCall::UpdateSchedule(
                tepui_api::codec::decode_json(&body)
                    .map_err(|error| Refusal::bad_request(error.to_string()))?,
            ),
            Self::MachineDown => OperatorCall::StartMaintenance(read::<Vec<MachineId>>(&body)?),
            Self::MachineUp => OperatorCall::StopMaintenance(read::<Vec<MachineId>>(&body)?),
            // It only takes GET.
            Self::Status => return Ok(api::not_found()),
        };
        Ok(operator::carry_out(context, call).await)
    }

    fn show(self, state: &Snapshot) -> Vec<u8> {
        match self {
            Self::Weights => {
                let weights = state.weights.iter();
                let weights =
                    weights.map(|(role, weight)| serde_json::json!({ "role": role, "weight": weight }));
                encode_json(&weights.collect::<Vec<_>>())
            }
            Self::Schedule => encode_json(&*state.maintenance.schedule),
            _ => encode_json(&state.maintenance_status()),
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("Failed to read the JSON array of the body: {error}")))
}

fn framework_of(body: &[u8]) -> Result<FrameworkId, Refusal> {
    let parameters = Query::parse(&String::from_utf8_lossy(body));
    let id = parameters.get("frameworkId");
    id.map(FrameworkId::new)
        .ok_or_else(|| Refusal::bad_request("Missing 'frameworkId' query parameter in the request body"))
}
