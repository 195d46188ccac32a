//! What one sees meanwhile: bars on a terminal, a line each second otherwise, nothing with `--json`.

use super::sample::Sample;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// Time between two lines when there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// How the network's progress is shown.
pub(crate) enum Display {
    Bars(MultiProgress),
    Lines,
    Silent,
}

impl Display {
    pub(crate) fn new(json: bool) -> Self {
        if json {
            Self::Silent
        } else if std::io::stderr().is_terminal() {
            Self::Bars(MultiProgress::new())
        } else {
            Self::Lines
        }
    }

    /// Says one thing.
    pub(crate) fn say(&self, text: &str) {
        match self {
            // Without a terminal indicatif prints nothing, so only unseen lines are lost.
            Self::Bars(bars) => drop(bars.println(text)),
            Self::Lines => eprintln!("{text}"),
            Self::Silent => {}
        }
    }

    /// A task of `total` steps.
    pub(crate) fn task(&self, name: &str, total: u32) -> Task {
        let bar = match self {
            Self::Bars(bars) => {
                let bar = bars.add(ProgressBar::new(total.into()));
                let template = "{prefix:<12} {bar:32} {pos:>6}/{len} {percent:>3} % {msg}";
                // A template that does not parse falls back to the default style.
                let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
                bar.set_style(style);
                bar.set_prefix(name.to_owned());
                Some(bar)
            }
            Self::Lines | Self::Silent => None,
        };
        let lines = matches!(self, Self::Lines);
        Task { name: name.to_owned(), bar, lines, started: Instant::now(), last_line: None, unsaid: None }
    }
}

/// One thing that goes on.
pub(crate) struct Task {
    name: String,
    bar: Option<ProgressBar>,
    lines: bool,
    started: Instant,
    last_line: Option<Instant>,
    /// The newest line, if it came too soon after the last one.
    unsaid: Option<String>,
}

impl Task {
    /// Shows where it is.
    pub(crate) fn show(&mut self, done: u32, total: u32, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total.into());
            bar.set_position(done.into());
            bar.set_message(message.to_owned());
        }
        if self.lines {
            let percent = u64::from(done) * 100 / u64::from(total.max(1));
            let seconds = self.started.elapsed().as_secs_f64();
            let line = format!("[{seconds:6.1} s] {}: commit {done} of {total} ({percent} %) {message}", self.name);
            if self.last_line.is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
                self.last_line = Some(Instant::now());
                self.unsaid = None;
                eprintln!("{line}");
            } else {
                self.unsaid = Some(line);
            }
        }
    }

    /// Shows a full node.
    pub(in crate::localnet) fn show_node(&mut self, sample: &Sample, head: u32) {
        self.show(sample.height, head.max(sample.height), &sample.describe(head));
    }

    /// Ends it, where it was shown last.
    pub(crate) fn finish(self) {
        if let Some(line) = self.unsaid {
            eprintln!("{line}");
        }
        if let Some(bar) = self.bar {
            bar.finish();
        }
    }
}
