//! One measured workload: ours, the baseline, and whether the target was met.

use serde::Serialize;

/// A line of a benchmark table and an object of its JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Stable name of the workload.
    pub id: &'static str,
    /// What was done, for people.
    pub name: String,
    /// Our figure: the median over the rounds.
    pub ours: Option<f64>,
    /// The baseline's figure: its median, or the bound where the target is a bound.
    pub baseline: Option<f64>,
    /// What the baseline is.
    pub baseline_name: String,
    /// Unit of both figures.
    pub unit: &'static str,
    /// How many times better ours is; over 1 means better.
    pub ratio: Option<f64>,
    /// The ratio to reach.
    pub target: f64,
    /// Whether it was reached. A baseline that could not run counts as missed.
    pub met: bool,
}

/// Which way a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Times, bytes.
    Lower,
    /// Rates.
    Higher,
}

impl Row {
    /// A row from the samples of interleaved rounds.
    pub fn compare(
        id: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        better: Better,
        samples: &Samples,
        baseline_name: impl Into<String>,
        target: f64,
    ) -> Self {
        Self::from_figures(
            id,
            name,
            unit,
            better,
            median(&samples.ours),
            median(&samples.baseline),
            baseline_name,
            target,
        )
    }

    /// A row against a fixed bound: reached when `ours` is no worse than `bound`.
    pub fn bound(
        id: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        better: Better,
        ours: Option<f64>,
        bound: f64,
    ) -> Self {
        Self::from_figures(id, name, unit, better, ours, Some(bound), "bound", 1.0)
    }

    #[expect(clippy::too_many_arguments, reason = "the two constructors above name them")]
    fn from_figures(
        id: &'static str,
        name: impl Into<String>,
        unit: &'static str,
        better: Better,
        ours: Option<f64>,
        baseline: Option<f64>,
        baseline_name: impl Into<String>,
        target: f64,
    ) -> Self {
        let ratio = match (ours, baseline) {
            (Some(ours), Some(baseline)) if ours > 0.0 && baseline > 0.0 => Some(match better {
                Better::Lower => baseline / ours,
                Better::Higher => ours / baseline,
            }),
            _ => None,
        };
        Self {
            id,
            name: name.into(),
            ours,
            baseline,
            baseline_name: baseline_name.into(),
            unit,
            ratio,
            target,
            met: ratio.is_some_and(|ratio| ratio >= target),
        }
    }
}

/// What interleaved rounds measured.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Ours, one a round.
    pub ours: Vec<f64>,
    /// The baseline's, one a round.
    pub baseline: Vec<f64>,
}

impl Samples {
    /// Runs both sides `rounds` times, in turns, so that a busy minute hits both.
    ///
    /// # Errors
    /// The first error of either side.
    pub fn interleave(
        rounds: usize,
        mut ours: impl FnMut(usize) -> anyhow::Result<f64>,
        mut baseline: impl FnMut(usize) -> anyhow::Result<f64>,
    ) -> anyhow::Result<Self> {
        let mut samples = Self::default();
        for round in 0..rounds {
            samples.ours.push(ours(round)?);
            samples.baseline.push(baseline(round)?);
        }
        Ok(samples)
    }
}

/// The middle one, or `None` of none.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Prints the rows as an aligned table.
pub fn print_table(rows: &[Row]) {
    let figure = |figure: Option<f64>| match figure {
        None => "-".to_owned(),
        Some(x) if x.abs() >= 1000.0 => format!("{x:.0}"),
        Some(x) if x.abs() >= 10.0 => format!("{x:.1}"),
        Some(x) => format!("{x:.3}"),
    };
    println!(
        "{:<58} {:>11} {:>11} {:<8} {:>7} {:>7}  {:<4} against",
        "workload", "ours", "baseline", "unit", "ratio", "target", "met"
    );
    for row in rows {
        println!(
            "{:<58} {:>11} {:>11} {:<8} {:>7} {:>7}  {:<4} {}",
            row.name,
            figure(row.ours),
            figure(row.baseline),
            row.unit,
            figure(row.ratio),
            figure(Some(row.target)),
            if row.met { "yes" } else { "NO" },
            row.baseline_name,
        );
    }
}
