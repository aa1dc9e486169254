//! Controllers that a container gets while it is prepared.

use tepui_isolators::cgroups::{Controller, Hierarchies, files};

use crate::support::{Host, run, wait_for};

#[tokio::test]
async fn a_container_gets_a_controller_that_no_isolator_drives() {
    for controller in [Controller::Cpuset, Controller::Blkio, Controller::Pids] {
        if Hierarchies::detect().unwrap().with(controller).is_none() {
            eprintln!("skipped: this host has no controller {controller:?}");
            continue;
        }
        let host = Host::new(&["cgroups/cpu"], |_| {});
        let (with, without) = (host.context("with", "cpus:1", &[]), host.context("without", "cpus:1", &[]));
        let mut contribution = host.prepare(&with).await;
        let other = host.prepare(&without).await;
        let (id, cgroups) = (&with.container_id, host.cgroups());
        let joined = cgroups.join(id, controller, &mut contribution).unwrap();
        let files = contribution.cgroup_procs.len();
        assert_eq!(cgroups.join(id, controller, &mut contribution).unwrap(), joined);
        assert_eq!(contribution.cgroup_procs.len(), files, "a second time adds nothing");
        assert_eq!(cgroups.dir(id, controller).unwrap(), (joined.dir.clone(), joined.version));
        if controller == Controller::Cpuset {
            let own = files::read(&joined.dir.join("cpuset.cpus")).unwrap();
            let effective = files::read_if_there(&joined.dir.join("cpuset.cpus.effective")).unwrap();
            assert!(!own.trim().is_empty() || effective.is_some_and(|cores| !cores.trim().is_empty()));
            files::write(&joined.dir.join("cpuset.cpus"), 0).unwrap();
        }

        let process = run(&contribution, "exec sleep 1000");
        let another = run(&other, "exec sleep 1000");
        let is_in = |pid: u32| {
            let dirs = [joined.dir.clone(), joined.dir.join("leaf")];
            let texts =
                dirs.iter().filter_map(|dir| files::read_if_there(&dir.join("cgroup.procs")).unwrap());
            texts
                .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
                .any(|one| one == pid.to_string())
        };
        wait_for("the process to be there", || is_in(process.0.id()).then_some(()));
        // One that comes later would find its cgroup being removed, and keep it.
        wait_for("the other to be in its own", || {
            let text = std::fs::read_to_string(other.cgroup_procs.last().unwrap()).unwrap();
            text.lines().any(|pid| pid == another.0.id().to_string()).then_some(())
        });
        assert!(!is_in(another.0.id()), "a container without it is elsewhere");
        if controller == Controller::Cpuset {
            let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
            assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
        }
        assert!(
            cgroups.dirs(id).iter().any(|(name, dir)| *name == controller.v1_name() && *dir == joined.dir)
        );
        host.cleanup(id).await;
        host.cleanup(&without.container_id).await;
        assert!(host.root.left().is_empty(), "{:?}", host.root.left());
    }
}
