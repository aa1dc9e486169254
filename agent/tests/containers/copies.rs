//! Containers on copies of their images.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use tepui_agent::containerizer::{Found, PrepareError};
use tepui_agent::flags::ImageBackend;
use tepui_api::v1::{CommandInfo, Volume, volume};

use super::layout;
use super::support::{Context, on_image, stderr, stdout, until};

fn image(context: &Context) -> PathBuf {
    layout::busybox(&context.dir.join("image"), &json!({ "Env": ["PATH=/bin", "FROM_IMAGE=yes"] }))
}

/// One with so many small files that a copy of it is seen while it is made.
fn many_files(context: &Context) -> PathBuf {
    let many = context.dir.join("image/tree/many");
    fs::create_dir_all(&many).unwrap();
    for number in 0..20_000 {
        fs::write(many.join(number.to_string()), "x").unwrap();
    }
    image(context)
}

fn copies(context: &Context) -> Vec<PathBuf> {
    let all = fs::read_dir(context.dir.join("work/provisioner")).unwrap();
    all.map(|entry| entry.unwrap().path()).collect()
}

pub fn a_copy_is_a_root_of_its_own(context: &Context) {
    let image = image(context);
    context.run(async {
        let host = context.host_with_backend(ImageBackend::Copy);
        let line = "echo $FROM_IMAGE; ls / | busybox tr '\\n' ' '; echo; test -e /mine && echo shared; \
                    echo mine > /mine; busybox rm /etc/group; test -c /dev/null && test -d /dev/shm && echo dev; \
                    cat /etc/hosts > /dev/null && echo hosts; (echo x > /etc/hosts) 2>/dev/null || echo safe";
        let seen = "yes\nbin dev etc mnt proc srv sys tmp \ndev\nhosts\nsafe\n";
        // The second one sees nothing of what the first has written.
        let configs = ["first", "second"].map(|id| {
            let mut config = context.shell(id, &format!("{line}; exec sleep 600"));
            config.container = Some(on_image(image.to_str().unwrap()));
            config
        });
        for config in &configs {
            host.start(config).await;
            until("all is said", || stdout(config) == seen).await;
            let copy = context.dir.join("work/provisioner").join(&config.container_id.value).join("rootfs");
            assert_eq!(fs::read_to_string(copy.join("mine")).unwrap(), "mine\n");
            assert!(!copy.join("etc/group").exists());
        }
        // Inside, users are those of the image, whatever the container has made of its files.
        let id = &configs[0].container_id;
        let look = CommandInfo {
            value: Some("cat /mine; id -G".to_owned()),
            user: Some("imaginary".to_owned()),
            ..CommandInfo::default()
        };
        assert_eq!(host.containerizer.run_inside(id, &look, None).await, Ok(0), "{}", stderr(&configs[0]));
        assert_eq!(stdout(&configs[0]), format!("{seen}mine\n4343 4444\n"));
        for config in &configs {
            host.containerizer.destroy(&config.container_id).await.unwrap();
            host.exit().await;
        }
        assert_eq!(copies(context), Vec::<PathBuf>::new());
    });
}

pub fn images_as_volumes_are_copied(context: &Context) {
    let image = image(context);
    context.run(async {
        let host = context.host_with_backend(ImageBackend::Copy);
        let name = image.to_str().unwrap();
        let of_image = |path: &str, mode: volume::Mode| Volume {
            mode: mode.into(),
            container_path: path.to_owned(),
            image: on_image(name).mesos.unwrap().image,
            ..Volume::default()
        };
        let line = "cat tools/etc/group | head -n 1; (echo x > tools/new) 2>/dev/null || echo read-only; echo x > own/new; ls own/new";
        for round in 0..2 {
            let mut config = context.shell(&format!("volumes{round}"), line);
            let mut container = on_image(name);
            // Once on an image, and once on the host's root.
            container.mesos = container.mesos.filter(|_| round == 0);
            container.volumes = vec![of_image("tools", volume::Mode::Ro), of_image("own", volume::Mode::Rw)];
            if round == 0 {
                config.command.value = Some(line.replace("| head", "| busybox head"));
            }
            config.container = Some(container);
            assert_eq!(host.run(&config).await.status, Some(0), "{}", stderr(&config));
            assert_eq!(stdout(&config), "root:x:0:\nread-only\nown/new\n");
        }
    });
}

pub fn a_container_on_a_copy_outlives_the_agent(context: &Context) {
    let image = image(context);
    context.run(async {
        let host = context.host_with_backend(ImageBackend::Copy);
        let mut staying =
            context.shell("staying", "echo ready; while ! test -e /stop; do sleep 0.01; done; exit 5");
        let mut prepared = context.shell("prepared", "true");
        let mut unknown = context.shell("unknown", "true");
        for config in [&mut staying, &mut prepared, &mut unknown] {
            config.container = Some(on_image(image.to_str().unwrap()));
        }
        let pid = host.start(&staying).await;
        host.containerizer.prepare(prepared.clone()).await.unwrap();
        host.containerizer.prepare(unknown.clone()).await.unwrap();
        assert_eq!(copies(context).len(), 3);
        drop(host);
        // The next one stacks layers; those that are there go on as they are.
        let host = context.host();
        let found = host.containerizer.recover(vec![staying.clone(), prepared.clone()]).await.unwrap();
        assert_eq!(found[&staying.container_id], Found::Running { pid });
        assert_eq!(found[&prepared.container_id], Found::Nothing);
        assert_eq!(copies(context).len(), 2, "that of one that nobody knows is removed");
        let stop = CommandInfo { value: Some("touch /stop".to_owned()), ..CommandInfo::default() };
        assert_eq!(host.containerizer.run_inside(&staying.container_id, &stop, None).await, Ok(0));
        assert_eq!(host.exit().await.status, Some(5 << 8));
        for config in [&staying, &prepared] {
            host.containerizer.destroy(&config.container_id).await.unwrap();
        }
    });
}

pub fn a_copy_that_is_not_wanted_any_more_ends(context: &Context) {
    let image = many_files(context);
    context.run(async {
        let host = context.host_with_backend(ImageBackend::Copy);
        let mut config = context.shell("unwanted", "true");
        config.container = Some(on_image(image.to_str().unwrap()));
        let many = context.dir.join("work/provisioner/unwanted/rootfs/many");
        let begun = || fs::read_dir(&many).is_ok_and(|mut files| files.next().is_some());
        let (prepared, ()) = tokio::join!(host.containerizer.prepare(config.clone()), async {
            until("it has begun", begun).await;
            host.containerizer.destroy(&config.container_id).await.unwrap();
        });
        assert!(matches!(prepared, Err(PrepareError::Cancelled)), "{prepared:?}");
        assert_eq!(copies(context), Vec::<PathBuf>::new());
        // Nobody waits for it, and nobody says so.
        let preparing = host.containerizer.prepare(config.clone());
        tokio::select! {
            prepared = preparing => panic!("{prepared:?}"),
            () = until("it has begun again", begun) => {}
        }
        let count = || fs::read_dir(&many).unwrap().count();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let copied = count();
        assert!(copied < 20_000, "{copied}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(count(), copied, "nothing is copied any more");
        host.containerizer.destroy(&config.container_id).await.unwrap();
        // The same, and it is removed at once.
        for _ in 0..5 {
            let preparing = host.containerizer.prepare(config.clone());
            tokio::select! {
                prepared = preparing => panic!("{prepared:?}"),
                () = until("it has begun again", begun) => {}
            }
            host.containerizer.destroy(&config.container_id).await.unwrap();
            assert_eq!(copies(context), Vec::<PathBuf>::new());
        }
    });
}

pub fn a_full_disk_is_told_and_nothing_is_left(context: &Context) {
    let image = image(context);
    context.run(async {
        let host = context.host_with_backend(ImageBackend::Copy);
        let place = context.dir.join("work/provisioner");
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=100k")).unwrap();
        let mut config = context.shell("large", "true");
        config.container = Some(on_image(image.to_str().unwrap()));
        let error = host.containerizer.prepare(config.clone()).await.unwrap_err();
        let destroyed = host.containerizer.destroy(&config.container_id).await;
        let left = copies(context);
        umount2(&place, MntFlags::MNT_DETACH).unwrap();
        destroyed.unwrap();
        let (told, place) = (error.to_string(), place.display());
        assert!(
            told.starts_with(&format!(
                "the image cannot be copied to {place}/large/rootfs: cannot copy 'bin/busybox'"
            )),
            "{told}"
        );
        assert!(told.ends_with("No space left on device (os error 28)"), "{told}");
        assert_eq!(left, Vec::<PathBuf>::new());
    });
}

pub fn without_a_word_overlays_are_used_where_they_work(context: &Context) {
    let image = image(context);
    context.run(async {
        let mut config = context.shell("default", "true");
        config.container = Some(on_image(image.to_str().unwrap()));
        let host = context.host();
        host.start(&config).await;
        assert!(context.dir.join("work/containers/default/upper").is_dir());
        assert_eq!(copies(context), Vec::<PathBuf>::new());
        assert!(!Path::new(&context.dir).join("work/containers/.trial").exists());
        host.exit().await;
        host.containerizer.destroy(&config.container_id).await.unwrap();
        drop(host);

        // An upper layer cannot be in an overlay.
        let work = context.dir.join("work");
        let parts = ["lower", "upper", "work"].map(|name| context.dir.join("below").join(name));
        parts.iter().for_each(|part| fs::create_dir_all(part).unwrap());
        let [lower, upper, scratch] = parts.each_ref().map(|part| part.display());
        let options = format!("lowerdir={lower},upperdir={upper},workdir={scratch}");
        mount(Some("overlay"), &work, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        let refused = context.try_host_with_backend(Some(ImageBackend::Overlay));
        let host = context.try_host_with_backend(None).unwrap();
        let ran = host.run(&config).await;
        host.start(&config).await;
        let copied = copies(context);
        host.exit().await;
        host.containerizer.destroy(&config.container_id).await.unwrap();
        umount2(&work, MntFlags::MNT_DETACH).unwrap();
        let refused = refused.map(drop).unwrap_err().to_string();
        assert!(refused.contains("use --image_provisioner_backend=copy"), "{refused}");
        assert_eq!(ran.status, Some(0), "{}", stderr(&config));
        assert_eq!(copied, [work.join("provisioner/default")]);
    });
}
