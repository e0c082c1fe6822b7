//! What an evaluation may spend: the caller hands in probes and bounds, the engine checks them often
//! and stops with an error that names the bound and its figure.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bounds of one query or pull. `Default` is bounded in everything but time.
///
/// The engine knows no clock: `deadline` answers whether the time is up, and the caller decides what
/// time is.
#[derive(Clone)]
pub struct Budget {
    /// Asked every few thousand rows; `true` ends the evaluation with [`Exceeded::Deadline`].
    pub deadline: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
    /// Set from outside to end the evaluation with [`Exceeded::Cancelled`].
    pub cancel: Option<Arc<AtomicBool>>,
    /// Rows that any one relation on the way, or the result, may have.
    pub rows_max: usize,
    /// Bytes that all relations and interned values together may take, as estimated by the engine.
    pub bytes_max: usize,
    /// Rounds of a recursive rule, levels of a recursive pull.
    pub recursion_max: usize,
}

/// Four GiB, or a quarter of what a 32-bit process can address.
const BYTES: usize = if usize::BITS > 32 { 4 << 30 } else { 1 << 30 };

impl Default for Budget {
    fn default() -> Self {
        Self {
            deadline: None,
            cancel: None,
            rows_max: 50_000_000,
            bytes_max: BYTES,
            recursion_max: 1_000_000,
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("deadline", &self.deadline.is_some())
            .field("cancel", &self.cancel)
            .field("rows_max", &self.rows_max)
            .field("bytes_max", &self.bytes_max)
            .field("recursion_max", &self.recursion_max)
            .finish()
    }
}

/// The bound that an evaluation passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Exceeded {
    /// The caller's clock said stop.
    #[error("the deadline passed before the evaluation was done")]
    Deadline,
    /// The caller's flag said stop.
    #[error("the evaluation was cancelled")]
    Cancelled,
    /// [`Budget::rows_max`]
    #[error(
        "an intermediate result has {rows} rows, {max} are allowed: bind more variables or raise the row limit"
    )]
    Rows {
        /// Rows reached.
        rows: usize,
        /// The bound.
        max: usize,
    },
    /// [`Budget::bytes_max`]
    #[error("the evaluation holds about {bytes} bytes, {max} are allowed")]
    Memory {
        /// Bytes reached.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// [`Budget::recursion_max`]
    #[error("recursion reached {depth} rounds, {max} are allowed")]
    Recursion {
        /// Rounds reached.
        depth: usize,
        /// The bound.
        max: usize,
    },
}

impl Exceeded {
    /// A stable code: `query/timeout`, `query/cancelled`, `query/rows`, `query/memory`, `query/recursion`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Deadline => "query/timeout",
            Self::Cancelled => "query/cancelled",
            Self::Rows { .. } => "query/rows",
            Self::Memory { .. } => "query/memory",
            Self::Recursion { .. } => "query/recursion",
        }
    }
}

/// Units of work between two looks at the clock and the flag.
const WORK_PER_CHECK: usize = 4096;

/// Counts work against a [`Budget`].
#[derive(Debug)]
pub(crate) struct Meter {
    budget: Budget,
    work: usize,
}

impl Meter {
    /// Fails at once when the evaluation is already cancelled or late.
    pub(crate) fn start(budget: &Budget) -> Result<Self, Exceeded> {
        let mut meter = Self { budget: budget.clone(), work: 0 };
        meter.check_now()?;
        Ok(meter)
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Counts `units` of work; looks at the clock and the flag every [`WORK_PER_CHECK`] of them.
    #[inline]
    pub(crate) fn work(&mut self, units: usize) -> Result<(), Exceeded> {
        self.work += units;
        if self.work >= WORK_PER_CHECK { self.check_now() } else { Ok(()) }
    }

    fn check_now(&mut self) -> Result<(), Exceeded> {
        self.work = 0;
        if self.budget.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Exceeded::Cancelled);
        }
        if self.budget.deadline.as_ref().is_some_and(|passed| passed()) {
            return Err(Exceeded::Deadline);
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn rows(&self, rows: usize) -> Result<(), Exceeded> {
        if rows > self.budget.rows_max {
            return Err(Exceeded::Rows { rows, max: self.budget.rows_max });
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn bytes(&self, bytes: usize) -> Result<(), Exceeded> {
        if bytes > self.budget.bytes_max {
            return Err(Exceeded::Memory { bytes, max: self.budget.bytes_max });
        }
        Ok(())
    }

    pub(crate) fn recursion(&self, depth: usize) -> Result<(), Exceeded> {
        if depth > self.budget.recursion_max {
            return Err(Exceeded::Recursion { depth, max: self.budget.recursion_max });
        }
        Ok(())
    }
}
