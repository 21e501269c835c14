//! Progress on standard error: a bar where it is a terminal, silence elsewhere.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `total` items of work called `what`.
pub fn bar(what: &'static str, total: usize) -> ProgressBar {
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg:>20} [{bar:40}] {pos}/{len} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// A spinner for work of unknown length.
pub fn spinner(what: String) -> ProgressBar {
    let spinner = ProgressBar::new_spinner();
    spinner.set_message(what);
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    spinner
}
