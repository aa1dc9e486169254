//! `POST /api/v1`: the operator API.
//!
//! The checks are those of Mesos' `Master::Http::api`, in its order: who leads (307, 503), the method
//! (405), the body's type (400, 415), the body (400), whether the call is whole (400), what the client
//! accepts (406). Reads are answered from a snapshot; what changes something goes to the core. Calls
//! that are not built answer `501` and say so.

mod changes;
mod state;
mod subscribe;

use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tepui_api::http::{Body, Refusal};
use tepui_api::v1::master::call::Type;
use tepui_api::v1::master::response::{
    self, GetFlags, GetHealth, GetLoggingLevel, GetMaintenanceSchedule, GetMaintenanceStatus, GetMaster,
    GetMetrics, GetOperations, GetRoles, GetVersion, GetWeights,
};
use tepui_api::v1::master::{Call, Response as Answer};
use tepui_api::v1::{Flag, Metric, VersionInfo, WeightInfo};
use tepui_api::{MediaType, http as api};

use super::{Context, answer, metrics, read_call, roles, stopping, write_apart};
use crate::core::{OperatorCall, Snapshot};
use crate::identity::API_VERSION;
use state::Section;

/// Answers one call.
pub(super) async fn handle(context: &Arc<Context>, request: Request<Incoming>) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("", |p| p.as_str());
    if let Err(elsewhere) = context.check_leading(target) {
        return *elsewhere;
    }
    if request.method() != Method::POST {
        return api::method_not_allowed("POST", request.method());
    }
    match check(request).await {
        Ok((call, media)) => serve(context, call, media).await.unwrap_or_else(Into::into),
        Err(refusal) => refusal.into(),
    }
}

/// What `/version` and `GET_VERSION` tell.
pub(super) fn version() -> VersionInfo {
    let built: Option<u64> = env!("TEPUI_BUILD_TIME").parse().ok();
    VersionInfo {
        version: API_VERSION.to_owned(),
        build_date: built.map(date),
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double")]
        build_time: built.map(|seconds| seconds as f64),
        build_user: Some(env!("TEPUI_BUILD_USER").to_owned()),
        ..VersionInfo::default()
    }
}

async fn check(request: Request<Incoming>) -> Result<(Call, MediaType), Refusal> {
    let (head, body) = request.into_parts();
    let call: Call = read_call(&head, body).await?;
    if call.r#type.is_none() {
        return Err(changes::missing("type"));
    }
    changes::check(&call)?;
    Ok((call, api::accept(&head.headers)?))
}

async fn serve(context: &Arc<Context>, call: Call, media: MediaType) -> Result<Response<Body>, Refusal> {
    let section = match call.r#type() {
        Type::GetState => Some(Section::State),
        Type::GetAgents => Some(Section::Agents),
        Type::GetFrameworks => Some(Section::Frameworks),
        Type::GetExecutors => Some(Section::Executors),
        Type::GetTasks => Some(Section::Tasks),
        _ => None,
    };
    if let Some(section) = section {
        let state = match context.core.read().await {
            Ok(state) => state,
            Err(gone) => return Ok(stopping(gone)),
        };
        let bytes = write_apart(move || state::response(section, &state, media)).await?;
        return Ok(with_type(media, bytes));
    }
    if call.r#type() == Type::Subscribe {
        return Ok(subscribe::handle(context, media).await);
    }
    if let Some(change) = changes::change(&call) {
        return Ok(carry_out(context, change).await);
    }
    if let Some(known) = without_state(context, &call) {
        return Ok(api::message(media, &known));
    }
    let of_state = matches!(
        call.r#type(),
        Type::GetMetrics
            | Type::GetRoles
            | Type::GetWeights
            | Type::GetMaintenanceSchedule
            | Type::GetMaintenanceStatus
    );
    if !of_state {
        return Err(Refusal::not_implemented(format_args!("the call {}", call.r#type().as_str_name())));
    }
    match context.core.read().await {
        Ok(state) => Ok(api::message(media, &from_state(context, &call, &state))),
        Err(gone) => Ok(stopping(gone)),
    }
}

/// Has the core do what changes something, and answers when it is done.
pub(super) async fn carry_out(context: &Context, change: OperatorCall) -> Response<Body> {
    answer(context.core.operator(change).await)
}

/// Answers that need no snapshot.
fn without_state(context: &Context, call: &Call) -> Option<Answer> {
    let empty = Answer::default();
    Some(match call.r#type() {
        Type::GetHealth => Answer {
            r#type: Some(response::Type::GetHealth.into()),
            get_health: Some(GetHealth { healthy: true }),
            ..empty
        },
        Type::GetVersion => Answer {
            r#type: Some(response::Type::GetVersion.into()),
            get_version: Some(GetVersion { version_info: version() }),
            ..empty
        },
        Type::GetFlags => {
            let flags = context.settings.table().into_iter();
            let flags =
                flags.map(|(name, value)| Flag { name: name.to_owned(), value: Some(value) }).collect();
            Answer {
                r#type: Some(response::Type::GetFlags.into()),
                get_flags: Some(GetFlags { flags }),
                ..empty
            }
        }
        Type::GetLoggingLevel => Answer {
            r#type: Some(response::Type::GetLoggingLevel.into()),
            get_logging_level: Some(GetLoggingLevel { level: logging_level() }),
            ..empty
        },
        Type::GetMaster => Answer {
            r#type: Some(response::Type::GetMaster.into()),
            get_master: Some(GetMaster {
                master_info: Some((*context.info).clone()),
                start_time: Some(context.started.as_secs_f64()),
                elected_time: Some(context.elected.as_secs_f64()),
            }),
            ..empty
        },
        // Operations on resources are refused, so there are none.
        Type::GetOperations => Answer {
            r#type: Some(response::Type::GetOperations.into()),
            get_operations: Some(GetOperations::default()),
            ..empty
        },
        _ => return None,
    })
}

fn from_state(context: &Context, call: &Call, state: &Snapshot) -> Answer {
    let empty = Answer::default();
    match call.r#type() {
        Type::GetMetrics => {
            let metrics = metrics::collect(context, state).into_iter();
            let metrics = metrics.map(|(name, value)| Metric { name, value: Some(value) }).collect();
            Answer {
                r#type: Some(response::Type::GetMetrics.into()),
                get_metrics: Some(GetMetrics { metrics }),
                ..empty
            }
        }
        Type::GetRoles => {
            let known = roles::known(state, context.settings.roles.as_deref());
            let roles = known.iter().map(|(name, role)| role.to_wire(name)).collect();
            Answer {
                r#type: Some(response::Type::GetRoles.into()),
                get_roles: Some(GetRoles { roles }),
                ..empty
            }
        }
        Type::GetMaintenanceSchedule => Answer {
            r#type: Some(response::Type::GetMaintenanceSchedule.into()),
            get_maintenance_schedule: Some(GetMaintenanceSchedule {
                schedule: (*state.maintenance.schedule).clone(),
            }),
            ..empty
        },
        Type::GetMaintenanceStatus => Answer {
            r#type: Some(response::Type::GetMaintenanceStatus.into()),
            get_maintenance_status: Some(GetMaintenanceStatus { status: state.maintenance_status() }),
            ..empty
        },
        _ => {
            let weight_infos = state.weights.iter();
            let weight_infos = weight_infos
                .map(|(role, weight)| WeightInfo { role: Some(role.clone()), weight: *weight })
                .collect();
            Answer {
                r#type: Some(response::Type::GetWeights.into()),
                get_weights: Some(GetWeights { weight_infos }),
                ..empty
            }
        }
    }
}

fn with_type(media: MediaType, bytes: Vec<u8>) -> Response<Body> {
    let mut answer = api::json(bytes);
    let value = http::HeaderValue::from_static(media.as_str());
    answer.headers_mut().insert(http::header::CONTENT_TYPE, value);
    answer
}

/// In Mesos' measure: 0 for what is always logged, more for more detail.
fn logging_level() -> u32 {
    use tracing::level_filters::LevelFilter;
    match LevelFilter::current() {
        LevelFilter::TRACE => 2,
        LevelFilter::DEBUG => 1,
        _ => 0,
    }
}

/// `2024-02-29 12:34:56 UTC`, as Mesos writes its build's date.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Howard Hinnant's civil_from_days, for days that are not negative.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(date(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(date(4_107_542_399), "2100-02-28 23:59:59 UTC");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00:00 UTC");
    }

    #[test]
    fn the_version_is_one_that_clients_can_parse() {
        let version = version();
        assert_eq!(version.version.split('.').filter_map(|part| part.parse::<u32>().ok()).count(), 3);
        assert!(version.build_time() > 1.0e9);
    }
}
