//! How the modules of a crate lie in files.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use syn::Attribute;

/// The file of a module that another file declares.
pub(crate) fn file_of(parent: &Path, is_root: bool, name: &str) -> Result<PathBuf> {
    // `a.rs` and `a/mod.rs` have their children in `a/`, a root beside itself.
    let is_folder = is_root || parent.file_name().is_some_and(|name| name == "mod.rs");
    let folder = if is_folder { parent.with_file_name("") } else { parent.with_extension("") };
    let candidates = [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")];
    let found = candidates.into_iter().find(|file| file.is_file());
    found.with_context(|| format!("{}: no file of module {name}", folder.display()))
}

/// Whether an item is compiled for tests only.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}
