//! What agents have and what frameworks say of themselves, of every kind that matters.

use tepui_api::resources::{Resources, parse_list};
use tepui_api::v1::agent_info::{Capability as AgentCapability, capability::Type as AgentType};
use tepui_api::v1::framework_info::{Capability, capability::Type};
use tepui_api::v1::resource::ReservationInfo;
use tepui_api::v1::resource::reservation_info::Type as Reservation;
use tepui_api::v1::{AgentInfo, FrameworkInfo};

use crate::rng::Rng;

/// Roles that frameworks are in, those below others among them.
pub const ROLES: [&str; 6] = ["*", "eng", "eng/web", "eng/web/front", "ops", "qa"];

const RESOURCES: [&str; 6] = [
    "cpus:4;mem:2048;disk:4096;ports:[31000-31099]",
    "cpus:2.5;mem:1024.5;disk:1000",
    "cpus:2;mem:1024;disk:512;cpus(eng):2;mem(eng):512;disk(eng):300;ports:[31000-31031]",
    "cpus:1;mem:512;cpus(eng/web):1.25;mem(eng/web):700;ports(ops):[5000-5009];cpus(ops):0.5;mem(ops):64",
    "cpus:8;mem:8192;disk:9000;gpus:2;ports:[1000-1004,2000-2010]",
    "cpus:3;mem:3000;disk:100;things:{a,b,c}",
];

/// An agent of a random kind.
pub fn agent(index: usize, rng: &mut Rng) -> (AgentInfo, Vec<AgentCapability>, String) {
    let text = RESOURCES[rng.below(RESOURCES.len())];
    let mut resources = parse_list(text, "*").unwrap();
    if rng.chance(250) {
        // A reservation that refines another.
        let mut refined = parse_list("cpus:1.5;mem:256", "*").unwrap();
        let static_one = ReservationInfo {
            r#type: Some(Reservation::Static.into()),
            role: Some("eng".to_owned()),
            ..ReservationInfo::default()
        };
        let dynamic = ReservationInfo {
            r#type: Some(Reservation::Dynamic.into()),
            role: Some("eng/web".to_owned()),
            ..ReservationInfo::default()
        };
        for resource in &mut refined {
            resource.role = None;
            resource.reservations = vec![static_one.clone(), dynamic.clone()];
        }
        resources.extend(refined);
    }
    assert!(Resources::from_wire(&resources).is_ok(), "{resources:?}");
    let mut capabilities =
        vec![AgentType::MultiRole, AgentType::HierarchicalRole, AgentType::ReservationRefinement];
    if rng.chance(60) {
        capabilities.remove(rng.below(2));
    }
    if !rng.chance(100) {
        capabilities.push(AgentType::AgentDraining);
    }
    let capabilities = capabilities
        .into_iter()
        .map(|capability| AgentCapability { r#type: Some(capability.into()) })
        .collect();
    let info = AgentInfo {
        hostname: format!("host-{index}"),
        port: Some(5051),
        resources,
        checkpoint: Some(true),
        ..AgentInfo::default()
    };
    (info, capabilities, format!("10.0.0.{}:5051", index + 1))
}

/// Makes an agent larger or smaller; true when smaller.
pub fn resize(info: &mut AgentInfo, rng: &mut Rng) -> bool {
    let grows = rng.chance(500);
    let factor = if grows { 1.5 } else { 0.75 };
    for resource in &mut info.resources {
        if let Some(scalar) = &mut resource.scalar
            && resource.name != "gpus"
        {
            scalar.value = (scalar.value * factor * 100.0).ceil().clamp(10.0, 1e6) / 100.0;
        }
    }
    !grows
}

/// A framework of a random kind.
pub fn framework(index: usize, rng: &mut Rng) -> FrameworkInfo {
    let optional = [
        (Type::PartitionAware, 600),
        (Type::ReservationRefinement, 500),
        (Type::TaskKillingState, 300),
        (Type::GpuResources, 300),
        (Type::RegionAware, 100),
    ];
    let mut capabilities: Vec<Type> = optional
        .into_iter()
        .filter(|(_, share)| rng.chance(*share))
        .map(|(capability, _)| capability)
        .collect();
    let multi_role = rng.chance(650);
    if multi_role {
        capabilities.push(Type::MultiRole);
    }
    let mut info = FrameworkInfo {
        user: "root".to_owned(),
        name: format!("framework-{index}"),
        failover_timeout: Some(*rng.pick(&[0.0, 3.0, 30.0, 120.0, 120.0, 600.0]).unwrap()),
        checkpoint: Some(rng.chance(700)),
        capabilities: capabilities.into_iter().map(|c| Capability { r#type: Some(c.into()) }).collect(),
        ..FrameworkInfo::default()
    };
    if multi_role {
        info.roles = some_roles(rng);
    } else if rng.chance(800) {
        info.role = Some((*rng.pick(&ROLES).unwrap()).to_owned());
    }
    info
}

/// A few roles, each once.
pub fn some_roles(rng: &mut Rng) -> Vec<String> {
    let mut roles: Vec<String> =
        ROLES.iter().filter(|_| rng.chance(400)).map(|role| (*role).to_owned()).collect();
    if roles.is_empty() {
        roles.push(ROLES[rng.below(ROLES.len())].to_owned());
    }
    roles
}
