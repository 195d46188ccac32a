//! The directory of a network: taken for one run, cleared of what an earlier one left.

use soma_p2p_cli::CliError;
use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

/// Marks a directory as ours, to be replaced by the next run.
const MARKER: &str = "localnet.lock";

/// Makes the directory, replacing what an earlier run left, and nothing else. It is ours for as long as the file that
/// is given back is open: not even a run at the same time replaces it.
pub(crate) fn prepare(dir: &Path) -> Result<File, CliError> {
    let refuse = |error: std::io::Error| CliError::input(format!("--dir {}: {error}", dir.display()));
    match fs::read_dir(dir) {
        Ok(mut entries) => {
            let ours = dir.join(MARKER).exists();
            if entries.next().is_some() && !ours {
                let reason = "is not empty and was not made by localnet; choose another";
                return Err(CliError::input(format!("--dir {} {reason}", dir.display())));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(refuse(error)),
    }
    fs::create_dir_all(dir).map_err(refuse)?;
    let marker = File::options().create(true).append(true).open(dir.join(MARKER)).map_err(refuse)?;
    marker.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            CliError::input(format!("--dir {} is in use by another localnet; choose another", dir.display()))
        }
        TryLockError::Error(error) => refuse(error),
    })?;
    for entry in fs::read_dir(dir).map_err(refuse)? {
        let entry = entry.map_err(refuse)?;
        if entry.file_name() == MARKER {
            continue;
        }
        let directory = entry.file_type().map_err(refuse)?.is_dir();
        let removed = if directory { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        removed.map_err(refuse)?;
    }
    Ok(marker)
}
