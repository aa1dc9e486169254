//! What goes wrong: one fault after the other, at random times, each for a while.

use std::time::Duration;

use tepui_api::v1::DurationInfo;
use tepui_coordinator::core::OperatorCall;

use super::network::WireId;
use super::{Checked, Event, Host, World, calls};

/// Ends of cuts and stops fall between two messages, so that what waits for them comes before what does not.
const BEFORE: Duration = Duration::from_nanos(1);

/// How often an operator does something with an agent, beside the weights of the other faults.
const OPERATOR: u64 = 6;

impl World {
    /// One fault, and the next after a while.
    pub(super) fn fault(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        let next = self.now + self.rng.millis(200..=3000);
        self.at(next, Event::Fault);
        let coordinator = self.rng.below(self.coordinators.len());
        let machine = self.rng.below(self.machines.len());
        let scheduler = self.rng.below(self.schedulers.len());
        let leader = self.coordinators.iter().position(|c| c.reign.is_some()).unwrap_or(coordinator);
        match self.rng.weighted(&[8, 5, 14, 4, 3, 8, 6, 8, 14, 5, 10, 6, 2, 2, 4, 5, 3, OPERATOR]) {
            0 => self.kill_one_coordinator(leader),
            1 => self.kill_one_coordinator(coordinator),
            2 => self.kill_one_agent(machine),
            3 => self.reboot(machine),
            4 => self.lose_machine(machine),
            5 => self.kill_one_scheduler(scheduler),
            6 => self.stop(Host::Coordinator(leader)),
            7 => self.stop_any(),
            8 => self.partition(),
            9 => self.cut_from_zookeeper(leader),
            10 => self.break_some_wire(),
            11 => self.lose_zookeeper(leader),
            12 => self.lose_some_quorum(),
            13 => self.teardown(scheduler)?,
            14 => self.fail_over(scheduler),
            15 => self.set_a_clock(),
            16 => self.isolate(Host::Coordinator(leader)),
            _ => self.operate(machine)?,
        }
        Ok(())
    }

    /// A while: mostly short, sometimes longer than any time-out.
    fn a_while(&mut self) -> Duration {
        match self.rng.weighted(&[50, 35, 15]) {
            0 => self.rng.millis(20..=2000),
            1 => self.rng.millis(2000..=9000),
            _ => self.rng.millis(9000..=45_000),
        }
    }

    fn kill_one_coordinator(&mut self, index: usize) {
        let down = if self.rng.chance(700) { self.rng.millis(50..=3000) } else { self.a_while() };
        self.kill_coordinator(index, down);
    }

    fn kill_one_agent(&mut self, index: usize) {
        let down = if self.rng.chance(700) { self.rng.millis(50..=2000) } else { self.a_while() };
        self.kill_agent(index, down + Duration::from_millis(50));
    }

    /// The whole machine: its containers end with it.
    fn reboot(&mut self, index: usize) {
        let down = self.a_while() + Duration::from_millis(500);
        self.kill_agent(index, down);
        self.machines[index].boots += 1;
        self.machines[index].containers.clear();
    }

    /// Its disk is lost too; another machine takes its place.
    fn lose_machine(&mut self, index: usize) {
        if self.machines[index].process.on() {
            let at = self.now + self.a_while() + Duration::from_millis(500);
            self.replace_machine(index, at);
        }
    }

    fn kill_one_scheduler(&mut self, index: usize) {
        let down = self.a_while();
        self.kill_scheduler(index, down);
    }

    fn stop_any(&mut self) {
        let hosts = self.hosts();
        if let Some(host) = self.rng.pick(&hosts).copied() {
            self.stop(host);
        }
    }

    /// As by SIGSTOP: all that arrives waits until it goes on.
    fn stop(&mut self, host: Host) {
        self.tally.stops += 1;
        let until = self.now + self.a_while() - BEFORE;
        // What waits for the end of one stop must not meet another's, or it would be overtaken.
        if self.process(host).is_some_and(|process| process.on() && process.stopped(self.now).is_none()) {
            self.process_mut(host).stopped_until = Some(until);
        }
    }

    /// Some hosts do not reach some others, in one direction or both.
    fn partition(&mut self) {
        self.tally.partitions += 1;
        let hosts = self.hosts();
        let share = self.rng.within(100..=600);
        let (mut these, mut others) = (Vec::new(), vec![Host::ZooKeeper]);
        for host in hosts {
            if self.rng.chance(share) { these.push(host) } else { others.push(host) }
        }
        let until = self.now + self.a_while() - BEFORE;
        let (there, back) = [(true, true), (true, true), (true, false), (false, true)][self.rng.below(4)];
        self.cut(&these, &others, until, there, back);
    }

    /// One host reaches nobody.
    fn isolate(&mut self, host: Host) {
        self.tally.partitions += 1;
        let mut others = self.hosts();
        others.retain(|other| *other != host);
        others.push(Host::ZooKeeper);
        let until = self.now + self.a_while() - BEFORE;
        self.cut(&[host], &others, until, true, true);
    }

    fn cut_from_zookeeper(&mut self, index: usize) {
        self.tally.partitions += 1;
        let until = self.now + self.a_while() - BEFORE;
        let (there, back) = [(true, true), (true, false), (false, true)][self.rng.below(3)];
        self.cut(&[Host::Coordinator(index)], &[Host::ZooKeeper], until, there, back);
    }

    fn cut(&mut self, these: &[Host], others: &[Host], until: Duration, there: bool, back: bool) {
        self.say(format!("{these:?} and {others:?} are cut off until {until:?}: {there} {back}"));
        for one in these {
            for other in others {
                if there {
                    self.network.cut(*one, *other, until);
                }
                if back {
                    self.network.cut(*other, *one, until);
                }
            }
        }
        // Whoever waits for an answer gives up, some sooner, some not before the cut ends.
        let crossing = |client: Host, server: Host| {
            these.contains(&client) && others.contains(&server)
                || others.contains(&client) && these.contains(&server)
        };
        let crossing: Vec<WireId> = self
            .wires
            .iter()
            .filter(|(_, wire)| crossing(wire.client, Host::Coordinator(wire.server)))
            .map(|(id, _)| *id)
            .collect();
        for wire in crossing {
            for near in [true, false] {
                if self.rng.chance(500) {
                    let at = self.now + self.rng.millis(1000..=30_000);
                    if at < until {
                        self.at(at, Event::Broken { wire, near });
                    }
                }
            }
        }
    }

    fn break_some_wire(&mut self) {
        self.tally.breaks += 1;
        let wires: Vec<WireId> = self.wires.keys().copied().collect();
        if let Some(wire) = self.rng.pick(&wires).copied() {
            self.break_wire(wire);
        }
    }

    fn lose_some_quorum(&mut self) {
        if !self.alone {
            self.tally.quorums += 1;
            let until = self.now + self.a_while() - BEFORE;
            self.lose_quorum(until);
        }
    }

    fn teardown(&mut self, index: usize) -> Checked {
        let Some(id) = self.schedulers[index].id().cloned() else { return Ok(()) };
        if self.rng.chance(400) {
            return self.operator(OperatorCall::Teardown(id));
        }
        if self.schedulers[index].is_subscribed() && self.schedulers[index].process.on() {
            self.send_call(index, calls::teardown(&id));
            if self.rng.chance(800) {
                self.begin_anew(index);
            }
        }
        Ok(())
    }

    /// An operator does something with an agent.
    fn operate(&mut self, index: usize) -> Checked {
        let id = self.machines[index].core.as_ref().and_then(|core| core.snapshot().agent.id.clone());
        let Some(agent) = id else { return Ok(()) };
        self.tally.operated += 1;
        let call = match self.rng.weighted(&[20, 35, 20, 25]) {
            0 => OperatorCall::MarkGone(agent),
            1 => {
                let seconds = self.rng.within(0..=3) as i64;
                let grace = DurationInfo { nanoseconds: seconds * 1_000_000_000 };
                let max_grace_period = self.rng.chance(600).then_some(grace);
                OperatorCall::Drain { agent, max_grace_period, mark_gone: self.rng.chance(300) }
            }
            2 => OperatorCall::Deactivate(agent),
            _ => OperatorCall::Reactivate(agent),
        };
        self.operator(call)
    }

    /// Another instance of a scheduler takes over while the first still listens.
    fn fail_over(&mut self, index: usize) {
        if self.schedulers[index].is_subscribed() && self.schedulers[index].process.on() {
            self.subscribe(index);
            self.plan_scheduler(index);
        }
    }

    /// A clock that people read is set; those that time-outs run by never are.
    fn set_a_clock(&mut self) {
        let hosts = self.hosts();
        let ahead = self.rng.chance(500);
        let by = self.rng.millis(10..=7_200_000);
        if let Some(host) = self.rng.pick(&hosts).copied() {
            let process = self.process_mut(host);
            process.wall = if ahead { process.wall + by } else { process.wall.saturating_sub(by) };
        }
    }
}
