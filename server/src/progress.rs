//! Progress on a terminal; nowhere else.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `total` bytes.
pub(crate) fn bytes(total: u64, what: &'static str) -> ProgressBar {
    styled(ProgressBar::new(total), "{msg} {bar:40} {bytes}/{total_bytes} {eta}", what)
}

/// Bytes that come in, nobody knows how many.
pub(crate) fn incoming(what: &'static str) -> ProgressBar {
    let bar = styled(ProgressBar::no_length(), "{spinner} {msg} {bytes} {bytes_per_sec}", what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn styled(bar: ProgressBar, template: &str, what: &'static str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what)
}
