//! The public items of the facade, read from the sources: what another project that depends on `soma-p2p` can name.
//!
//! [`outline`] prints them for the golden file `crates/soma-p2p/public-api.txt`. [`unexported`] finds types that
//! stand in a public signature and that nobody outside can name.

mod outline;

use anyhow::{Context, Result};
use outline::{Outline, exported_names};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::{Path, PathBuf},
};
use syn::visit::Visit;

/// The facade, and the crates that it re-exports as modules.
const WHOLE: &[(&str, &str)] = &[
    ("soma_p2p", "crates/soma-p2p"),
    ("soma_types", "crates/types"),
    ("soma_verify", "crates/verify"),
    ("soma_store", "crates/store"),
    ("soma_network", "crates/network"),
];

/// The crates of which the facade re-exports single names.
const IN_PART: &[(&str, &str)] = &[
    ("soma_protocol", "crates/protocol"),
    ("soma_replay", "crates/replay"),
    ("soma_runtime", "crates/runtime"),
    ("soma_actors", "actors"),
];

/// The root of this workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("")
}

/// The golden file.
pub fn golden_file() -> PathBuf {
    workspace().join("crates/soma-p2p/public-api.txt")
}

/// Every public item of the facade, in the order of the sources, without comments and bodies.
///
/// # Errors
///
/// A source cannot be read.
pub fn outline() -> Result<String> {
    let mut text = String::from(
        "// Every public item that a project which depends on soma-p2p can name. `make public-api` writes this file.\n",
    );
    for (name, outline) in read()? {
        for (path, file) in outline.modules {
            if !file.items.is_empty() {
                write!(
                    text,
                    "\n// {}\n{}",
                    [&[name.to_string()][..], &path].concat().join("::"),
                    prettyplease::unparse(&file)
                )?;
            }
        }
    }
    Ok(text)
}

/// Types of this workspace that public items of the facade use, and that it does not export.
///
/// # Errors
///
/// A source cannot be read.
pub fn unexported() -> Result<BTreeSet<String>> {
    let exported = read()?;
    let mut used = Used::default();
    let mut named = BTreeSet::new();
    for (_, outline) in &exported {
        named.extend(outline.type_names());
        outline.modules.iter().for_each(|(_, file)| used.visit_file(file));
    }
    let mut ours = BTreeSet::new();
    for (_, folder) in IN_PART {
        ours.extend(Outline::read(&root_file(folder), None)?.type_names());
    }
    Ok(used.0.into_iter().filter(|name| ours.contains(name) && !named.contains(name)).collect())
}

fn root_file(folder: &str) -> PathBuf {
    workspace().join(folder).join("src/lib.rs")
}

fn read() -> Result<Vec<(&'static str, Outline)>> {
    let facade = root_file("crates/soma-p2p");
    let text = std::fs::read_to_string(&facade).with_context(|| facade.display().to_string())?;
    let facade = syn::parse_file(&text)?;
    let whole = WHOLE.iter().map(|(name, folder)| Ok((*name, Outline::read(&root_file(folder), None)?)));
    let in_part = IN_PART.iter().map(|(name, folder)| {
        let names = exported_names(&facade.items, name);
        Ok((*name, Outline::read(&root_file(folder), Some(&names))?))
    });
    whole.chain(in_part).collect()
}

/// The last names of all types that are mentioned.
#[derive(Default)]
struct Used(BTreeSet<String>);

impl<'ast> Visit<'ast> for Used {
    fn visit_item_use(&mut self, _: &'ast syn::ItemUse) {}

    fn visit_type_path(&mut self, path: &'ast syn::TypePath) {
        // With a crate or a module before it, it is another crate's, or named already.
        if let Some(name) = path.path.get_ident() {
            self.0.insert(name.to_string());
        }
        syn::visit::visit_type_path(self, path);
    }
}
