//! Figures, as a table for people and as JSON for tools.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// All figures of one run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    latencies: Vec<Latency>,
    rivals: Vec<Beside>,
    rates: Vec<Rate>,
    figures: Vec<Figure>,
    isolators: Vec<Isolated>,
}

/// What containers with an isolator take, as medians in milliseconds.
#[derive(Debug, Serialize)]
struct Isolated {
    what: String,
    samples: usize,
    launch_ms: f64,
    cycle_ms: f64,
    launch_times_floor: f64,
    cycle_times_floor: f64,
    /// The least: what remains of a busy machine's noise.
    launch_min_ms: f64,
    cycle_min_ms: f64,
}

/// Any other figure.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: &'static str,
}

/// How long something took, in milliseconds.
#[derive(Debug, Serialize)]
struct Latency {
    what: String,
    samples: usize,
    median_ms: f64,
    p99_ms: f64,
    min_ms: f64,
    max_ms: f64,
    /// How many times the floor's median, where a floor was measured before.
    times_floor: Option<f64>,
}

/// How long something took beside what others take for the same, in milliseconds.
#[derive(Debug, Serialize)]
struct Beside {
    what: String,
    samples: usize,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    /// How many times the median of the row that it is compared with; 1 for that row.
    times_other: f64,
}

/// How many of something were done in a time.
#[derive(Debug, Serialize)]
struct Rate {
    what: String,
    count: usize,
    seconds: f64,
    per_second: f64,
}

/// The row that others are compared with.
pub const FLOOR: &str = "bare libcontainer: create, start, wait, delete";

// === impl Report ===

impl Report {
    /// Adds a row of latencies.
    pub fn latency(&mut self, what: impl Into<String>, mut samples: Vec<Duration>) {
        samples.sort();
        let at = |share: f64| milliseconds(samples.get(place(samples.len(), share)).copied());
        let median = at(0.5);
        let what = what.into();
        let floor = self.latencies.iter().find(|l| l.what == FLOOR).map(|l| l.median_ms);
        self.latencies.push(Latency {
            what,
            samples: samples.len(),
            median_ms: median,
            p99_ms: at(0.99),
            min_ms: at(0.0),
            max_ms: at(1.0),
            times_floor: floor.filter(|floor| *floor > 0.0).map(|floor| median / floor),
        });
    }

    /// Adds a row that those which follow by [`Report::compared`] are compared with.
    pub fn rival(&mut self, what: impl Into<String>, samples: &[Duration]) {
        self.beside(what.into(), samples, median(samples));
    }

    /// Adds a row, compared with the last rival's.
    pub fn compared(&mut self, what: impl Into<String>, samples: &[Duration]) {
        let rival = self.rivals.last().map_or(f64::NAN, |last| last.median_ms / last.times_other);
        self.beside(what.into(), samples, rival);
    }

    fn beside(&mut self, what: String, samples: &[Duration], other: f64) {
        let median_ms = median(samples);
        self.rivals.push(Beside {
            what,
            samples: samples.len(),
            median_ms,
            min_ms: at(samples, 0.0),
            max_ms: at(samples, 1.0),
            times_other: median_ms / other,
        });
    }

    /// Adds the table of isolators: the floor's launches and whole cycles, and those of each row.
    pub fn isolators(
        &mut self,
        floor_launch: &[Duration],
        floor_cycle: &[Duration],
        rows: impl IntoIterator<Item = (String, Vec<Duration>, Vec<Duration>)>,
    ) {
        let floor = [median(floor_launch), median(floor_cycle)];
        let first = (FLOOR.to_owned(), floor_launch.to_vec(), floor_cycle.to_vec());
        for (what, launch, cycle) in std::iter::once(first).chain(rows) {
            let (launch_ms, cycle_ms) = (median(&launch), median(&cycle));
            self.isolators.push(Isolated {
                what,
                samples: launch.len(),
                launch_ms,
                cycle_ms,
                launch_times_floor: launch_ms / floor[0],
                cycle_times_floor: cycle_ms / floor[1],
                launch_min_ms: at(&launch, 0.0),
                cycle_min_ms: at(&cycle, 0.0),
            });
        }
    }

    /// Adds a row of something else.
    pub fn figure(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { what: what.into(), value, unit });
    }

    /// Adds a row of throughput.
    #[expect(clippy::cast_precision_loss, reason = "a count of tasks")]
    pub fn rate(&mut self, what: impl Into<String>, count: usize, time: Duration) {
        let seconds = time.as_secs_f64();
        self.rates.push(Rate { what: what.into(), count, seconds, per_second: count as f64 / seconds });
    }
}

fn median(samples: &[Duration]) -> f64 {
    at(samples, 0.5)
}

fn at(samples: &[Duration], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort();
    milliseconds(sorted.get(place(sorted.len(), share)).copied())
}

fn milliseconds(duration: Option<Duration>) -> f64 {
    duration.unwrap_or_default().as_secs_f64() * 1e3
}

/// The place of this share of a sorted list (nearest rank).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small, positive numbers"
)]
fn place(len: usize, share: f64) -> usize {
    ((len.saturating_sub(1)) as f64 * share).round() as usize
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if !self.latencies.is_empty() {
            writeln!(
                f,
                "{:<54} {:>6} {:>9} {:>9} {:>9} {:>9} {:>8}",
                "latency [ms]", "n", "median", "p99", "min", "max", "× floor"
            )?;
        }
        for l in &self.latencies {
            let times = l.times_floor.map_or_else(|| "-".to_owned(), |t| format!("{t:.2}"));
            writeln!(
                f,
                "{:<54} {:>6} {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>8}",
                l.what, l.samples, l.median_ms, l.p99_ms, l.min_ms, l.max_ms, times
            )?;
        }
        if !self.rivals.is_empty() {
            writeln!(
                f,
                "{:<54} {:>6} {:>9} {:>9} {:>9} {:>8}",
                "latency beside others [ms]", "n", "median", "min", "max", "× other"
            )?;
        }
        for r in &self.rivals {
            writeln!(
                f,
                "{:<54} {:>6} {:>9.2} {:>9.2} {:>9.2} {:>8.2}",
                r.what, r.samples, r.median_ms, r.min_ms, r.max_ms, r.times_other
            )?;
        }
        if !self.rates.is_empty() {
            writeln!(f, "{:<54} {:>6} {:>9} {:>9}", "throughput", "n", "seconds", "per s")?;
        }
        for r in &self.rates {
            writeln!(f, "{:<54} {:>6} {:>9.2} {:>9.1}", r.what, r.count, r.seconds, r.per_second)?;
        }
        if !self.isolators.is_empty() {
            writeln!(
                f,
                "{:<48} {:>5} {:>9} {:>8} {:>9} {:>8} {:>9} {:>9}",
                "median [ms]", "n", "launch", "× floor", "cycle", "× floor", "launch ↓", "cycle ↓"
            )?;
        }
        for i in &self.isolators {
            writeln!(
                f,
                "{:<48} {:>5} {:>9.2} {:>8.2} {:>9.2} {:>8.2} {:>9.2} {:>9.2}",
                i.what,
                i.samples,
                i.launch_ms,
                i.launch_times_floor,
                i.cycle_ms,
                i.cycle_times_floor,
                i.launch_min_ms,
                i.cycle_min_ms
            )?;
        }
        if !self.figures.is_empty() {
            writeln!(f, "{:<60} {:>12}", "figures", "")?;
        }
        for figure in &self.figures {
            writeln!(f, "{:<60} {:>12.2} {}", figure.what, figure.value, figure.unit)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_the_nearest() {
        let mut report = Report::default();
        report.latency(FLOOR, (1..=100).map(Duration::from_millis).collect());
        report.latency("other", vec![Duration::from_millis(102)]);
        let floor = &report.latencies[0];
        assert_eq!((floor.median_ms, floor.p99_ms, floor.min_ms, floor.max_ms), (51.0, 99.0, 1.0, 100.0));
        assert_eq!(report.latencies[1].times_floor, Some(2.0));
    }
}
