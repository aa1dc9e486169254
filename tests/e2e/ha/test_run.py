"""`tepui run` finds the leader by ZooKeeper."""

import signal


def test_a_command_runs_where_the_leader_is_and_outlives_it(three):
    three.start_agent()
    done = three.run("sh", "-c", "echo hello; exit 7", coordinator=three.url)
    assert (done.returncode, done.stdout) == (7, "hello\n"), done
    run = three.start_run(three.run_command("sh", "-c", "echo begun; sleep 12; exit 5", coordinator=three.url))
    assert run.stdout.readline() == "begun\n"
    three.coordinators[three.wait_leading()].process.send_signal(signal.SIGKILL)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 5, err


def test_a_wrong_url_is_told_without_its_password(bare):
    done = bare.run("true", coordinator="zk://user:hidden@h:2181")
    assert done.returncode == 125 and "needs a path" in done.stderr, done
    assert "hidden" not in done.stderr
