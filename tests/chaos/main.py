"""Chaos on real processes: three ZooKeeper servers, three coordinators, four agents, two frameworks, and faults from a seed.

`network` makes the hosts, `fleet` the processes and their supervisor, `faults` breaks them, `scheduler` is the frameworks,
`ledger` what they may be told, `leaders` who may lead. After the time is up everything is healed, and it is asked: is every
task accounted for, was any rule broken, is anything left behind? The verdict is the last line; the exit code says the same.
"""

import argparse
import os
import secrets
import sys
import tempfile
import time
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../e2e")]

import network  # noqa: E402
from faults import Faults  # noqa: E402
from fleet import Fleet  # noqa: E402
from harness import trees, wait, web  # noqa: E402
from leaders import Leaders  # noqa: E402
from scheduler import ByRedirect, ByZooKeeper, Scheduler  # noqa: E402

# After faults stop, all agents and frameworks are connected within this time.
CONNECTED = 60
# All tasks are accounted for within this time after that, and have ended after they were killed.
SETTLED = 90
# An agent sends an update again after 10 s and more when its acknowledgement has not come.
QUIET = 15


class Chaos:
    """One run."""

    def __init__(self, minutes, seed, alone):
        self.minutes, self.seed = minutes, seed
        self.mark = f"tepui-chaos-{uuid.uuid4().hex[:10]}"
        self.base = tempfile.mkdtemp(prefix=f"{self.mark}-", dir="/var/tmp")
        os.chmod(self.base, 0o755)
        self.broken = []
        network.make_bridge()
        self.fleet = Fleet(self.mark, self.base, *((0, 1) if alone else (3, 3)))
        self.faults = Faults(self.fleet, seed)
        self.leaders = Leaders(self.fleet.coordinator_addresses())
        self.schedulers = []

    def run(self):
        self.fleet.start()
        self.fleet.wait_whole(60)
        say("one leads, and all agents are there")
        self.leaders.start()
        detectors = [ByRedirect(self.fleet.coordinator_addresses())]
        detectors.append(ByZooKeeper(self.fleet.zk) if self.fleet.zk else ByRedirect(self.fleet.coordinator_addresses()))
        agents = {agent.host.ip: agent.name for agent in self.fleet.agents}
        for number, detector in enumerate(detectors):
            scheduler = Scheduler(f"f{number}", detector, self.seed * 2 + number, agents, self._disturbed)
            scheduler.start()
            self.schedulers.append(scheduler)
        self._watch(lambda: self.faults.run(self.minutes * 60))
        say("the faults are over")
        for scheduler in self.schedulers:
            scheduler.launching = False
        self._settle()

    def _disturbed(self, begin, end, agent):
        return self.faults.near(begin, end, ("coordinator", "zookeeper", agent))

    def _watch(self, work):
        """Does it, and says from time to time how things are."""
        import threading

        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            thread.join(30)
            say(self._state())

    def _state(self):
        tasks = sum(len(s.ledger.tasks) for s in self.schedulers)
        open_tasks = sum(len(s.ledger.open_tasks()) for s in self.schedulers)
        broken = [line for s in self.schedulers for line in s.ledger.broken] + self.leaders.broken
        first = f"\nfirst of them: {broken[0]}" if broken else ""
        return f"{tasks} tasks launched, {open_tasks} open; {len(self.faults.log)} faults; {len(broken)} rules broken{first}"

    # -- the end

    def _settle(self):
        healed = time.monotonic()
        try:
            self.fleet.wait_whole(CONNECTED)
            wait.until(lambda: all(s.subscribed() for s in self.schedulers), CONNECTED, "all frameworks are subscribed")
            say(f"all agents and frameworks are connected {time.monotonic() - healed:.1f} s after the last fault")
        except wait.Timeout as error:
            self.broken.append(f"not connected again: {error}")
        self._accounted()
        for scheduler in self.schedulers:
            scheduler.end_all()
        self._ended()
        self._quiet()
        self._nothing_charged()

    def _accounted(self):
        """Every open task is said to run, by an answer that came after the faults."""
        since = time.monotonic()

        def unaccounted():
            tasks = [(s, task) for s in self.schedulers for task in s.ledger.open_tasks()]
            return [(s, t) for s, t in tasks if t.state not in ("TASK_STARTING", "TASK_RUNNING", "TASK_KILLING") or t.history[-1][0] < since]

        def asked():
            left = unaccounted()
            if left:
                for scheduler in self.schedulers:
                    scheduler.reconcile()
                time.sleep(1)
            return not left

        try:
            wait.until(asked, SETTLED, "all tasks are accounted for")
            self.running = sum(len(s.ledger.open_tasks()) for s in self.schedulers)
            say(f"every task has ended or is said to run ({self.running})")
        except wait.Timeout:
            self.broken += [f"not accounted for: {s.ledger.describe(task)}" for s, task in unaccounted()]

    def _ended(self):
        def left():
            return [(s, t) for s in self.schedulers for t in [*s.ledger.open_tasks(), *s.ledger.unacknowledged()]]

        try:
            wait.until(lambda: not left(), SETTLED, "all tasks have ended, and all updates are acknowledged", 0.5)
        except wait.Timeout:
            self.broken += [f"not ended, or not acknowledged: {s.ledger.describe(task)}" for s, task in left()]

    def _quiet(self):
        """Nothing comes any more, since all is acknowledged and nothing is disturbed."""

        def told():
            return sum(len(task.history) for s in self.schedulers for task in s.ledger.tasks.values())

        before = told()
        time.sleep(QUIET)
        if told() != before:
            for scheduler in self.schedulers:
                late = [t for t in scheduler.ledger.tasks.values() if t.history and t.history[-1][0] > time.monotonic() - QUIET]
                self.broken += [f"told of after all was acknowledged: {scheduler.ledger.describe(task)}" for task in late]

    def _nothing_charged(self):
        leader = self.fleet.leader()
        if not leader:
            self.broken.append("nobody leads at the end")
            return
        for agent in web.operator(leader, "GET_AGENTS")["get_agents"].get("agents", []):
            charged = [r for r in agent.get("allocated_resources", []) if r.get("scalar", {}).get("value")]
            if charged:
                self.broken.append(f"charged on {agent['agent_info']['hostname']} though no task is left: {charged}")
        tasks = web.operator(leader, "GET_TASKS")["get_tasks"]
        for kind in ("pending_tasks", "tasks", "unreachable_tasks", "orphan_tasks"):
            self.broken += [f"{kind} has {t['task_id']['value']}, which has ended" for t in tasks.get(kind, [])]
        for scheduler in self.schedulers:
            scheduler.call("TEARDOWN")

    def close(self):
        """Ends everything; says what is left."""
        self.leaders.stop()
        for scheduler in self.schedulers:
            scheduler.stop()
        left = self.fleet.stop()
        self.broken += [f"left behind: {line}" for line in left]
        for scheduler in self.schedulers:
            self.broken += scheduler.ledger.broken
        self.broken += self.leaders.broken

    def remove(self):
        self.fleet.close()
        trees.remove(self.base)

    def report(self):
        counts = {}
        for scheduler in self.schedulers:
            for state, count in scheduler.ledger.counts().items():
                counts[state] = counts.get(state, 0) + count
        print("\nfaults:")
        for what, count in sorted(self.faults.counts.items()):
            print(f"  {count:5} x {what}")
        print("tasks, by how they ended:")
        for state, count in sorted(counts.items(), key=str):
            print(f"  {count:5} {state}")
        print(f"updates that came again because their acknowledgement was lost on its way: {sum(s.ledger.repeats for s in self.schedulers)}")
        print(f"leaders: {self.leaders.changes} in turn; subscriptions: {sum(s.subscriptions for s in self.schedulers)}; "
              f"the longest time without a leader to serve it, for a framework: {max((s.longest_away for s in self.schedulers), default=0):.1f} s")  # fmt: skip
        for process in self.fleet.processes:
            ends = {line: process.own_ends.count(line) for line in process.own_ends}
            print(f"  {process.name}: {process.starts} starts, {len(process.own_ends)} times ended by itself")
            for line, count in list(ends.items())[:4]:
                print(f"      {count} x {line}")
        for line in self.broken[:50]:
            print(f"broken: {line}")
        tasks = sum(len(s.ledger.tasks) for s in self.schedulers)
        verdict = f"{len(self.broken)} RULES BROKEN" if self.broken else "nothing broken"
        print(
            f"chaos: seed {self.seed}, {self.minutes:g} minutes, {len(self.faults.log)} faults, {tasks} tasks launched, "
            f"all accounted for: {'no' if self.broken else 'yes'}; {verdict}"
        )


def say(line):
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--alone", action="store_true", help="one coordinator with its registry in a file, and no ZooKeeper")
    parser.add_argument("--keep", action="store_true", help="keep the logs even when nothing is broken")
    args = parser.parse_args()
    say(f"seed {args.seed}: tests/chaos/run --minutes {args.minutes:g} --seed {args.seed}{' --alone' * args.alone}")
    chaos = Chaos(args.minutes, args.seed, args.alone)
    try:
        chaos.run()
    except (AssertionError, OSError) as error:
        chaos.broken.append(f"{type(error).__name__}: {error}")
    finally:
        chaos.close()
    chaos.report()
    if chaos.broken or args.keep:
        print(f"logs are in {chaos.base}")
        chaos.fleet.close()
    else:
        chaos.remove()
    return 1 if chaos.broken else 0


if __name__ == "__main__":
    sys.exit(main())
