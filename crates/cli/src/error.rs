//! What went wrong, as one line and an exit code.

use std::{fmt::Display, process::ExitCode};

/// Why a command ended without doing its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The given input cannot be used. Nothing was written.
    #[error("{0}")]
    Input(String),
    /// It failed on the way.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// The input cannot be used; nothing was written.
    pub fn input(error: impl Display) -> Self {
        Self::Input(error.to_string())
    }

    /// The command failed on the way.
    pub fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// 2 for wrong input, 1 for a failure.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Input(_) => ExitCode::from(2),
            Self::Failed(_) => ExitCode::FAILURE,
        }
    }
}
