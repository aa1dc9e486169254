//! The native containerizer, from what a task asks for to the last leftover. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod copies;
#[path = "../../shim/tests/support/harness.rs"]
mod harness;
mod inside;
mod layout;
mod nested;
mod support;
mod update;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use copies::{
    a_container_on_a_copy_outlives_the_agent, a_copy_is_a_root_of_its_own,
    a_copy_that_is_not_wanted_any_more_ends, a_full_disk_is_told_and_nothing_is_left,
    images_as_volumes_are_copied, without_a_word_overlays_are_used_where_they_work,
};
use inside::{
    a_command_inside_that_takes_too_long_is_killed_with_all_it_has_left, commands_run_inside,
    commands_run_inside_an_image,
};
use nested::{
    a_nested_container_needs_its_parent, a_nested_containers_memory_is_its_own, a_tree_outlives_the_agent,
    nested_containers_share_what_mesos_has_them_share,
};
use serde_json::json;
use support::{Context, cgroup_file, exists, on_image, scalar, stderr, stdout, until};
use tepui_agent::containerizer::{Found, PrepareError, StartError};
use tepui_api::v1::task_status::Reason;
use tepui_api::v1::{CommandInfo, ContainerId, Environment, Volume, environment::Variable, volume};
use tepui_isolators::{Answer, Custom, Isolator, IsolatorError, done};
use tepui_shim::SignalScope;
use update::{
    an_isolator_that_fails_leaves_the_former_resources_in_force, an_update_survives_the_agent,
    an_update_that_was_begun_is_finished_by_the_next_agent, limits_beyond_the_requests_are_set_and_lifted,
    limits_change_under_a_busy_process_without_a_pause,
};

fn main() -> ExitCode {
    let tests: &[harness::Test<Context>] = tests![
        output_and_status,
        the_programs_end_is_told_as_it_was,
        arguments_are_passed_as_given,
        a_missing_program_exits_with_1,
        the_environment_is_complete,
        users_are_switched_to,
        unknown_users_are_refused,
        what_is_not_implemented_is_refused,
        the_whole_tree_ends_with_a_kill,
        a_destroyed_container_leaves_nothing,
        too_much_memory_is_told_with_its_reason,
        cgroups_have_what_was_asked_for,
        usage_and_status_are_told,
        resources_can_change,
        limits_change_under_a_busy_process_without_a_pause,
        limits_beyond_the_requests_are_set_and_lifted,
        an_update_survives_the_agent,
        an_update_that_was_begun_is_finished_by_the_next_agent,
        an_isolator_that_fails_leaves_the_former_resources_in_force,
        a_start_that_failed_has_no_end,
        tmp_is_private,
        an_image_is_the_root,
        an_image_brings_its_user,
        an_image_that_is_not_there_is_refused,
        a_copy_is_a_root_of_its_own,
        images_as_volumes_are_copied,
        a_container_on_a_copy_outlives_the_agent,
        a_copy_that_is_not_wanted_any_more_ends,
        a_full_disk_is_told_and_nothing_is_left,
        without_a_word_overlays_are_used_where_they_work,
        a_container_that_cannot_be_made_is_told,
        without_isolators_it_works_too,
        the_agent_may_go_and_come_back,
        unknown_containers_are_removed,
        the_shims_death_is_told,
        many_at_once,
        nested_containers_share_what_mesos_has_them_share,
        a_nested_containers_memory_is_its_own,
        a_nested_container_needs_its_parent,
        a_tree_outlives_the_agent,
        commands_run_inside,
        commands_run_inside_an_image,
        a_command_inside_that_takes_too_long_is_killed_with_all_it_has_left,
    ];
    harness::run(tests, Context::new, Context::leftovers)
}

fn output_and_status(context: &Context) {
    context.run(async {
        let host = context.host();
        let config = context.shell("hello", "echo hello; echo problem >&2; pwd; exit 7");
        let exited = host.run(&config).await;
        assert_eq!((exited.status, exited.limitation), (Some(7 << 8), None));
        assert_eq!(stdout(&config), format!("hello\n{}\n", config.sandbox.display()));
        assert_eq!(stderr(&config), "problem\n");
        host.no_exit();
    });
}

/// Says no once the container is there.
struct Refusing;

impl Isolator for Refusing {
    fn name(&self) -> &str {
        "refusing"
    }

    fn isolate<'a>(&'a self, _: &'a ContainerId, _: u32) -> Answer<'a> {
        done(Err(IsolatorError::Failed("not today".to_owned())))
    }
}

fn a_start_that_failed_has_no_end(context: &Context) {
    context.run(async {
        let refusing = Custom::always("refusing", |_| Ok(Arc::new(Refusing) as Arc<dyn Isolator>));
        let host = context.host_with_own(&["filesystem/linux"], vec![refusing]);
        let config = context.shell("refused", "true");
        host.containerizer.prepare(config.clone()).await.unwrap();
        let error = host.containerizer.start(&config.container_id).await.unwrap_err();
        assert_eq!(error.to_string(), "isolator 'refusing' failed: not today");
        host.containerizer.destroy(&config.container_id).await.unwrap();
        host.no_exit();
    });
}

fn the_programs_end_is_told_as_it_was(context: &Context) {
    context.run(async {
        let host = context.host();
        for (index, (line, status)) in
            [("true", 0), ("exit 255", 255 << 8), ("kill -9 $$", 9), ("kill -TERM $$", 15)]
                .into_iter()
                .enumerate()
        {
            let exited = host.run(&context.shell(&format!("end{index}"), line)).await;
            assert_eq!((exited.status, exited.limitation), (Some(status), None), "{line}");
        }
    });
}

fn arguments_are_passed_as_given(context: &Context) {
    context.run(async {
        let host = context.host();
        let mut config = context.shell("argv", "sh");
        config.command.shell = Some(false);
        config.command.arguments = ["zero", "-c", "echo \"$0|$1|$2\"", "a b", ""].map(str::to_owned).to_vec();
        assert_eq!(host.run(&config).await.status, Some(0));
        assert_eq!(stdout(&config), "a b||\n");
    });
}

fn a_missing_program_exits_with_1(context: &Context) {
    context.run(async {
        let host = context.host();
        let mut config = context.shell("missing", "/no/such/program");
        config.command.shell = Some(false);
        assert_eq!(host.run(&config).await.status, Some(1 << 8));
        assert!(stderr(&config).contains("/no/such/program"), "{}", stderr(&config));
    });
}

fn the_environment_is_complete(context: &Context) {
    context.run(async {
        let host = context.host();
        let mut config = context.shell("environment", "env");
        let own = Variable { name: "OWN".into(), value: Some("a=b c".into()), ..Variable::default() };
        config.command.environment = Some(Environment { variables: vec![own] });
        assert_eq!(host.run(&config).await.status, Some(0));
        let mut lines: Vec<_> = stdout(&config).lines().map(str::to_owned).collect();
        lines.sort();
        let expected = [
            "OWN=a=b c".to_owned(),
            "PATH=/usr/bin:/bin".to_owned(),
            format!("PWD={}", config.sandbox.display()),
            format!("SCRATCH={}", context.dir.display()),
        ];
        assert_eq!(lines, expected);
    });
}

fn users_are_switched_to(context: &Context) {
    context.run(async {
        let host = context.host();
        let mut config = context.shell("nobody", "id -u; touch mine; id -G; grep CapEff /proc/self/status");
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        nix::unistd::chown(&config.sandbox, Some(nobody.uid), Some(nobody.gid)).unwrap();
        for name in ["stdout", "stderr"] {
            fs::remove_file(config.sandbox.join(name)).unwrap();
        }
        config.user = Some("nobody".to_owned());
        assert_eq!(host.run(&config).await.status, Some(0), "{}", stderr(&config));
        let expected = format!("{}\n{}\nCapEff:\t0000000000000000\n", nobody.uid, nobody.gid);
        assert_eq!(stdout(&config), expected);
        for name in ["mine", "stdout", "stderr"] {
            assert_eq!(config.sandbox.join(name).metadata().unwrap().uid(), nobody.uid.as_raw(), "{name}");
        }

        let mut config = context.shell(
            "root",
            "grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; grep 'open files' /proc/self/limits",
        );
        config.user = Some("root".to_owned());
        assert_eq!(host.run(&config).await.status, Some(0));
        let ours = fs::read_to_string("/proc/self/status").unwrap()
            + &fs::read_to_string("/proc/self/limits").unwrap();
        for line in stdout(&config).lines() {
            assert!(ours.lines().any(|own| own == line), "{line} is not what the agent has");
        }
        assert_eq!(stdout(&config).lines().count(), 4);
    });
}

fn unknown_users_are_refused(context: &Context) {
    context.run(async {
        let host = context.host();
        let mut config = context.shell("nosuch", "true");
        config.user = Some("no-such-user-here".to_owned());
        let error = host.containerizer.prepare(config.clone()).await.unwrap_err();
        assert!(matches!(&error, PrepareError::NoUser(user) if user == "no-such-user-here"), "{error}");
        let error = host.containerizer.start(&config.container_id).await.unwrap_err();
        assert!(matches!(error, StartError::Unknown(_)), "{error}");
        host.containerizer.destroy(&config.container_id).await.unwrap();
        host.no_exit();
    });
}

fn what_is_not_implemented_is_refused(context: &Context) {
    context.run(async {
        let host = context.host();
        let mut config = context.shell("volume", "true");
        let mut container = on_image("/nowhere");
        let source = volume::Source {
            r#type: Some(volume::source::Type::CsiVolume.into()),
            ..volume::Source::default()
        };
        container.volumes = vec![Volume { source: Some(source), ..Volume::default() }];
        config.container = Some(container);
        let error = host.containerizer.prepare(config.clone()).await.unwrap_err();
        assert!(
            error.to_string().contains("volume") && error.to_string().contains("not implemented"),
            "{error}"
        );
        host.containerizer.destroy(&config.container_id).await.unwrap();
    });
}

/// The check for leftovers after each test finds what `$SCRATCH` marks.
fn the_whole_tree_ends_with_a_kill(context: &Context) {
    context.run(async {
        let host = context.host();
        let line =
            "(setsid sleep 600 &) ; sleep 600 & trap '' TERM; echo ready; while :; do sleep 0.01; done";
        let config = context.shell("tree", line);
        let pid = host.start(&config).await;
        until("it is ready", || stdout(&config) == "ready\n").await;
        host.containerizer.signal(&config.container_id, libc::SIGTERM, SignalScope::All).await.unwrap();
        assert!(exists(pid));
        host.containerizer.signal(&config.container_id, libc::SIGKILL, SignalScope::All).await.unwrap();
        assert_eq!(host.exit().await.status, Some(9));
        assert!(!exists(pid));
        assert!(
            host.containerizer.signal(&config.container_id, libc::SIGTERM, SignalScope::All).await.is_err()
        );
        host.containerizer.destroy(&config.container_id).await.unwrap();

        // A program that ends leaves nobody either.
        let config = context.shell("daemon", "(setsid sleep 600 &) ; sleep 600 & echo bye");
        assert_eq!(host.run(&config).await.status, Some(0));
    });
}

fn a_destroyed_container_leaves_nothing(context: &Context) {
    context.run(async {
        let host = context.host();
        let id = |id: &str| ContainerId::new(id);
        // Not there, prepared, running.
        host.containerizer.destroy(&id("never")).await.unwrap();
        host.containerizer.prepare(context.shell("prepared", "true")).await.unwrap();
        host.containerizer.destroy(&id("prepared")).await.unwrap();
        let config = context.shell("running", "(setsid sleep 600 &) ; echo x > /tmp/x; sleep 600");
        let pid = host.start(&config).await;
        host.containerizer.destroy(&id("running")).await.unwrap();
        assert!(!exists(pid));
        assert_eq!(host.exit().await.status, Some(9));
        // In the middle of its start.
        for n in 0..10 {
            let config = context.shell(&format!("start{n}"), "sleep 600");
            host.containerizer.prepare(config.clone()).await.unwrap();
            let start = host.containerizer.start(&config.container_id);
            let destroy = async {
                tokio::time::sleep(std::time::Duration::from_millis(n)).await;
                host.containerizer.destroy(&config.container_id).await
            };
            let (_, destroyed) = tokio::join!(start, destroy);
            destroyed.unwrap();
        }
        // Twice at once.
        let config = context.shell("twice", "sleep 600");
        host.start(&config).await;
        let (one, other) = tokio::join!(
            host.containerizer.destroy(&config.container_id),
            host.containerizer.destroy(&config.container_id)
        );
        one.unwrap();
        other.unwrap();
        assert!(config.sandbox.join("stdout").exists(), "sandboxes stay");
    });
}

fn too_much_memory_is_told_with_its_reason(context: &Context) {
    context.run(async {
        let host = context.host();
        let mut config =
            context.shell("hungry", "head -c 200m /dev/zero | tail -c 190m > /dev/null; sleep 600");
        config.resources = vec![scalar("cpus", 0.5), scalar("mem", 48.0)];
        let exited = host.run(&config).await;
        let limitation = exited.limitation.expect("a limitation");
        assert_eq!(limitation.reason, Reason::ContainerLimitationMemory);
        assert!(limitation.message.contains("48"), "{}", limitation.message);
        host.no_exit();
    });
}

fn cgroups_have_what_was_asked_for(context: &Context) {
    context.run(async {
        let host = context.host();
        let config = context.shell("figures", "cat /proc/self/cgroup; sleep 600");
        host.start(&config).await;
        until("it says where it is", || stdout(&config).ends_with('\n')).await;
        let v1 = Path::new("/sys/fs/cgroup/cpu").exists();
        if v1 {
            assert_eq!(cgroup_file(context, "figures", &["cpu.shares"]), "512");
            assert_eq!(cgroup_file(context, "figures", &["cpu.cfs_quota_us"]), "50000");
            assert_eq!(cgroup_file(context, "figures", &["cpu.cfs_period_us"]), "100000");
            assert_eq!(cgroup_file(context, "figures", &["memory.limit_in_bytes"]), (64 << 20).to_string());
            for controller in ["cpu", "memory"] {
                let place = format!(":/{}/figures", context.cgroups_root);
                let text = stdout(&config);
                let line = text.lines().find(|line| line.split(':').nth(1) == Some(controller));
                assert!(line.is_some_and(|line| line.ends_with(&place)), "{controller}: {text}");
            }
        } else {
            assert_eq!(cgroup_file(context, "figures", &["cpu.max"]), "50000 100000");
            assert_eq!(cgroup_file(context, "figures", &["memory.max"]), (64 << 20).to_string());
        }
        host.containerizer.destroy(&config.container_id).await.unwrap();
    });
}

fn usage_and_status_are_told(context: &Context) {
    context.run(async {
        let host = context.host();
        let config = context.shell("used", "sleep 600");
        let pid = host.start(&config).await;
        let usage = host.containerizer.usage(&config.container_id).await.unwrap();
        assert_eq!((usage.cpus_limit, usage.mem_limit_bytes), (Some(0.5), Some(64 << 20)));
        assert!(usage.timestamp > 1e9 && usage.mem_rss_bytes.is_some());
        let status = host.containerizer.status(&config.container_id).await.unwrap();
        assert_eq!(status.container_id, Some(config.container_id.clone()));
        assert_eq!(status.executor_pid, Some(pid));
        host.containerizer.destroy(&config.container_id).await.unwrap();
        assert!(host.containerizer.usage(&config.container_id).await.is_err());
        assert!(host.containerizer.status(&config.container_id).await.is_err());
    });
}

fn resources_can_change(context: &Context) {
    context.run(async {
        let host = context.host();
        let config = context.shell("changed", "sleep 600");
        host.start(&config).await;
        let more = [scalar("cpus", 2.0), scalar("mem", 128.0)];
        host.containerizer.update(&config.container_id, &more, &config.limits).await.unwrap();
        let cpu = cgroup_file(context, "changed", &["cpu.shares", "cpu.max"]);
        assert!(cpu == "2048" || cpu == "200000 100000", "{cpu}");
        host.containerizer.destroy(&config.container_id).await.unwrap();
    });
}

/// The sandboxes of these tests are beneath `/tmp` themselves.
fn tmp_is_private(context: &Context) {
    context.run(async {
        let host = context.host();
        assert!(context.dir.starts_with("/tmp"));
        let marker = format!("tepui-test-marker-{}", std::process::id());
        let line = format!("echo x > /tmp/{marker} && echo y > here && stat -c %a /tmp && ls /tmp && ls /proc/1/exe > /dev/null; cat /proc/1/comm");
        let config = context.shell("tmp", &line);
        assert_eq!(host.run(&config).await.status, Some(0), "{}", stderr(&config));
        assert_eq!(stdout(&config), format!("1777\n{marker}\ntepui-init\n"));
        assert_eq!(fs::read_to_string(config.sandbox.join("here")).unwrap(), "y\n");
        assert!(!Path::new("/tmp").join(&marker).exists());
    });
}

fn an_image_is_the_root(context: &Context) {
    let image = layout::busybox(
        &context.dir.join("image"),
        &json!({ "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "WorkingDir": "/srv", "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo default; pwd"] }),
    );
    context.run(async {
        let host = context.host();
        let name = image.to_str().unwrap();
        let line = "pwd; echo $FROM_IMAGE $PATH; ls / | tr '\\n' ' '; echo; echo out > /mnt/mesos/sandbox/file; \
                    cat /etc/hosts > /dev/null && echo hosts; (echo x > /etc/hosts) 2>/dev/null || echo safe; \
                    (touch /sys/x) 2>/dev/null || echo sys; (echo x > /proc/sys/kernel/domainname) 2>/dev/null || echo proc; test -s /proc/keys || echo keys; test -c /dev/pts/ptmx && test -d /dev/shm && echo dev; touch /new";
        // Its applets are not all linked.
        let line = line.replace("tr '", "busybox tr '");
        for round in 0..2 {
            let mut config = context.shell(&format!("line{round}"), &line);
            config.container = Some(on_image(name));
            let exited = host.run(&config).await;
            assert_eq!(exited.status, Some(0), "{}{}", stdout(&config), stderr(&config));
            let seen = "bin dev etc mnt proc srv sys tmp ";
            assert_eq!(stdout(&config), format!("/srv\nyes /bin\n{seen}\nhosts\nsafe\nsys\nproc\nkeys\ndev\n"), "round {round}");
            assert_eq!(fs::read_to_string(config.sandbox.join("file")).unwrap(), "out\n");
        }
        let mut config = context.shell("default", "");
        config.command = CommandInfo { shell: Some(false), ..CommandInfo::default() };
        config.container = Some(on_image(name));
        assert_eq!(host.run(&config).await.status, Some(0), "{}", stderr(&config));
        assert_eq!(stdout(&config), "default\n/srv\n");
        assert_eq!(host.containerizer.pulls().to_json(), json!([]));
    });
}

fn an_image_brings_its_user(context: &Context) {
    let image = layout::busybox(&context.dir.join("image"), &json!({}));
    context.run(async {
        let host = context.host();
        let mut config = context.shell("imaginary", "/bin/id -u; /bin/id -G");
        config.container = Some(on_image(image.to_str().unwrap()));
        config.user = Some("imaginary".to_owned());
        assert_eq!(host.run(&config).await.status, Some(0), "{}", stderr(&config));
        assert_eq!(stdout(&config), "4242\n4343 4444\n");
    });
}

fn an_image_that_is_not_there_is_refused(context: &Context) {
    context.run(async {
        let host = context.host();
        let mut config = context.shell("noimage", "true");
        config.container = Some(on_image("/no/such/image.tar"));
        let error = host.containerizer.prepare(config.clone()).await.unwrap_err();
        assert!(matches!(error, PrepareError::Image(_)), "{error}");
        host.containerizer.destroy(&config.container_id).await.unwrap();
        let mut config = context.shell("noname", "true");
        config.container = Some(on_image("Not A Name"));
        let error = host.containerizer.prepare(config.clone()).await.unwrap_err();
        assert!(matches!(error, PrepareError::ImageName(_)), "{error}");
        host.containerizer.destroy(&config.container_id).await.unwrap();
    });
}

fn a_container_that_cannot_be_made_is_told(context: &Context) {
    let image = layout::busybox(&context.dir.join("image"), &json!({ "WorkingDir": "/bin/busybox/x" }));
    context.run(async {
        let host = context.host();
        let mut config = context.shell("nowhere", "true");
        config.container = Some(on_image(image.to_str().unwrap()));
        host.containerizer.prepare(config.clone()).await.unwrap();
        let error = host.containerizer.start(&config.container_id).await.unwrap_err();
        assert!(
            matches!(&error, StartError::Failed { message, .. } if message.contains("/bin/busybox/x cannot be mounted on: Not a directory")),
            "{error}"
        );
        host.containerizer.destroy(&config.container_id).await.unwrap();
        host.no_exit();
    });
}

fn without_isolators_it_works_too(context: &Context) {
    context.run(async {
        let host = context.host_with(&["posix/cpu", "posix/mem"]);
        let config = context.shell("plain", "(setsid sleep 600 &) ; echo $$; exit 3");
        assert_eq!(host.run(&config).await.status, Some(3 << 8));
    });
}

fn the_agent_may_go_and_come_back(context: &Context) {
    context.run(async {
        let host = context.host();
        let staying = context.shell("staying", "while [ ! -e stop ]; do sleep 0.01; done; exit 5");
        let leaving = context.shell("leaving", "while [ ! -e stop ]; do sleep 0.01; done; exit 6");
        let mut hungry = context.shell(
            "hungry",
            "while [ ! -e stop ]; do sleep 0.01; done; head -c 200m /dev/zero | tail -c 190m",
        );
        hungry.resources = vec![scalar("cpus", 0.5), scalar("mem", 48.0)];
        let over = context.shell("over", "exit 4");
        let prepared = context.shell("prepared", "true");
        let pid = host.start(&staying).await;
        host.start(&leaving).await;
        host.start(&hungry).await;
        host.start(&over).await;
        host.containerizer.prepare(prepared.clone()).await.unwrap();
        assert_eq!(host.exit().await.container_id, over.container_id);
        drop(host);
        // While nobody looks.
        for config in [&leaving, &hungry] {
            fs::write(config.sandbox.join("stop"), "").unwrap();
            let runtime = context.dir.join("run/containers").join(&config.container_id.value);
            until("it has ended", || runtime.join("exit.json").exists()).await;
        }

        let host = context.host();
        let never = context.shell("never", "true");
        let known = [&staying, &leaving, &hungry, &over, &prepared, &never].map(Clone::clone);
        let found = host.containerizer.recover(known.to_vec()).await.unwrap();
        assert_eq!(found[&staying.container_id], Found::Running { pid });
        assert_eq!(found[&leaving.container_id], Found::Exited { status: Some(6 << 8), limitation: None });
        assert_eq!(found[&over.container_id], Found::Exited { status: Some(4 << 8), limitation: None });
        assert_eq!(found[&prepared.container_id], Found::Nothing);
        assert_eq!(found[&never.container_id], Found::Nothing);
        match &found[&hungry.container_id] {
            Found::Exited { limitation: Some(limitation), .. } => {
                assert_eq!(limitation.reason, Reason::ContainerLimitationMemory);
            }
            other => panic!("{other:?}"),
        }
        let usage = host.containerizer.usage(&staying.container_id).await.unwrap();
        assert_eq!(usage.mem_limit_bytes, Some(64 << 20));
        fs::write(staying.sandbox.join("stop"), "").unwrap();
        let exited = host.exit().await;
        assert_eq!((exited.container_id, exited.status), (staying.container_id.clone(), Some(5 << 8)));
        for config in &known {
            host.containerizer.destroy(&config.container_id).await.unwrap();
        }
        host.no_exit();
    });
}

fn unknown_containers_are_removed(context: &Context) {
    context.run(async {
        let host = context.host();
        let pid = host.start(&context.shell("unknown", "(setsid sleep 600 &) ; sleep 600")).await;
        host.containerizer.prepare(context.shell("prepared", "true")).await.unwrap();
        drop(host);
        let host = context.host();
        assert!(exists(pid));
        assert!(host.containerizer.recover(Vec::new()).await.unwrap().is_empty());
        assert!(!exists(pid));
        context.leftovers();
    });
}

fn the_shims_death_is_told(context: &Context) {
    context.run(async {
        let host = context.host();
        let config = context.shell("orphan", "(setsid sleep 600 &) ; echo ready; sleep 600");
        let init = host.start(&config).await;
        until("it is ready", || stdout(&config) == "ready\n").await;
        let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
        let shim =
            status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
        let exited = host.exit().await;
        assert_eq!((exited.container_id, exited.status), (config.container_id.clone(), None));
        host.containerizer.destroy(&config.container_id).await.unwrap();
    });
}

fn many_at_once(context: &Context) {
    context.run(async {
        let host = context.host();
        let configs: Vec<_> =
            (0..30).map(|n| context.shell(&format!("many{n}"), &format!("exit {n}"))).collect();
        futures_util::future::join_all(configs.iter().map(|config| host.start(config))).await;
        let mut ends = Vec::new();
        for _ in &configs {
            ends.push(host.exit().await);
        }
        for exited in &ends {
            let number: i32 = exited.container_id.value.trim_start_matches("many").parse().unwrap();
            assert_eq!(exited.status, Some(number << 8));
        }
        let destroyed = configs.iter().map(|config| host.containerizer.destroy(&config.container_id));
        futures_util::future::join_all(destroyed).await.into_iter().for_each(Result::unwrap);
        assert_eq!(fs::read_dir(context.dir.join("run/containers")).unwrap().count(), 0);
    });
}
