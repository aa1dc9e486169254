//! `docker/volume` against plugins that hang, lie and fail, and against an agent that dies: a volume is mounted once for all who use it, and
//! taken away once.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tepui_api::v1::volume::source::{DockerVolume, Type};
use tepui_api::v1::volume::{Mode, Source};
use tepui_api::v1::{ContainerInfo, Volume};
use tepui_isolators::{
    ContainerContext, ContainerId, Contribution, Isolator, IsolatorError, Recovered, Settings, VolumeSource,
};

use crate::support::Host;

/// A plugin at a socket, as good or bad as it is told to be.
struct Plugin {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    calls: Vec<String>,
    /// What a call is answered; `None`: nothing at all.
    answers: BTreeMap<&'static str, Option<String>>,
}

impl Plugin {
    fn new() -> Self {
        let plugin = Plugin { dir: tempfile::tempdir().unwrap(), state: Arc::default() };
        let place = plugin.dir.path().join("volume");
        std::fs::create_dir(&place).unwrap();
        plugin.answer("Plugin.Activate", json!({ "Implements": ["VolumeDriver"] }).to_string());
        plugin.answer("VolumeDriver.Get", json!({ "Err": "no such volume" }).to_string());
        plugin.answer("VolumeDriver.Mount", json!({ "Mountpoint": place }).to_string());
        let listener = UnixListener::bind(plugin.dir.path().join("test.sock")).unwrap();
        let state = Arc::clone(&plugin.state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
        plugin
    }

    fn answer(&self, call: &'static str, text: impl Into<Option<String>>) {
        self.state.lock().unwrap().answers.insert(call, text.into());
    }

    fn count(&self, call: &str) -> usize {
        self.state.lock().unwrap().calls.iter().filter(|one| *one == call).count()
    }

    fn host(&self) -> Host {
        Host::new(&["filesystem/linux", "docker/volume"], |settings: &mut Settings| {
            settings.volumes.docker_plugin_sockets = vec![self.dir.path().to_owned()];
            settings.volumes.docker_plugin_specs = Vec::new();
            settings.volumes.docker_checkpoint_dir = self.checkpoints();
            settings.volumes.docker_call_timeout = Duration::from_millis(300);
        })
    }

    fn checkpoints(&self) -> PathBuf {
        self.dir.path().join("checkpoints")
    }

    /// The containers that something is written down of.
    fn written(&self) -> usize {
        std::fs::read_dir(self.checkpoints()).unwrap().count()
    }
}

fn serve(stream: UnixStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    lines.read_line(&mut first).unwrap();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let line = line.trim().to_lowercase();
        if let Some(text) = line.strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    let _: Value = serde_json::from_slice(&body).unwrap();
    let call = first.split(' ').nth(1).unwrap().trim_start_matches('/').to_owned();
    let answer = {
        let mut state = state.lock().unwrap();
        state.calls.push(call.clone());
        state.answers.get(call.as_str()).cloned().unwrap_or_else(|| Some("{}".to_owned()))
    };
    match answer {
        Some(text) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len());
            let _ = lines.get_mut().write_all((head + &text).as_bytes());
        }
        None => std::thread::sleep(Duration::from_secs(30)),
    }
}

fn context(host: &Host, id: &str) -> ContainerContext {
    let source = Source {
        r#type: Some(Type::DockerVolume.into()),
        docker_volume: Some(DockerVolume {
            driver: Some("test".to_owned()),
            name: "v".to_owned(),
            driver_options: None,
        }),
        ..Source::default()
    };
    let volume = Volume {
        mode: Mode::Rw.into(),
        container_path: "data".to_owned(),
        source: Some(source),
        ..Volume::default()
    };
    ContainerContext {
        container: Some(ContainerInfo { volumes: vec![volume], ..ContainerInfo::default() }),
        ..host.context(id, "cpus:1", &[])
    }
}

fn isolator(host: &Host) -> &dyn Isolator {
    let isolators = &host.composition.isolators;
    &**isolators.iter().find(|isolator| isolator.name() == "docker/volume").unwrap()
}

async fn prepare(host: &Host, id: &str) -> Result<PathBuf, IsolatorError> {
    let mut contribution = Contribution::default();
    isolator(host).prepare(&context(host, id), &mut contribution).await?;
    let sources = contribution.volumes.iter().filter_map(|volume| match &volume.source {
        VolumeSource::Host(path) => Some(path.clone()),
        _ => None,
    });
    let sources: Vec<_> = sources.collect();
    assert_eq!((contribution.volumes.len(), sources.len()), (1, 1));
    Ok(sources[0].clone())
}

async fn cleanup(host: &Host, id: &str) -> Result<(), IsolatorError> {
    isolator(host).cleanup(&ContainerId::new(id)).await
}

#[tokio::test]
async fn a_volume_is_mounted_once_for_all_and_taken_away_with_the_last() {
    let plugin = Plugin::new();
    let host = plugin.host();
    let (one, two, three) =
        tokio::join!(prepare(&host, "one"), prepare(&host, "two"), prepare(&host, "three"));
    assert_eq!(one.unwrap(), plugin.dir.path().join("volume"));
    assert_eq!(two.unwrap(), three.unwrap());
    assert_eq!((plugin.count("VolumeDriver.Create"), plugin.count("VolumeDriver.Mount")), (1, 1));
    assert_eq!(plugin.written(), 3);
    let (one, two) = tokio::join!(cleanup(&host, "one"), cleanup(&host, "three"));
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(plugin.count("VolumeDriver.Unmount"), 0);
    cleanup(&host, "two").await.unwrap();
    cleanup(&host, "two").await.unwrap();
    cleanup(&host, "never known").await.unwrap();
    assert_eq!((plugin.count("VolumeDriver.Unmount"), plugin.written()), (1, 0));
    // And again, from the beginning.
    plugin.answer("VolumeDriver.Get", "{}".to_owned());
    prepare(&host, "four").await.unwrap();
    cleanup(&host, "four").await.unwrap();
    assert_eq!((plugin.count("VolumeDriver.Mount"), plugin.count("VolumeDriver.Unmount")), (2, 2));
    assert_eq!(plugin.count("VolumeDriver.Create"), 1, "there was one");
}

#[tokio::test]
async fn an_agent_that_starts_anew_keeps_what_is_used_and_takes_away_the_rest() {
    let plugin = Plugin::new();
    let host = plugin.host();
    prepare(&host, "stays").await.unwrap();
    prepare(&host, "goes").await.unwrap();
    drop(host);
    let host = plugin.host();
    let known = [Recovered { context: context(&host, "stays"), pid: Some(1) }];
    isolator(&host).recover(&known, &[]).await.unwrap();
    assert_eq!((plugin.count("VolumeDriver.Unmount"), plugin.written()), (0, 1));
    assert_eq!(prepare(&host, "new").await.unwrap(), plugin.dir.path().join("volume"));
    assert_eq!(plugin.count("VolumeDriver.Mount"), 1, "it is known where it is");
    cleanup(&host, "new").await.unwrap();
    cleanup(&host, "stays").await.unwrap();
    assert_eq!((plugin.count("VolumeDriver.Unmount"), plugin.written()), (1, 0));
    prepare(&host, "last").await.unwrap();
    drop(host);
    isolator(&plugin.host()).recover(&[], &[]).await.unwrap();
    assert_eq!((plugin.count("VolumeDriver.Unmount"), plugin.written()), (2, 0));
}

#[tokio::test]
async fn a_plugin_that_hangs_or_lies_fails_the_launch_by_its_name_and_in_time() {
    let plugin = Plugin::new();
    let host = plugin.host();
    let elsewhere = json!({ "Mountpoint": "/no/such/place" }).to_string();
    let relative = json!({ "Mountpoint": "here" }).to_string();
    let table = [
        ("VolumeDriver.Mount", None, "did not answer"),
        ("VolumeDriver.Mount", Some("<html>".to_owned()), "cannot be used"),
        ("VolumeDriver.Mount", Some("{}".to_owned()), "no path of this host"),
        ("VolumeDriver.Mount", Some(elsewhere), "no path of this host"),
        ("VolumeDriver.Mount", Some(relative), "no path of this host"),
        ("VolumeDriver.Create", Some(r#"{"Err":"quota"}"#.to_owned()), "quota"),
        ("Plugin.Activate", Some(r#"{"Implements":["NetworkDriver"]}"#.to_owned()), "not for volumes"),
    ];
    for (number, (call, answer, words)) in table.into_iter().enumerate() {
        let before = plugin.state.lock().unwrap().answers.get(call).cloned();
        plugin.answer(call, answer);
        let id = format!("c{number}");
        let error = prepare(&host, &id).await.unwrap_err().to_string();
        assert!(error.contains("'test'") && error.contains(words), "{call}: {error}");
        cleanup(&host, &id).await.unwrap();
        assert_eq!(plugin.written(), 0, "{call}");
        plugin.answer(call, before.unwrap_or_else(|| Some("{}".to_owned())));
    }
    assert!(prepare(&host, "good").await.is_ok());
    cleanup(&host, "good").await.unwrap();
}

#[tokio::test]
async fn what_a_plugin_does_not_take_away_is_tried_again() {
    let plugin = Plugin::new();
    let host = plugin.host();
    prepare(&host, "one").await.unwrap();
    plugin.answer("VolumeDriver.Unmount", json!({ "Err": "busy" }).to_string());
    assert!(cleanup(&host, "one").await.unwrap_err().to_string().contains("busy"));
    assert_eq!(plugin.written(), 1, "it is not forgotten");
    drop(host);
    let host = plugin.host();
    isolator(&host).recover(&[], &[]).await.unwrap();
    assert_eq!(plugin.written(), 1, "nor is the agent held up");
    drop(host);
    plugin.answer("VolumeDriver.Unmount", "{}".to_owned());
    isolator(&plugin.host()).recover(&[], &[]).await.unwrap();
    assert_eq!((plugin.count("VolumeDriver.Unmount"), plugin.written()), (3, 0));
    assert!(Path::new(&plugin.checkpoints()).is_dir());
}
