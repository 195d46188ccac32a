//! The rules of structure that `make lint` checks: which package may use which, no circle of modules, no long file.

mod circles;
mod dependencies;
mod file_length;

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;
use std::path::Path;

/// Every place of this workspace that breaks a rule.
///
/// # Errors
///
/// The workspace cannot be read.
pub fn violations() -> Result<Vec<String>> {
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata")?;
    let mut violations = dependencies::violations(&metadata.packages);
    for package in &metadata.packages {
        let source = package.manifest_path.with_file_name("src");
        let source = Path::new(source.as_str());
        violations.extend(file_length::violations(source)?);
        for root in ["lib.rs", "main.rs"].map(|name| source.join(name)) {
            if root.is_file() {
                violations.extend(circles::violations(&root)?);
            }
        }
    }
    Ok(violations)
}
