//! Containers and the volumes in them.

use tepui_api::v1::volume::source::Type as SourceType;
use tepui_api::v1::{ContainerInfo, Volume, container_info};

/// Why a container cannot be made so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ContainerError {
    #[error("a volume must have one of 'host_path', 'image' and 'source'")]
    VolumeOrigin,
    #[error("the type of a volume's source must be known")]
    SourceType,
    #[error("a volume with a source of type {0} must have '{1}'")]
    SourcePart(&'static str, &'static str),
    #[error("a container of type DOCKER must have 'docker'")]
    Docker,
    #[error("the Docker parameter 'name' cannot be used: the agent names its containers itself")]
    DockerName,
}

pub(crate) fn validate(container: &ContainerInfo) -> Result<(), ContainerError> {
    container.volumes.iter().try_for_each(validate_volume)?;
    if container.r#type() == container_info::Type::Docker {
        let docker = container.docker.as_ref().ok_or(ContainerError::Docker)?;
        if docker.parameters.iter().any(|parameter| parameter.key == "name") {
            return Err(ContainerError::DockerName);
        }
    }
    Ok(())
}

fn validate_volume(volume: &Volume) -> Result<(), ContainerError> {
    let origins = [volume.host_path.is_some(), volume.image.is_some(), volume.source.is_some()];
    if origins.into_iter().filter(|origin| *origin).count() != 1 {
        return Err(ContainerError::VolumeOrigin);
    }
    let Some(source) = &volume.source else { return Ok(()) };
    let need = |is_there: bool, r#type, part| {
        if is_there { Ok(()) } else { Err(ContainerError::SourcePart(r#type, part)) }
    };
    match source.r#type() {
        SourceType::DockerVolume => need(source.docker_volume.is_some(), "DOCKER_VOLUME", "docker_volume"),
        SourceType::HostPath => need(source.host_path.is_some(), "HOST_PATH", "host_path"),
        SourceType::SandboxPath => need(source.sandbox_path.is_some(), "SANDBOX_PATH", "sandbox_path"),
        SourceType::Secret => need(source.secret.is_some(), "SECRET", "secret"),
        SourceType::CsiVolume => {
            let csi = source.csi_volume.as_ref();
            need(csi.is_some(), "CSI_VOLUME", "csi_volume")?;
            let provisioned = csi.is_some_and(|csi| csi.static_provisioning.is_some());
            need(provisioned, "CSI_VOLUME", "csi_volume.static_provisioning")
        }
        SourceType::Unknown => Err(ContainerError::SourceType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_api::v1::container_info::DockerInfo;
    use tepui_api::v1::volume::{Source, source};
    use tepui_api::v1::{Image, Parameter};

    fn with(volume: Volume) -> ContainerInfo {
        ContainerInfo {
            r#type: container_info::Type::Mesos.into(),
            volumes: vec![volume],
            ..Default::default()
        }
    }

    fn from(r#type: SourceType, fill: impl FnOnce(&mut Source)) -> ContainerInfo {
        let mut source = Source { r#type: Some(r#type.into()), ..Default::default() };
        fill(&mut source);
        with(Volume { source: Some(source), ..Default::default() })
    }

    #[test]
    fn volumes_have_one_origin() {
        use SourceType as T;
        let csi = |provisioned: bool| source::CsiVolume {
            static_provisioning: provisioned.then(Default::default),
            ..Default::default()
        };
        let table = [
            (with(Volume::default()), false),
            (with(Volume { host_path: Some("/a".into()), ..Default::default() }), true),
            (with(Volume { image: Some(Image::default()), ..Default::default() }), true),
            (
                with(Volume {
                    image: Some(Image::default()),
                    host_path: Some("/a".into()),
                    ..Default::default()
                }),
                false,
            ),
            (from(T::Unknown, |_| {}), false),
            (from(T::DockerVolume, |_| {}), false),
            (from(T::DockerVolume, |s| s.docker_volume = Some(Default::default())), true),
            (from(T::HostPath, |_| {}), false),
            (from(T::HostPath, |s| s.host_path = Some(Default::default())), true),
            (from(T::SandboxPath, |_| {}), false),
            (from(T::SandboxPath, |s| s.sandbox_path = Some(Default::default())), true),
            (from(T::Secret, |_| {}), false),
            (from(T::Secret, |s| s.secret = Some(Default::default())), true),
            (from(T::CsiVolume, |_| {}), false),
            (from(T::CsiVolume, |s| s.csi_volume = Some(csi(false))), false),
            (from(T::CsiVolume, |s| s.csi_volume = Some(csi(true))), true),
        ];
        for (container, good) in table {
            assert_eq!(validate(&container).is_ok(), good, "{container:?}");
        }
    }

    #[test]
    fn docker_containers_say_how() {
        let docker = |docker: Option<DockerInfo>| ContainerInfo {
            r#type: container_info::Type::Docker.into(),
            docker,
            ..Default::default()
        };
        let named = Parameter { key: "name".into(), value: "x".into() };
        assert_eq!(validate(&docker(None)), Err(ContainerError::Docker));
        assert_eq!(validate(&docker(Some(DockerInfo::default()))), Ok(()));
        let named = DockerInfo { parameters: vec![named], ..Default::default() };
        assert_eq!(validate(&docker(Some(named))), Err(ContainerError::DockerName));
    }
}
