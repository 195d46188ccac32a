//! Writes the reference pages from the code: `docs/reference/limits.md`, `settings.md` and `metrics.md`.

pub mod constants;
mod limits;
mod metrics;
mod settings;

use crate::public_api::workspace;
use anyhow::Result;
use std::path::PathBuf;

/// Every reference page, and where it lies.
///
/// # Errors
///
/// A source cannot be read.
pub fn pages() -> Result<Vec<(PathBuf, String)>> {
    let folder = workspace().join("docs/reference");
    let pages = [("limits.md", limits::page()?), ("metrics.md", metrics::page()), ("settings.md", settings::page()?)];
    Ok(pages.into_iter().map(|(name, page)| (folder.join(name), page)).collect())
}

/// A comment of the code as one line of a table.
fn one_line(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        syn::Meta::NameValue(comment) if comment.path.is_ident("doc") => match &comment.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(line), .. }) => Some(line.value().trim().to_string()),
            _ => None,
        },
        _ => None,
    });
    let text = lines.collect::<Vec<_>>().join(" ");
    // Links of rustdoc lead nowhere from here.
    text.trim().replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}
