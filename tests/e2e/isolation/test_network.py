"""Networks of containers by CNI plugins: the real ones, on agents that have a network namespace each, and scripts that misbehave."""

import json
import os
import subprocess
import sys

import pytest

from harness import leaks, wait, web
from harness.cluster import binary
from harness.framework import Framework
from harness.netns import UPLINK, Hub

PLUGINS = "/usr/lib/cni"
ISOLATION = "cgroups/cpu,cgroups/mem,filesystem/linux,docker/runtime,namespaces/pid,network/cni"
PAGE = "busybox httpd -f -p 80 -h ."


class Net:
    """Two agents, `a` and `b`, on hosts of their own, with the networks that a test writes for them."""

    def __init__(self, hub, cluster):
        self.hub, self.cluster = hub, cluster
        self.plugins = cluster.directory("plugins")

    def configs(self, host):
        return self.cluster.directory(f"networks-{host}")

    def leases(self, host):
        return self.cluster.directory(f"leases-{host}")

    def write(self, host, name, config):
        with open(os.path.join(self.configs(host), name), "w") as file:
            json.dump(config, file)

    def ipam(self, host, *subnets):
        ranges = [[{"subnet": subnet}] for subnet in subnets]
        return {"type": "host-local", "dataDir": self.leases(host), "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}]}

    def bridge(self, host, subnet, name="net", bridge="cni0", more=(), **config):
        first = {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True, "ipam": self.ipam(host, subnet), **config}
        self.write(host, f"{name}.conflist", {"cniVersion": "1.0.0", "name": name, "plugins": [first, *more]})

    def script(self, name, text):
        """A plugin that does what a test wants."""
        path = os.path.join(self.plugins, name)
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\n{text}\n")
        os.chmod(path, 0o755)

    def start(self, host, **settings):
        flags = {
            "isolation": ISOLATION,
            "ip": self.hub.address_of(host),
            "port": {"a": 5051, "b": 5052}[host],
            "network_cni_plugins_dir": f"{self.plugins}:{PLUGINS}",
            "network_cni_config_dir": self.configs(host),
            **settings,
        }
        # Not `ip netns exec`: that has a mount namespace of its own, too.
        program = ["nsenter", f"--net=/run/netns/{self.hub.netns(host)}", binary(), "agent"]
        return self.cluster.start_agent(host, program=program, **flags)

    def left(self, host):
        return leaks.networks(self.hub.netns(host), {UPLINK}, self.leases(host)) + self.cluster.task_leftovers()

    def runtime(self, host):
        """Directories of containers in the isolator's own."""
        return os.listdir(os.path.join(self.cluster.directory(f"{host}-runtime"), "isolators/network/cni"))

    def wait_clean(self, *hosts):
        for host in hosts:
            wait.until(lambda host=host: not self.left(host), 20, f"nothing is left on {host}: {self.left(host)}")
            assert self.runtime(host) == [], "nothing is left in the runtime directory"

    def rules(self, host):
        lines = self.hub.within(host, "iptables-save").splitlines()
        return [line for line in lines if not line.startswith(("#", ":"))]


@pytest.fixture
def hub():
    if not os.path.exists(f"{PLUGINS}/bridge"):
        pytest.fail(f"no CNI plugins in {PLUGINS}: tests/run installs them")
    with Hub() as made:
        yield made


@pytest.fixture
def net(hub, bare_cluster):
    bare_cluster.start_coordinator(ip=hub.address)
    return Net(hub, bare_cluster)


@pytest.fixture
def framework(net):
    made = Framework(net.cluster.master, failover_timeout=3600.0, checkpoint=True)
    made.subscribe()
    yield made
    made.disconnect()


def on(*names, image=None, **more):
    """A container on these networks; one may be a whole NetworkInfo."""
    infos = [{"name": name} if isinstance(name, str) else name for name in names]
    made = {"type": "MESOS", "network_infos": infos, **more}
    if image:
        made["mesos"] = {"image": {"type": "DOCKER", "docker": {"name": image}}}
    return made


def addresses(status):
    return [ip["ip_address"] for info in status["container_status"]["network_infos"] for ip in info.get("ip_addresses", [])]


def sandbox(net, host, framework, task_id, name="stdout"):
    path = f"/frameworks/{framework.id}/executors/{task_id}/runs/latest/{name}"
    return web.get(net.cluster.agents[host].address, f"/files/download?path={path}").text


def finished(net, host, framework, command, **more):
    """What a task prints that ends well, and its last status."""
    task_id = framework.run_task(command, wait_until=(), **more)
    status = framework.wait_terminal(task_id, timeout=60)
    assert status["state"] == "TASK_FINISHED", (status, sandbox(net, host, framework, task_id, "stderr"))
    return sandbox(net, host, framework, task_id), status


def answers(net, host, port):
    """What is at a port of a host, seen from the other host."""
    other = {"a": "b", "b": "a"}[host]
    fetch = f"import http.client as h; c = h.HTTPConnection('{net.hub.address_of(host)}', {port}, timeout=5); c.request('GET', '/name'); print(c.getresponse().read().decode())"
    done = subprocess.run(["ip", "netns", "exec", net.hub.netns(other), sys.executable, "-c", fetch], capture_output=True, text=True)
    return done.stdout.strip()


def test_ports_are_reached_from_outside_and_outlive_the_agent(net, framework):
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    for host, subnet in (("a", "10.88.1.0/24"), ("b", "10.88.2.0/24")):
        net.bridge(host, subnet, more=[ports, {"type": "firewall"}])
        net.start(host)
    tasks = {}
    for host in ("a", "b"):
        info = {"name": "net", "port_mappings": [{"host_port": 31080, "container_port": 80}]}
        agent = net.cluster.agent_id(host)
        tasks[host] = framework.run_task(f"echo {host} > name; exec {PAGE}", agent=agent, container=on(info))
    ips = {host: addresses(framework.wait_state(task, "TASK_RUNNING")) for host, task in tasks.items()}
    assert ips["a"][0].startswith("10.88.1.") and ips["b"][0].startswith("10.88.2."), ips
    for host in ("a", "b"):
        wait.until(lambda host=host: answers(net, host, 31080) == host, 20, f"the port of {host} answers the other host")

    rules, links = net.rules("a"), net.hub.within("a", "ip", "-o", "link")
    net.cluster.agents["a"].kill9()
    assert answers(net, "a", 31080) == "a", "the network needs no agent"
    net.cluster.restart_agent("a")
    assert answers(net, "a", 31080) == "a"
    assert (net.rules("a"), net.hub.within("a", "ip", "-o", "link")) == (rules, links)
    shown = net.cluster.agent_operator("GET_CONTAINERS", "a")["get_containers"]["containers"]
    infos = shown[0]["container_status"]["network_infos"]
    assert [ip["ip_address"] for ip in infos[0]["ip_addresses"]] == ips["a"]
    assert infos[0]["port_mappings"][0]["host_port"] == 31080
    state = json.loads(web.get(net.cluster.master, "/state").text)
    statuses = [t["statuses"][-1] for f in state["frameworks"] for t in f["tasks"] if t["id"] == tasks["a"]]
    assert addresses(statuses[0]) == ips["a"], statuses
    # What portmap 1.1 looks for is not there for containers without IPv6.
    complaints = [line for line in net.cluster.agents["a"].log().splitlines() if "other than it made it" in line]
    assert all("'portmap'" in line for line in complaints), complaints

    for task in tasks.values():
        framework.kill(task)
        framework.wait_terminal(task)
    net.wait_clean("a", "b")


@pytest.mark.parametrize("kind", ["HTTP", "TCP"])
def test_checks_ask_in_the_containers_network(net, framework, kind):
    """The loopback of the container, which nobody outside of it reaches; after a restart of the agent, too."""
    net.bridge("a", "10.88.1.0/24")
    net.start("a")
    page = "busybox httpd -f -p 127.0.0.1:8080 -h ."
    script = f"until [ -e go ]; do sleep 0.1; done; {page} & until [ -e end ]; do sleep 0.1; done; kill $!; sleep 1000"
    every = {"type": kind, "delay_seconds": 0, "interval_seconds": 0.2, "timeout_seconds": 5, kind.lower(): {"port": 8080}}
    check = {**every, "http": {"port": 8080, "path": "/go"}} if kind == "HTTP" else every
    task_id = framework.run_task(script, container=on("net"), check=check, health_check={**check, "consecutive_failures": 2, "grace_period_seconds": 60})
    told = lambda: [s for s in framework.statuses(task_id) if s.get("healthy") is not None]  # noqa: E731
    tcp = {"type": "TCP", "tcp": {"succeeded": False}}
    if kind == "TCP":
        framework.wait_for(lambda: any(s["check_status"] == tcp for s in framework.statuses(task_id)), 20, "nobody listens yet")
    run = f"{net.cluster.directory('a')}/slaves/{net.cluster.agent_id('a')}/frameworks/{framework.id}/executors/{task_id}/runs/latest"
    open(f"{run}/go", "w").close()
    framework.wait_for(lambda: told() and told()[-1]["healthy"], 20, "healthy")
    good = {"type": "TCP", "tcp": {"succeeded": True}} if kind == "TCP" else {"type": "HTTP", "http": {"status_code": 200}}
    framework.wait_for(lambda: any(s["check_status"] == good for s in framework.statuses(task_id)), 20, "its result")
    net.cluster.agents["a"].kill9()
    net.cluster.restart_agent("a")
    wait.holds(lambda: all(s["healthy"] for s in told()), 1, "it is healthy, asked by another process")
    open(f"{run}/end", "w").close()
    last = framework.wait_terminal(task_id)
    assert (last["state"], last["healthy"]) == ("TASK_KILLED", False), last
    threads = os.listdir(f"/proc/{net.cluster.agents['a'].pid}/task")
    names = [open(f"/proc/{net.cluster.agents['a'].pid}/task/{thread}/comm").read().strip() for thread in threads]
    assert "agent-check" not in names, "the threads that entered the network have ended"


@pytest.mark.parametrize("with_image", [False, True])
def test_several_networks_names_and_name_servers(net, framework, images, with_image):
    net.bridge("a", "10.88.1.0/24", name="one", dns={"nameservers": ["10.88.1.1"], "search": ["one.example"]})
    net.bridge("a", "10.88.3.0/24", name="two", bridge="cni1", ipam=net.ipam("a", "10.88.3.0/24", "fd00:88:3::/64"))
    dns = {"mesos": [
        {"network_mode": "CNI", "network_name": "two", "dns": {"nameservers": ["10.88.3.1"], "options": ["ndots:2"]}},
        {"network_mode": "CNI", "dns": {"nameservers": ["192.0.2.1"]}},
    ]}  # fmt: skip
    net.start("a", default_container_dns=json.dumps(dns))
    image = images.archive if with_image else None
    tool = "busybox" if with_image else os.path.realpath(leaks._run("which", "busybox").strip())
    script = f"{tool} hostname; cat /etc/hostname /etc/hosts; echo; cat /etc/resolv.conf; for link in lo eth0 eth1; do {tool} ip -o address show $link; done; echo ip=$LIBPROCESS_IP"
    hosts = open("/etc/hosts").read()
    task_id = framework.run_task(f"{script}; until [ -e go ]; do sleep 0.1; done", container=on("one", "two", image=image))
    status = framework.wait_state(task_id, "TASK_RUNNING")
    ips = addresses(status)
    assert ips[0].startswith("10.88.1.") and ips[1].startswith("10.88.3.") and ips[2].startswith("fd00:88:3:"), ips
    assert [info["name"] for info in status["container_status"]["network_infos"]] == ["one", "two"]
    kinds = [ip["protocol"] for info in status["container_status"]["network_infos"] for ip in info["ip_addresses"]]
    assert kinds == ["IPv4", "IPv4", "IPv6"]
    text = wait.until(lambda: (out := sandbox(net, "a", framework, task_id)) and "ip=" in out and out, 20, "the task has printed all")
    container = status["container_status"]["container_id"]["value"]
    assert text.splitlines()[:2] == [container, container], text
    assert f"{ips[0]} {container}" in text and "127.0.0.1 localhost" in text, text
    assert "search one.example\noptions ndots:2\nnameserver 10.88.1.1\nnameserver 10.88.3.1\n" in text, text
    for address in ("127.0.0.1/8", f"{ips[0]}/24", f"{ips[1]}/24", f"{ips[2]}/64"):
        assert f" {address}" in text, (address, text)
    assert "ip=0.0.0.0" in text
    assert open("/etc/hosts").read() == hosts, "the host's own files are untouched"
    framework.kill(task_id)
    framework.wait_terminal(task_id)

    named, _ = finished(net, "a", framework, f"{tool} hostname; cat /etc/resolv.conf", container=on("one", image=image, hostname="boxy"))
    assert named.startswith("boxy\n") and "nameserver 10.88.1.1" in named, named
    net.wait_clean("a")


def test_without_a_name_the_host_s_network_is_shared(net, framework):
    net.bridge("a", "10.88.1.0/24")
    net.start("a")
    for container in (None, {"type": "MESOS", "network_infos": [{}]}):
        more = {"container": container} if container else {}
        text, status = finished(net, "a", framework, "readlink /proc/self/ns/net; cat /etc/hosts", **more)
        assert text.startswith(net.hub.within("a", "readlink", "/proc/self/ns/net")), text
        assert text.endswith(open("/etc/hosts").read())
        assert addresses(status) == [net.hub.address_of("a")]
    net.wait_clean("a")


def test_networks_are_read_anew_for_each_launch(net, framework):
    net.start("a")
    task_id = framework.run_task("true", wait_until=(), container=on("late"))
    status = framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED")
    assert "no network 'late'" in status["message"], status
    net.write("a", "late.json", {"cniVersion": "0.2.0", "name": "late", "type": "ptp", "ipMasq": False, "ipam": {"type": "host-local", "subnet": "10.88.5.0/24", "dataDir": net.leases("a")}})  # fmt: skip
    task_id = framework.run_task("sleep 1000", container=on("late"))
    assert addresses(framework.wait_state(task_id, "TASK_RUNNING"))[0].startswith("10.88.5."), "a result of version 0.2.0"
    # Its description is needed no more.
    os.remove(os.path.join(net.configs("a"), "late.json"))
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    net.wait_clean("a")


MISBEHAVIOUR = {
    "fails": ('[ $CNI_COMMAND = DEL ] || { echo \'{"code": 11, "msg": "no room here", "details": "pool 7"}\'; exit 1; }', "no room here: pool 7"),
    "dies": ("[ $CNI_COMMAND = DEL ] || { echo oh dear >&2; kill -9 $$; }", "oh dear"),
    "hangs": ("[ $CNI_COMMAND = DEL ] || { setsid sleep 1000 & sleep 1000; }", "did not answer within 1 s"),
    "babbles": ("[ $CNI_COMMAND = DEL ] || echo and so on", "'and so on', which is no result"),
    "lies": ('[ $CNI_COMMAND = DEL ] || echo \'{"cniVersion": "1.0.0", "ips": [{"address": "everywhere"}]}\'', "'everywhere' is no IP address"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISBEHAVIOUR)
def test_a_plugin_that_misbehaves_fails_its_container_only(net, framework, kind):
    script, words = MISBEHAVIOUR[kind]
    net.script("odd", script)
    net.bridge("a", "10.88.1.0/24")
    net.bridge("a", "10.88.1.0/24", name="bad", more=[{"type": "odd"}])
    net.start("a", network_cni_plugin_timeout="1secs" if kind == "hangs" else "20secs")
    good = framework.run_task("sleep 1000", container=on("net"))
    task_id = framework.run_task("true", wait_until=(), container=on("bad"))
    status = framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED"), status
    assert "'odd' of the network 'bad'" in status["message"] and words in status["message"], status["message"]
    links = net.hub.within("a", "ip", "-o", "link", "show", "type", "veth")
    wait.until(lambda: len(net.runtime("a")) == 1, 20, "nothing is left of the one that failed")
    assert len(links.splitlines()) >= 2, "the other container has its link"
    assert "TASK_FAILED" not in framework.states(good)
    framework.kill(good)
    framework.wait_terminal(good)
    net.wait_clean("a")


def test_plugins_are_asked_after_a_restart(net, framework):
    """CHECK is called with what ADD has answered; what it complains of is told, and the container goes on."""
    asked = os.path.join(net.plugins, "asked")
    net.script("critic", f"cat > {asked}.$CNI_COMMAND; [ $CNI_COMMAND = ADD ] && exec cat {asked}.result; [ $CNI_COMMAND = DEL ] || {{ echo '{{\"code\": 9, \"msg\": \"I do not like it\"}}'; exit 1; }}")
    with open(f"{asked}.result", "w") as file:
        json.dump({"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "192.0.2.7/24"}]}, file)
    net.write("a", "critic.conf", {"cniVersion": "0.4.0", "name": "critic", "type": "critic"})
    net.start("a")
    task_id = framework.run_task("sleep 1000", container=on("critic"))
    net.cluster.agents["a"].kill9()
    net.cluster.restart_agent("a")
    wait.until(lambda: "I do not like it" in net.cluster.agents["a"].log(), 20, "the complaint is told")
    told = json.load(open(f"{asked}.CHECK"))
    assert told["prevResult"]["ips"][0]["address"] == "192.0.2.7/24", told
    assert told["args"]["org.apache.mesos"]["network_info"]["name"] == "critic", told
    framework.kill(task_id)
    assert framework.wait_terminal(task_id)["state"] == "TASK_KILLED"
    net.wait_clean("a")
    assert json.load(open(f"{asked}.DEL"))["prevResult"] == told["prevResult"]


def test_what_cannot_be_detached_is_tried_again(net, framework):
    net.script("sticky", '[ $CNI_COMMAND = ADD ] && exec cat "$0.result"; [ -e "$0.free" ] || { echo stuck; exit 1; }')
    with open(os.path.join(net.plugins, "sticky.result"), "w") as file:
        json.dump({"cniVersion": "1.0.0", "ips": []}, file)
    net.write("a", "sticky.conf", {"cniVersion": "1.0.0", "name": "sticky", "type": "sticky"})
    net.start("a")
    task_id = framework.run_task("true", wait_until=(), container=on("sticky"))
    assert framework.wait_terminal(task_id)["state"] == "TASK_FINISHED"
    wait.until(lambda: "The CNI plugin" in net.cluster.agents["a"].log() or "stuck" in net.cluster.agents["a"].log(), 20, "it is said")
    wait.until(lambda: not net.left("a"), 20, "no namespace is held")
    assert len(net.runtime("a")) == 1, "it is remembered"
    net.cluster.agents["a"].stop()
    open(os.path.join(net.plugins, "sticky.free"), "w").close()
    net.cluster.restart_agent("a")
    net.wait_clean("a")


@pytest.mark.parametrize("when", ["before", "after"])
def test_nothing_is_left_when_the_agent_is_killed_in_the_middle_of_attaching(net, framework, when):
    """A plugin that waits before or after the real one has done its work; the agent is killed meanwhile."""
    begun = os.path.join(net.plugins, "begun")
    pause = f"touch {begun}; sleep 1000"
    real = f"{PLUGINS}/bridge"
    add = f"{pause}; exec {real}" if when == "before" else f"{real}; {pause}"
    net.script("slow", f"if [ $CNI_COMMAND = ADD ] && [ ! -e {begun} ]; then {add}; else exec {real}; fi")
    net.bridge("a", "10.88.1.0/24", more=[{"type": "portmap", "capabilities": {"portMappings": True}}], type="slow")
    net.start("a")
    info = {"name": "net", "port_mappings": [{"host_port": 31080, "container_port": 80}]}
    task_id = framework.run_task("sleep 1000", wait_until=(), container=on(info))
    wait.until(lambda: os.path.exists(begun), 20, "the plugin has begun")
    if when == "after":
        wait.until(lambda: any("lease" in line for line in net.left("a")), 20, "there is something to leave")
    net.cluster.agents["a"].kill9()
    net.cluster.restart_agent("a")
    status = framework.wait_terminal(task_id, timeout=60)
    assert status["state"] in ("TASK_FAILED", "TASK_LOST", "TASK_GONE", "TASK_DROPPED"), status
    net.wait_clean("a")
    # And the network can be used.
    again = framework.run_task("sleep 1000", container=on(info))
    framework.kill(again)
    framework.wait_terminal(again)
    net.wait_clean("a")


LIMIT = 1_250_000
"""Bytes each second: 10 Mbit/s."""


@pytest.mark.parametrize("by", ["flag", "label", "plugin"])
def test_rates_are_limited_and_traffic_is_counted(net, framework, by):
    more = [{"type": "bandwidth", "capabilities": {"bandwidth": True}}] if by == "plugin" else []
    net.bridge("a", "10.88.1.0/24", more=more)
    rates = {"egress_rate_limit_per_container": f"{LIMIT}B", "ingress_rate_limit_per_container": f"{LIMIT}B"}
    net.start("a", network_enable_snmp_statistics=True, network_enable_socket_statistics_summary=True, network_enable_socket_statistics_details=True, **(rates if by != "label" else {}))
    labels = {"labels": [{"key": f"tepui.network.{way}", "value": f"{LIMIT}B"} for way in ("egress", "ingress")]}
    given = {"labels": labels} if by == "label" else {}
    client = f"iperf3 --client {net.hub.address} --time 5 --json --port"
    # A connection to look at while the figures are asked for.
    idle = f"exec 9<>/dev/tcp/{net.hub.address}/{net.cluster.coordinator.port}"
    script = f"{client} 5998 > sent.json && {client} 5999 --reverse > received.json && touch done; exec bash -c '{idle}; sleep 1000'"
    servers = [subprocess.Popen(["iperf3", "--server", "--one-off", "--port", port], stdout=subprocess.DEVNULL) for port in ("5998", "5999")]
    try:
        wait.until(lambda: all(f":{port} " in leaks._run("ss", "-ltn") for port in (5998, 5999)), 10, "the servers listen")
        task_id = framework.run_task(script, container=on("net"), **given)
        wait.until(lambda: has(net, framework, task_id, "done"), 60, "both ways are measured")
    finally:
        for server in servers:
            server.terminate()
            server.wait(10)
    moved = {}
    for way in ("sent", "received"):
        result = json.loads(sandbox(net, "a", framework, task_id, f"{way}.json"))["end"]["sum_received"]
        moved[way] = result["bytes"]
        megabits = result["bits_per_second"] / 1e6
        print(f"{by}, {way}: {megabits:.2f} Mbit/s through a limit of 10")
        assert 8.5 <= megabits <= 11.5, f"{way}: {megabits} Mbit/s"
    figures = statistics(net)
    print({name: value for name, value in figures.items() if name.startswith("net_") and not isinstance(value, dict)})
    assert moved["sent"] <= figures["net_tx_bytes"] <= moved["sent"] * 1.25 + 500_000
    assert moved["received"] <= figures["net_rx_bytes"] <= moved["received"] * 1.25 + 500_000
    assert figures["net_tx_packets"] > 100 and figures["net_rx_packets"] > 100
    assert (figures["net_tx_rate_limit"], figures["net_rx_rate_limit"]) == (LIMIT, LIMIT)
    assert figures["net_snmp_statistics"]["tcp_stats"]["OutSegs"] > 100
    times = wait.until(lambda: (now := statistics(net)) and "net_tcp_rtt_microsecs_p50" in now and now, 10, "a connection's time is known")
    assert 0 < times["net_tcp_rtt_microsecs_p50"] <= times["net_tcp_rtt_microsecs_p99"]
    assert "net_tcp_active_connections" in figures and "net_tcp_time_wait_connections" in figures
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    net.wait_clean("a")


def statistics(net):
    """Of the only container on `a`."""
    return net.cluster.agent_operator("GET_CONTAINERS", "a")["get_containers"]["containers"][0]["resource_statistics"]


def has(net, framework, task_id, name):
    path = f"/frameworks/{framework.id}/executors/{task_id}/runs/latest/{name}"
    return web.get(net.cluster.agents["a"].address, f"/files/download?path={path}").status == 200


def test_a_task_cannot_lift_its_limit(net, framework):
    """Whatever root does in the container's namespace, the bucket is at the other end."""
    net.bridge("a", "10.88.1.0/24")
    net.start("a", egress_rate_limit_per_container=f"{LIMIT}B")
    task_id = framework.run_task("tc qdisc replace dev eth0 root pfifo; sleep 1000", container=on("net"))
    buckets = leaks._run("ip", "netns", "exec", net.hub.netns("a"), "tc", "qdisc")
    assert buckets.count("tbf") == 1 and "rate 10Mbit" in buckets, buckets
    framework.kill(task_id)
    framework.wait_terminal(task_id)
    net.wait_clean("a")


@pytest.mark.parametrize(
    "container,labels,words",
    [
        (on("net", "net"), {}, "twice"),
        (on({"name": "net", "port_mappings": [{"host_port": 1, "container_port": 1}]}), {}, "maps no ports"),
        (on("net"), {"tepui.network.egress": "fast"}, "tepui.network.egress"),
        (on(), {"tepui.network.egress": "1MB"}, "shares the host's"),
        (on("flat"), {"tepui.network.egress": "1MB"}, "not one end of a veth pair"),
    ],
)
def test_what_cannot_be_had_is_refused(net, framework, container, labels, words):
    net.bridge("a", "10.88.1.0/24")
    net.write("a", "flat.conf", {"cniVersion": "1.0.0", "name": "flat", "type": "macvlan", "master": UPLINK, "ipam": net.ipam("a", "10.88.6.0/24")})
    net.start("a")
    labels = {"labels": [{"key": key, "value": value} for key, value in labels.items()]}
    task_id = framework.run_task("true", wait_until=(), container=container, labels=labels)
    status = framework.wait_terminal(task_id)
    assert (status["state"], status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED"), status
    assert words in status["message"], status["message"]
    net.wait_clean("a")


@pytest.mark.parametrize(
    "flags,words",
    [
        (["--network_cni_config_dir=/no/such/directory", f"--network_cni_plugins_dir={PLUGINS}"], "cannot be read"),
        ([f"--network_cni_plugins_dir={PLUGINS}"], "--network_cni_config_dir is missing"),
        (["--egress_rate_limit_per_container=1B"], "too few"),
        (['--default_container_dns={"mesos": [{"network_mode": "HOST"}]}'], "use CNI"),
    ],
)
def test_an_agent_with_wrong_flags_does_not_start(bare_cluster, flags, words):
    work = bare_cluster.directory("work")
    command = [binary(), "agent", "--master=127.0.0.1:1", "--port=0", "--ip=127.0.0.1", f"--work_dir={work}", f"--runtime_dir={work}/run"]
    command += [f"--docker_store_dir={work}/images", f"--cgroups_root={bare_cluster.mark}-none", "--isolation=network/cni", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and words in done.stdout + done.stderr, done.stdout + done.stderr
