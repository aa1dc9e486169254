"""Who leads, what the others answer, and what stands in ZooKeeper."""

import json
import signal
import socket
import struct
import subprocess

from harness import wait, web
from harness.cluster import binary
from harness.zookeeper import Watcher

SUBSCRIBE = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "root", "name": "ha"}}}
REDIRECTED = [
    ("GET", "/state"),
    ("GET", "/master/state"),
    ("GET", "/state.json?jsonp=f"),
    ("GET", "/state-summary"),
    ("GET", "/slaves"),
    ("GET", "/frameworks"),
    ("GET", "/tasks?limit=3"),
    ("GET", "/roles"),
    ("POST", "/api/v1"),
    ("POST", "/api/v1/scheduler"),
    ("POST", "/master/api/v1/scheduler"),
]
BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
ANSWERED_BY_ALL = ["/health", "/master/health", "/version", "/flags", "/metrics/snapshot"]


def ask(address, method, path):
    body, headers = b"", {}
    if method == "POST":
        body, headers = json.dumps(SUBSCRIBE).encode(), {"Content-Type": web.JSON, "Accept": web.JSON}
    return web.request(address, method, path, body, headers)


def test_followers_show_the_way_to_the_leader(three):
    leader = three.coordinators[three.wait_leading()]
    followers = [daemon for daemon in three.coordinators.values() if daemon is not leader]
    assert len(followers) == 2
    for follower in followers:
        knows = lambda: web.get(follower.address, "/redirect").status == 307  # noqa: E731
        wait.until(knows, 10, "the follower knows who leads")
        for method, path in REDIRECTED:
            answer = ask(follower.address, method, path)
            assert answer.status == 307, (method, path, answer)
            assert answer.headers["location"] == f"//{leader.address}{path}"
        for path in ("/redirect", "/master/redirect"):
            assert web.get(follower.address, path).headers["location"] == f"//{leader.address}"
        for path in ANSWERED_BY_ALL:
            assert web.get(follower.address, path).status == 200, path
        page = web.get(follower.address, "/", headers=BROWSER)
        assert page.media == "text/html" and f'<a href="//{leader.address}/">{leader.address}</a> leads.' in page.text
        assert web.get(follower.address, "/metrics/snapshot").json()["master/elected"] == 0
    assert "It leads." in web.get(leader.address, "/", headers=BROWSER).text
    assert web.get(leader.address, "/redirect").headers["location"] == f"//{leader.address}"
    assert web.get(leader.address, "/metrics/snapshot").json()["master/elected"] == 1


def test_without_a_node_nobody_leads(three):
    """The nodes are removed behind the coordinators' backs: nobody is a leader without one, and then one is again."""
    name = three.wait_leading()
    leader = three.coordinators[name]
    path = three.watcher.path
    stopped = [daemon for daemon in three.coordinators.values() if daemon is not leader]
    for daemon in stopped:
        assert daemon.stop() == 0
    wait.until(lambda: len(three.watcher.nodes()) == 1, 3, "who stops removes his node at once")
    before = three.watcher.leader()["id"]
    three.watcher.client.delete(f"{path}/{three.watcher.nodes()[0]}")
    seen = set()

    def served_anew():
        seen.add(ask(leader.address, "GET", "/state").status)
        now = three.watcher.leader()
        return now and now["id"] != before and three.leads(leader)

    wait.until(served_anew, 15, "the coordinator stands again, under another id, and leads", interval=0.005)
    assert seen == {200, 503}, "in between nobody led"
    assert web.get(leader.address, "/state").json()["id"] == three.watcher.leader()["id"]


def test_a_leader_that_is_told_to_stop_is_followed_at_once(three):
    name = three.wait_leading()
    before = three.watcher.leader()["id"]
    assert three.coordinators[name].stop() == 0
    # Well below the session time-out of four seconds.
    wait.until(lambda: three.leading() and three.watcher.leader()["id"] != before, 2, "another leads")


def test_the_node_is_mesos_own(bare):
    bare.start(coordinators=1, hostname="leader.example", advertise_ip="127.0.0.1")
    (node,) = bare.watcher.nodes()
    assert node.removeprefix("json.info_").isdigit() and len(node) == len("json.info_") + 10
    data = bare.watcher.data(node)
    info = json.loads(data)
    port = bare.coordinators["coordinator-0"].port
    capabilities = info.pop("capabilities")
    assert capabilities and all(set(each) == {"type"} and each["type"].isupper() for each in capabilities)
    identity = info.pop("id")
    assert isinstance(identity, str) and len(identity) == 36
    assert info == {
        "address": {"hostname": "leader.example", "ip": "127.0.0.1", "port": port},
        "hostname": "leader.example",
        # The bytes of the address as they go over the network, read as a number of this machine.
        "ip": struct.unpack("=I", socket.inet_aton("127.0.0.1"))[0],
        "pid": f"master@127.0.0.1:{port}",
        "port": port,
        "version": "1.11.0",
    }
    # Compact, and sorted by name, as Mesos' JSON library writes objects.
    written = json.dumps({**info, "capabilities": capabilities, "id": identity}, sort_keys=True, separators=(",", ":"))
    assert data.decode() == written
    _, stat = bare.watcher.client.get(f"{bare.watcher.path}/{node}")
    assert stat.ephemeralOwner, "it goes with its session"


def test_the_node_has_what_mesos_was_seen_to_show(bare):
    """The observed MasterInfo of a real Mesos: the same fields, with values of the same types."""
    bare.start(coordinators=1)
    info = bare.watcher.leader()
    observed = {
        "address": {"hostname": "str", "ip": "str", "port": "int"},
        "capabilities": [{"type": "str"}],
        "hostname": "str",
        "id": "str",
        "ip": "int",
        "pid": "str",
        "port": "int",
        "version": "str",
    }

    def types(value):
        if isinstance(value, dict):
            return {name: types(each) for name, each in value.items()}
        if isinstance(value, list):
            return [types(value[0])]
        return type(value).__name__

    assert types(info) == observed
    leader = web.operator(bare.master, "GET_MASTER")["get_master"]["master_info"]
    assert leader == info, "what the leader says of itself is what it has written"


def test_credentials_guard_the_nodes(bare):
    from kazoo.exceptions import NoAuthError

    bare.start(coordinators=1, credentials="tepui:secret")
    stranger = Watcher(bare.zookeeper, bare.watcher.path)
    assert stranger.leader()["port"] == bare.coordinators["coordinator-0"].port, "everybody reads"
    try:
        stranger.client.delete(f"{bare.watcher.path}/{stranger.nodes()[0]}")
    except NoAuthError:
        pass
    else:
        raise AssertionError("a stranger removed the leader's node")
    url = bare.zookeeper.url(bare.watcher.path, "tepui:wrong-word")
    settings = [f"--zk={url}", "--zk_session_timeout=4secs", "--ip=127.0.0.1", "--port=0"]
    process = subprocess.run([binary(), "coordinator", *settings], capture_output=True, text=True, timeout=30)
    assert process.returncode == 125
    assert "does not let these credentials write" in process.stderr, process.stderr
    shown = process.stdout + process.stderr + bare.coordinators["coordinator-0"].log()
    assert "wrong-word" not in shown and "secret" not in shown, "no password is ever shown"
    flags = web.get(bare.master, "/flags").json()["flags"]
    assert flags["zk"] == bare.zookeeper.url(bare.watcher.path, "tepui:***")


def test_what_is_wrong_with_a_url_is_told(bare):
    for flags, words in [
        (["--zk=zk://h:2181"], "needs a path"),
        (["--zk=localhost:2181/x"], "begins with zk://"),
        (["--zk=zk://user:hidden@h:0/x"], "'0' is no port"),
        (["--zk=zk://h/x", "--registry=file"], "leave --registry out"),
        (["--registry=zookeeper"], "needs --zk"),
    ]:
        process = subprocess.run([binary(), "coordinator", *flags], capture_output=True, text=True, timeout=30)
        assert process.returncode == 125 and words in process.stderr, (flags, process)
        assert "hidden" not in process.stderr


def test_a_stopped_leader_acts_no_more(three):
    """SIGSTOP for longer than the session, then SIGCONT: the old leader does nothing, says nothing, and follows."""
    from harness.framework import Framework

    name = three.wait_leading()
    old = three.coordinators[name]
    three.start_agent()
    framework = Framework(old.address, failover_timeout=600.0)
    framework.subscribe()
    framework.decline(framework.offer(), seconds=0.01)
    registered = three.agent_id()
    old.process.send_signal(signal.SIGSTOP)
    try:
        new = three.wait_leading(timeout=20, but=name)
        wait.until(lambda: three.is_registered(three.agents["agent"]), 20, "the agent is at the new leader")
        mark = len(framework.events)
        # Asked of a process that sleeps; it must not be answered when it wakes, nor be carried out.
        call = {"type": "TEARDOWN", "teardown": {"framework_id": {"value": framework.id}}}
        late = socket.create_connection(("127.0.0.1", old.port))
        body = json.dumps(call).encode()
        head = f"POST /api/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: {web.JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
        late.sendall(head.encode() + body)
    finally:
        old.process.send_signal(signal.SIGCONT)
    late.settimeout(20)
    answer = late.recv(4096).decode()
    assert answer.split()[1] in ("307", "503"), answer
    assert framework.closed.wait(10), "its streams are closed"
    assert [e["type"] for e in framework.events[mark:]] in ([], ["HEARTBEAT"]), "and nothing was said over them"
    follows = lambda: web.get(old.address, "/state").status == 307  # noqa: E731
    wait.until(follows, 20, "it follows")
    assert web.get(old.address, "/state").headers["location"] == f"//{three.coordinators[new].address}/state"
    three.wait_candidates(3)
    assert three.agent_id() == registered
    assert old.running()
    # Nothing of the call that came too late was carried out: the framework comes back with its id.
    framework.master = three.coordinators[new].address
    framework.subscribe()
    framework.teardown()
    framework.disconnect()
