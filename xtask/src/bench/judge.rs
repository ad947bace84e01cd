//! What the figures say: medians, spread, ratios run by run, and whether a bound is reached.

use super::bounds::{Bound, Limit, What};
use super::figures::{Cell, Line};
use super::run::Sample;
use super::show::{bytes, duration};

/// A value with the least and the most that was read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

/// Whether a bound is reached.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// The bound, in words.
    pub bound: String,
    /// What was read, in words.
    pub read: String,
    /// Unknown where the other tool was not measured.
    pub reached: Option<bool>,
}

impl Spread {
    /// Of nothing, nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            median: median(values),
            min: values.iter().copied().reduce(f64::min)?,
            max: values.iter().copied().reduce(f64::max)?,
        })
    }

    /// `median (min–max)`.
    pub fn show(self, show: impl Fn(f64) -> String) -> String {
        let [median, min, max] = [self.median, self.min, self.max].map(show);
        if min == max {
            median
        } else {
            format!("{median} ({min}–{max})")
        }
    }
}

/// The middle value, or the mean of the two in the middle; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// One figure of a run; nothing where the run does not have it.
#[allow(clippy::cast_precision_loss, reason = "shown with three digits")]
pub fn figure(sample: &Sample, what: What) -> Option<f64> {
    match what {
        What::Wall => Some(sample.wall),
        What::P99 => percentile(&sample.walls, 99),
        What::Wire => Some(sample.wire as f64),
        What::Cpu => Some(sample.cpu),
        What::Memory => Some(sample.memory as f64),
        What::Twice => sample.twice,
    }
}

/// A tool's figures over its runs. The percentile is one of all changes of all runs.
pub fn spread(cell: &Cell, what: What) -> Option<Spread> {
    if what == What::P99 {
        let walls = cell.samples.values().flat_map(|sample| &sample.walls);
        let walls: Vec<f64> = walls.copied().collect();
        let several = cell.samples.values().any(|sample| sample.walls.len() > 1);
        return several
            .then(|| percentile(&walls, 99))
            .flatten()
            .and_then(|p99| Spread::of(&[p99]));
    }
    let values = cell.samples.values().filter_map(|s| figure(s, what));
    Spread::of(&values.collect::<Vec<f64>>())
}

/// LEFT's figure divided by the other tool's, run by run: below 1, LEFT is better. Runs of one
/// number were made one after the other, so what slowed the machine then slowed both.
pub fn ratio(left: &Cell, other: &Cell, what: What) -> Option<Spread> {
    let pairs = left.samples.iter().filter_map(|(number, ours)| {
        let theirs = other.samples.get(number)?;
        Some((figure(ours, what)?, figure(theirs, what)?))
    });
    let ratios = pairs.filter(|(_, theirs)| *theirs > 0.0);
    Spread::of(&ratios.map(|(a, b)| a / b).collect::<Vec<f64>>())
}

/// Whether `line` reaches `bound`; nothing where LEFT was not measured.
pub fn judge(line: &Line, bound: &Bound) -> Option<Verdict> {
    let cell = |tool: &str| line.cells.iter().find(|cell| cell.tool == tool);
    let left = cell("left")?;
    let name = match bound.what {
        What::Wall if left.samples.values().any(|s| s.walls.len() > 1) => "p50",
        What::Wall => "wall",
        What::P99 => "p99",
        What::Wire => "wire",
        What::Cpu => "CPU",
        What::Memory => "RSS",
        What::Twice => "twice",
    };
    match bound.limit {
        Limit::Most(limit) => {
            let show = |value: f64| match bound.what {
                What::Wall | What::P99 => duration(value),
                What::Cpu => format!("{value:.2} s"),
                What::Wire | What::Memory => bytes(value),
                What::Twice => format!("{:.2} %", value * 100.0),
            };
            let read = spread(left, bound.what)?.median;
            Some(Verdict {
                bound: format!("{name} ≤ {}", show(limit)),
                read: show(read),
                reached: Some(read <= limit),
            })
        }
        Limit::Times(factor, tool) => {
            let read = cell(tool).and_then(|other| ratio(left, other, bound.what));
            Some(Verdict {
                bound: format!("{name} ≤ {factor} × {tool}"),
                read: read.map_or_else(|| "?".into(), |r| format!("{:.2}", r.median)),
                reached: read.map(|r| r.median <= factor),
            })
        }
    }
}

impl Verdict {
    /// In one phrase.
    pub fn show(&self) -> String {
        let how = match self.reached {
            Some(true) => "reached",
            Some(false) => "**MISSED**",
            None => "not compared",
        };
        format!("{}: {how} ({})", self.bound, self.read)
    }
}

fn percentile(values: &[f64], part: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * part).div_ceil(100).checked_sub(1)?;
    sorted.get(place).copied()
}

#[cfg(test)]
mod tests {
    use super::{judge, median, ratio, spread};
    use crate::bench::bounds::{Bound, Limit, What};
    use crate::bench::figures::{Cell, Line};
    use crate::bench::run::Sample;

    fn cell(tool: &str, walls: &[&[f64]]) -> Cell {
        let samples = walls.iter().enumerate().map(|(n, walls)| {
            let sample = Sample {
                wall: median(walls),
                walls: walls.to_vec(),
                wire: 1000,
                ..Sample::default()
            };
            (u32::try_from(n).expect("few"), sample)
        });
        Cell {
            tool: tool.into(),
            durable: "yes".into(),
            samples: samples.collect(),
            failures: Vec::new(),
        }
    }

    fn line(cells: Vec<Cell>) -> Line {
        Line {
            name: "row".into(),
            title: "a row".into(),
            link: None,
            cells,
        }
    }

    fn bound(what: What, limit: Limit) -> Bound {
        Bound {
            row: "row",
            what,
            limit,
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]).to_bits(), 0.0_f64.to_bits());
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_percentile_is_of_all_changes_and_needs_several() {
        assert!(spread(&cell("left", &[&[1.0], &[3.0]]), What::P99).is_none());
        let many = spread(&cell("left", &[&[1.0, 2.0], &[9.0, 1.0]]), What::P99);
        assert!(many.is_some_and(|s| (s.median - 9.0).abs() < 1e-9));
    }

    #[test]
    fn ratios_are_taken_run_by_run() {
        // The second run met a slow machine: both tools needed twice the time.
        let left = cell("left", &[&[1.0], &[2.0], &[1.0]]);
        let other = cell("rsync", &[&[2.0], &[4.0], &[1.0]]);
        let ratio = ratio(&left, &other, What::Wall).expect("pairs");
        assert!((ratio.median - 0.5).abs() < 1e-9);
        assert!((ratio.min - 0.5).abs() < 1e-9 && (ratio.max - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_bound_is_reached_or_missed_or_not_compared() {
        let both = line(vec![cell("left", &[&[1.0]]), cell("rsync", &[&[1.25]])]);
        let reached = |line: &Line, limit| {
            judge(line, &bound(What::Wall, limit)).map(|verdict| verdict.reached)
        };
        assert_eq!(reached(&both, Limit::Most(1.0)), Some(Some(true)));
        assert_eq!(reached(&both, Limit::Most(0.99)), Some(Some(false)));
        assert_eq!(reached(&both, Limit::Times(0.8, "rsync")), Some(Some(true)));
        assert_eq!(
            reached(&both, Limit::Times(0.79, "rsync")),
            Some(Some(false))
        );
        assert_eq!(reached(&both, Limit::Times(1.0, "unison")), Some(None));
        assert_eq!(reached(&line(Vec::new()), Limit::Most(1.0)), None);
        let wire = judge(&both, &bound(What::Wire, Limit::Most(999.0)));
        assert_eq!(wire.map(|verdict| verdict.reached), Some(Some(false)));
    }
}
