//! Commands that run in a container beside its own.

use std::time::Duration;

use serde_json::json;
use tepui_api::v1::{CommandInfo, ContainerId, Environment, environment::Variable};
use tepui_shim::SignalScope;

use super::layout;
use super::support::{Context, cgroup_file, on_image, stderr, stdout, until};

fn shell(line: &str) -> CommandInfo {
    CommandInfo { value: Some(line.to_owned()), ..CommandInfo::default() }
}

fn with_variable(command: CommandInfo, name: &str, value: &str) -> CommandInfo {
    let variable = Variable { name: name.to_owned(), value: Some(value.to_owned()), ..Variable::default() };
    CommandInfo { environment: Some(Environment { variables: vec![variable] }), ..command }
}

pub fn commands_run_inside(context: &Context) {
    context.run(async {
        let host = context.host();
        let mut config = context.shell("home", "echo mine > /tmp/mine; echo ready; exec sleep 600");
        config.command = with_variable(config.command, "OF_TASK", "task");
        host.start(&config).await;
        until("it is ready", || stdout(&config) == "ready\n").await;
        let id = &config.container_id;
        let inside = &host.containerizer;
        let run = |command: CommandInfo| async move { inside.run_inside(id, &command, None).await };
        let look = "cat /tmp/mine; echo $OF_TASK $OWN; pwd; echo problem >&2; exit 9";
        assert_eq!(run(with_variable(shell(look), "OWN", "own")).await, Ok(9 << 8), "{}", stderr(&config));
        assert_eq!(stdout(&config), format!("ready\nmine\ntask own\n{}\n", config.sandbox.display()));
        assert_eq!(stderr(&config), "problem\n");
        let nobody = CommandInfo { user: Some("nobody".to_owned()), ..shell("test $(id -un) = nobody") };
        assert_eq!(run(nobody).await, Ok(0));
        let plain = CommandInfo {
            shell: Some(false),
            value: Some("sh".to_owned()),
            arguments: ["sh", "-c", "exit 4"].map(str::to_owned).to_vec(),
            ..CommandInfo::default()
        };
        assert_eq!(run(plain).await, Ok(4 << 8));
        assert!(run(shell("")).await.unwrap_err().contains("empty"));
        let stranger = CommandInfo { user: Some("no-such-user".to_owned()), ..shell("true") };
        assert!(run(stranger).await.unwrap_err().contains("no-such-user"));
        let nobody_there = ContainerId::new("other");
        assert!(host.containerizer.run_inside(&nobody_there, &shell("true"), None).await.is_err());
        // In its cgroups, and many at once.
        let procs = cgroup_file(context, "home", &["cgroup.procs"]).lines().count();
        let all = (0..10).map(|n| run(shell(&format!("sleep 0.2; exit {n}"))));
        let counting = async {
            until("they are in the container's cgroup", || {
                cgroup_file(context, "home", &["cgroup.procs"]).lines().count() >= procs + 10
            })
            .await;
        };
        let (ends, ()) = tokio::join!(futures_util::future::join_all(all), counting);
        assert_eq!(ends, (0..10).map(|n| Ok(n << 8)).collect::<Vec<_>>());
        host.containerizer.destroy(id).await.unwrap();
        assert_eq!(host.exit().await.status, Some(libc::SIGKILL));
    });
}

pub fn commands_run_inside_an_image(context: &Context) {
    let image =
        layout::busybox(&context.dir.join("image"), &json!({ "Env": ["PATH=/bin", "FROM_IMAGE=yes"] }));
    context.run(async {
        let host = context.host();
        let mut config = context.shell("image", "echo ready; exec sleep 600");
        config.container = Some(on_image(image.to_str().unwrap()));
        host.start(&config).await;
        until("it is ready", || stdout(&config) == "ready\n").await;
        let look = shell("echo $FROM_IMAGE; pwd; ls / | busybox tr '\\n' ' '");
        assert_eq!(host.containerizer.run_inside(&config.container_id, &look, None).await, Ok(0));
        let seen = "bin dev etc mnt proc srv sys tmp ";
        assert_eq!(stdout(&config), format!("ready\nyes\n/mnt/mesos/sandbox\n{seen}"));
        // A user that only the image knows.
        let imaginary = CommandInfo { user: Some("imaginary".to_owned()), ..shell("/bin/id -u; /bin/id -G") };
        assert_eq!(host.containerizer.run_inside(&config.container_id, &imaginary, None).await, Ok(0));
        assert!(stdout(&config).ends_with("4242\n4343 4444\n"), "{}", stdout(&config));
        host.containerizer.destroy(&config.container_id).await.unwrap();
    });
}

pub fn a_command_inside_that_takes_too_long_is_killed_with_all_it_has_left(context: &Context) {
    context.run(async {
        // With cgroups of its own, and without.
        for isolation in [&["cgroups/cpu"][..], &[]] {
            let host = context.host_with(isolation);
            let config = context.shell("slow", "exec sleep 600");
            host.start(&config).await;
            let line = "(setsid sh -c 'while :; do echo >> mark; sleep 0.01; done' &); setsid sleep 600 & trap '' TERM; sleep 600";
            let timeout = Some(Duration::from_millis(300));
            let ended = host.containerizer.run_inside(&config.container_id, &shell(line), timeout).await;
            assert!(ended.unwrap_err().contains("did not end within 300ms"));
            let mark = || std::fs::metadata(config.sandbox.join("mark")).unwrap().len();
            let length = mark();
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(mark(), length, "the grandchildren are gone");
            // One that nobody waits for any more.
            let sandbox = config.sandbox.clone();
            {
                let begun = || sandbox.join("begun").exists();
                let busy = shell("echo > begun; while :; do echo >> mark; sleep 0.01; done");
                let waiting = host.containerizer.run_inside(&config.container_id, &busy, None);
                tokio::select! {
                    ended = waiting => panic!("{ended:?}"),
                    () = until("it has begun", begun) => {}
                }
            }
            std::fs::remove_file(sandbox.join("begun")).unwrap();
            let mut last = mark();
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let now = mark();
                if now == last {
                    break;
                }
                last = now;
            }
            // And one whose container ends.
            let command = shell("sleep 600");
            let waiting = host.containerizer.run_inside(&config.container_id, &command, None);
            let end = async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                host.containerizer.signal(&config.container_id, libc::SIGKILL, SignalScope::All).await.unwrap();
            };
            let (ended, ()) = tokio::join!(waiting, end);
            assert!(matches!(ended, Err(_) | Ok(libc::SIGKILL)), "{ended:?}");
            assert_eq!(host.exit().await.status, Some(libc::SIGKILL));
            host.containerizer.destroy(&config.container_id).await.unwrap();
            std::fs::remove_dir_all(&config.sandbox).unwrap();
        }
    });
}
