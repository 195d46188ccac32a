//! Ctrl-C: stops the network in order at any time.

use soma_p2p_cli::CliError;
use std::{
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// Why a network ends before its time.
pub(crate) enum Stop {
    Interrupted,
    Failed(CliError),
}

impl From<CliError> for Stop {
    fn from(error: CliError) -> Self {
        Self::Failed(error)
    }
}

/// A flag that Ctrl-C sets. It is not set a second time: the process ends then, and the nodes with it, whose standard
/// input ends.
pub(crate) fn on_ctrl_c() -> Result<Arc<AtomicBool>, CliError> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    let handler = move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    };
    ctrlc::set_handler(handler).map_err(CliError::failed)?;
    Ok(interrupted)
}

/// Says where the data is.
pub(crate) fn said(dir: &Path) -> ExitCode {
    eprintln!("interrupted; all nodes are stopped; data in {}", dir.display());
    ExitCode::from(INTERRUPTED)
}
