//! What an operator can do about an error of the system or of the database.

use std::io::{self, ErrorKind};

#[cfg(feature = "fjall")]
/// The system's error behind a database error, if there is one.
pub(super) fn system_error(error: &fjall::Error) -> Option<&io::Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        next = error.source();
    }
    None
}

#[cfg(feature = "fjall")]
pub(super) fn cause(error: &fjall::Error) -> String {
    match (system_error(error), error) {
        (Some(error), _) => error.to_string(),
        (None, fjall::Error::Poisoned) => {
            "a write of the database itself failed, and it takes no more (the log has its error)".to_owned()
        }
        (None, error) => format!("{error:?}"),
    }
}

/// Advice after a failure of the disk.
pub(super) fn advice_on_disk(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "the disk is full: free space on it, then restart the node"
        }
        _ => "check the disk, then restart the node",
    }
}

pub(super) fn advice_on_file(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename
        | ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem => "check that the path is right and that this user may write there",
        _ => advice_on_disk(error),
    }
}

#[cfg(feature = "fjall")]
pub(super) fn advice_on_database(error: &fjall::Error) -> &'static str {
    match (system_error(error), error) {
        // A truncated or missing file or an invalid offset causes these. They are damage, not failed system calls.
        (Some(error), _)
            if !matches!(
                error.kind(),
                ErrorKind::UnexpectedEof
                    | ErrorKind::InvalidData
                    | ErrorKind::InvalidInput
                    | ErrorKind::NotFound
                    | ErrorKind::Other
            ) =>
        {
            advice_on_disk(error)
        }
        (None, fjall::Error::Poisoned) => "free space on the disk or check the disk, then restart the node",
        _ => "check the disk, then restore the store from a copy or remove it and sync anew",
    }
}
