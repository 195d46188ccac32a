//! Keys, genesis and small state files: read with errors that name the file, written whole or not at all.

use crate::error::CliError;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, spki::der::pem::LineEnding};
use soma_p2p::{Genesis, SigningKey};
use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// A new key, from the operating system's randomness.
pub fn new_key() -> Result<SigningKey, CliError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(CliError::failed)?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Writes a key as PKCS#8 PEM that only its owner may read. Never overwrites one.
pub fn write_key(path: &Path, key: &SigningKey) -> Result<(), CliError> {
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(CliError::failed)?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| {
        let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all());
        // Half a key would only be in the way of the next attempt.
        written.inspect_err(|_| drop(fs::remove_file(path)))
    });
    written.map_err(|error| CliError::input(format!("key file {} cannot be written: {error}", path.display())))
}

/// Reads a key.
pub fn read_key(path: &Path) -> Result<SigningKey, CliError> {
    let pem = read_text(path, "key file", "make one with `soma-p2p keygen`")?;
    // The parser's reason says nothing about a file that is no PEM at all, and this says it of every other.
    SigningKey::from_pkcs8_pem(&pem).map_err(|_| {
        let path = path.display();
        CliError::input(format!("key file {path} is no ed25519 key in PKCS#8 PEM; make one with `soma-p2p keygen`"))
    })
}

/// Reads a text file; `hint` says where such files come from.
pub fn read_text(path: &Path, what: &str, hint: &str) -> Result<String, CliError> {
    fs::read_to_string(path)
        .map_err(|error| CliError::input(format!("{what} {} cannot be read: {error}; {hint}", path.display())))
}

/// Reads and checks a genesis file.
pub fn read_genesis(path: &Path) -> Result<Genesis, CliError> {
    let bytes = fs::read(path).map_err(|error| {
        let path = path.display();
        CliError::input(format!("genesis file {path} cannot be read: {error}; the chain's operators publish it"))
    })?;
    Genesis::decode(&bytes).map_err(|error| {
        let path = path.display();
        CliError::input(format!("genesis file {path} is not valid: {error}; the chain's operators publish it"))
    })
}

/// Replaces a file in one step: a crash leaves the old one or the new one.
pub fn replace(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let readable = fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(directory)?;
    file.write_all(contents)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Refuses a file that is there.
pub fn check_new(path: &Path) -> Result<(), CliError> {
    if path.exists() {
        return Err(CliError::input(format!("{} is there already; choose another file", path.display())));
    }
    Ok(())
}

/// Writes a new file, whole or not at all.
pub fn write_new(path: &Path, contents: &[u8]) -> Result<(), CliError> {
    check_new(path)?;
    replace(path, contents).map_err(|error| CliError::failed(format!("{} cannot be written: {error}", path.display())))
}

/// Removes a directory with all that is in it, if it is there.
pub fn remove_dir(path: &Path) -> Result<(), CliError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(CliError::failed(format!("{} cannot be removed: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
