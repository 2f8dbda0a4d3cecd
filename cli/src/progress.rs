//! Progress on long work, on a terminal's standard error; elsewhere only what [`say`] says, a line each.

use std::{io::Write as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(120);

/// `count` things, with the time that is left.
pub fn bar(count: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(count).with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed} (left {eta})") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// Something of unknown length.
pub fn spinner(what: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}

/// A line that stays.
pub fn say(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() {
        // Nobody may be listening; the work goes on.
        let _heard = writeln!(std::io::stderr(), "{line}");
    } else {
        bar.println(line);
    }
}
