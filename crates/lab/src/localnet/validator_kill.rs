//! Kills validators, watches the chain without them, and has them return.
//!
//! ```text
//!   before --all make blocks--> down --chain went on, or stood still and said why--> returned --blocks in commits--> done
//! ```

use super::{
    progress::Display,
    report::ValidatorKillReport,
    validators::{Validators, is_quorum},
};
use soma_p2p::{CommitIndex, Genesis};
use soma_p2p_cli::CliError;
use std::time::{Duration, Instant};

/// Blocks of each validator that must be in commits before it is killed, and after it has returned.
const BLOCKS: u64 = 5;

/// Commits that must come while validators are down and a quorum lives.
const COMMITS: CommitIndex = 10;

/// How long a chain without a quorum may take to stand still: what is in flight is committed.
const IN_FLIGHT: Duration = Duration::from_secs(2);

/// How long each step may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(120);

enum Step {
    Before,
    Down { height: CommitIndex },
    Returned,
    Done,
}

/// The killing.
pub(super) struct ValidatorKill {
    victims: Vec<usize>,
    has_quorum: bool,
    step: Step,
    since: Instant,
    report: ValidatorKillReport,
}

impl ValidatorKill {
    /// Of `size` validators, the last `count` will be killed: the first one is the seed peer.
    pub(super) fn new(count: usize, size: usize, genesis: &Genesis) -> Self {
        let victims: Vec<_> = (size.saturating_sub(count)..size).collect();
        let report = ValidatorKillReport {
            validators: victims.iter().map(|index| format!("validator-{index}")).collect(),
            has_quorum: is_quorum(genesis, size - victims.len()),
            ..ValidatorKillReport::default()
        };
        Self { has_quorum: report.has_quorum, victims, step: Step::Before, since: Instant::now(), report }
    }

    /// What came of it, once it is done.
    pub(super) fn report(&self) -> Option<&ValidatorKillReport> {
        matches!(self.step, Step::Done).then_some(&self.report)
    }

    /// Goes on, after a look at the validators.
    pub(super) fn advance(&mut self, validators: &mut Validators, display: &Display) -> Result<(), CliError> {
        let head = validators.head();
        match self.step {
            Step::Before if validators.all().iter().all(|validator| validator.committed_blocks() >= BLOCKS) => {
                for victim in &self.victims {
                    validators.kill(*victim)?;
                }
                self.report.height = head;
                display.say(&format!("{} killed (SIGKILL) at commit {head}", self.report.validators.join(", ")));
                self.begin(Step::Down { height: head });
            }
            Step::Down { .. } if self.has_quorum && head >= self.report.height + COMMITS => {
                self.report.commits_meanwhile = head - self.report.height;
                display.say(&format!("the chain goes on without them, to commit {head}"));
                self.restart(validators)?;
            }
            Step::Down { height } if !self.has_quorum && head > height => {
                if self.since.elapsed() > IN_FLIGHT {
                    return Err(CliError::failed(format!("without a quorum, commit {head} came after {height}")));
                }
                self.step = Step::Down { height: head };
            }
            Step::Down { height } if !self.has_quorum && self.since.elapsed() > IN_FLIGHT => {
                let told = |text: &str| self.victims.iter().all(|index| text.contains(&format!("validator {index} ")));
                let up = validators.all().iter().filter(|validator| validator.is_up());
                if let Some(cause) = up.map(|validator| &validator.explanation).find(|text| told(text)) {
                    self.report.commits_meanwhile = height - self.report.height;
                    self.report.cause = Some(cause.clone());
                    display.say(&format!("the chain stands still at commit {height}: {cause}"));
                    self.restart(validators)?;
                }
            }
            Step::Returned => {
                let blocks = self.victims.iter().filter_map(|index| validators.all().get(*index));
                let blocks = blocks.map(|validator| validator.committed_blocks()).min().unwrap_or(0);
                if blocks >= BLOCKS {
                    self.report.seconds_to_return = self.since.elapsed().as_secs_f64();
                    display.say(&format!("{} take part again at commit {head}", self.report.validators.join(", ")));
                    self.begin(Step::Done);
                }
            }
            _ => {}
        }
        let (is_late, what) = match self.step {
            Step::Before => (true, "not every validator has made blocks"),
            Step::Down { .. } if self.has_quorum => (true, "the chain does not go on with a quorum alive"),
            Step::Down { .. } => (true, "no status says that the killed validators are silent"),
            Step::Returned => (true, "the killed validators do not take part again"),
            Step::Done => (false, ""),
        };
        if is_late && self.since.elapsed() > STEP_TIMEOUT {
            return Err(CliError::failed(format!("{what} after {} s; see the node.log files", STEP_TIMEOUT.as_secs())));
        }
        Ok(())
    }

    fn restart(&mut self, validators: &mut Validators) -> Result<(), CliError> {
        for victim in &self.victims {
            validators.start(*victim)?;
        }
        self.begin(Step::Returned);
        Ok(())
    }

    fn begin(&mut self, step: Step) {
        self.step = step;
        self.since = Instant::now();
    }
}
