"""The compatibility page says what the binary does: asked flag by flag and call by call."""

import os
import re
import subprocess

import pytest

from harness import web
from harness.cluster import REPOSITORY, binary


def page():
    """`{section: {name: state}}`"""
    sections, section = {}, None
    with open(os.path.join(REPOSITORY, "docs/compatibility.md")) as file:
        for line in file:
            if line.startswith("## "):
                section = sections.setdefault(line[3:].strip().replace("`", ""), {})
            elif line.startswith("| `"):
                cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
                section[cells[0].strip("`")] = cells[1]
    return sections


PAGE = page()


def known_flags(part):
    done = subprocess.run([binary(), part, "--help"], capture_output=True, text=True, timeout=20)
    return set(re.findall(r"--([a-z][a-z0-9_]*)", done.stdout))


@pytest.mark.parametrize("part", ["coordinator", "agent"])
def test_flags(part):
    known = known_flags(part)
    wrong = []
    for name, state in PAGE[f"Flags of tepui {part}"].items():
        flag = name.removeprefix("--")
        if flag in ("help", "version", "config"):
            continue
        if state.startswith("no"):
            done = subprocess.run([binary(), part, f"{name}=x"], capture_output=True, text=True, timeout=20)
            if done.returncode == 0 or flag not in done.stderr or "not implement" not in done.stderr:
                wrong.append(f"{name} is not refused as not implemented: {done.stderr.strip()[:200]}")
        elif flag not in known:
            wrong.append(f"{name} is on the page as {state!r}, and not in --help")
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize("part,section", [("master", "Operator calls to the coordinator"), ("agent", "Operator calls to the agent")])
def test_operator_calls(shared_cluster, part, section):
    address = shared_cluster.master if part == "master" else shared_cluster.agents["agent"].address
    wrong = []
    for call, state in PAGE[section].items():
        if call == "SUBSCRIBE":
            continue
        answer = web.post_json(address, "/api/v1", {"type": call})
        # A call that works may want a member; the 400 then says that it is known.
        if (answer.status == 501) != state.startswith("no"):
            wrong.append(f"{call} is {state!r} and answers {answer.status} {answer.text[:100]}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_endpoints(shared_cluster):
    wrong = []
    for endpoint, state in PAGE["Endpoints"].items():
        part, path = endpoint.split(" ")
        address = shared_cluster.master if part == "master" else shared_cluster.agents["agent"].address
        status = web.get(address, path).status
        there = status not in (404, 501)
        if there == state.startswith("no"):
            wrong.append(f"{endpoint} is {state!r} and answers {status}")
    assert not wrong, "\n" + "\n".join(wrong)


# Flags without which an isolator cannot be.
NEEDS = {"linux/seccomp": ["--seccomp_config_dir=/"]}
# What needs something that many a host lacks: an agent there says so.
OF_SOME_HOSTS = {
    "gpu/nvidia": "the isolator gpu/nvidia finds no GPU",
    **{name: f"isolator '{name}' cannot work on this host" for name in ("cgroups/net_cls", "cgroups/net_prio", "disk/xfs")},
}


@pytest.mark.parametrize("state", ["works", "no"])
def test_isolators(bare_cluster, state):
    """Isolators that work are taken by --isolation, others are refused by name."""
    wrong = []
    for name, its in PAGE["Isolators"].items():
        if its.startswith("no") != (state == "no"):
            continue
        words = [f"--work_dir={bare_cluster.directory('w')}", f"--runtime_dir={bare_cluster.directory('r')}", "--master=127.0.0.1:1"]
        # A port that cannot be taken ends the agent soon after its flags were read, when they are right.
        words += ["--ip=192.0.2.99", f"--isolation={name}" + (",filesystem/linux" if name != "filesystem/linux" and "filesystem" not in name else ""), f"--cgroups_root={bare_cluster.mark}-x"]
        words += NEEDS.get(name, [])
        done = subprocess.run([binary(), "agent", *words], capture_output=True, text=True, timeout=20)
        if name in OF_SOME_HOSTS and OF_SOME_HOSTS[name] in done.stderr:
            continue
        if (name in done.stderr + done.stdout and "192.0.2.99" not in done.stderr + done.stdout) != (state == "no"):
            wrong.append(f"{name} is {its!r}: {(done.stderr or done.stdout).strip()[-200:]}")
    assert not wrong, "\n" + "\n".join(wrong)
