//! The page of settings: the comments of the configuration's fields, and their defaults.

use super::one_line;
use crate::public_api::workspace;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use soma_p2p::Config;
use std::fs;
use syn::{Fields, Item, ItemStruct};

/// The sections of `[p2p]`, and the types that hold them.
const SECTIONS: &[(&str, &str)] = &[
    ("", "Config"),
    ("discovery", "DiscoveryConfig"),
    ("connections", "ConnectionsConfig"),
    ("state_sync", "StateSyncConfig"),
    ("serving", "ServingConfig"),
    ("verifier", "VerifierConfig"),
    ("pruning", "PruningConfig"),
    ("archive", "ArchiveConfig"),
    ("broadcast", "BroadcastConfig"),
    ("trace", "TraceConfig"),
];

/// The files with these types.
const FILES: [&str; 3] = ["mod.rs", "archive.rs", "broadcast.rs"];

pub(super) fn page() -> Result<String> {
    let mut items = Vec::new();
    for file in FILES.map(|file| workspace().join("crates/soma-p2p/src/config").join(file)) {
        items.extend(syn::parse_file(&fs::read_to_string(&file).with_context(|| file.display().to_string())?)?.items);
    }
    let defaults = serde_json::to_value(Config::default())?;
    let mut page = String::from(
        "# Settings\n\n`make docs-reference` writes this page from `crates/soma-p2p/src/config`. \
         [Configuration](../operating/configuration.md)\nhas a whole file with the defaults. Sizes are in bytes. A duration \
         is text such as `\"5s\"`.\n",
    );
    let sections = defaults.as_object().into_iter().flatten().filter(|(_, value)| value.is_object());
    for (section, _) in sections {
        ensure!(SECTIONS.iter().any(|(listed, _)| listed == section), "SECTIONS lacks the section {section}");
    }
    for (section, name) in SECTIONS {
        let of_section = if section.is_empty() { Some(&defaults) } else { defaults.get(section) };
        let fields = items.iter().find_map(|item| match item {
            Item::Struct(item) if item.ident == name => Some(item),
            _ => None,
        });
        let fields = fields.with_context(|| format!("no struct {name}"))?;
        let title = if section.is_empty() { "p2p".to_string() } else { format!("p2p.{section}") };
        page.push_str(&format!(
            "\n## `[{title}]`\n\n{}\n\n| key | default | what |\n|---|---|---|\n",
            one_line(&fields.attrs)
        ));
        rows(fields, of_section, &mut page);
    }
    Ok(page)
}

fn rows(section: &ItemStruct, defaults: Option<&Value>, page: &mut String) {
    let Fields::Named(fields) = &section.fields else { return };
    for field in &fields.named {
        let key = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
        if SECTIONS.iter().any(|(section, _)| *section == key) {
            continue;
        }
        let default = match defaults.and_then(|defaults| defaults.get(&key)) {
            Some(Value::Null) => "none".to_string(),
            None if defaults.is_some() => "none".to_string(),
            None => "required".to_string(),
            Some(Value::Array(list)) if list.is_empty() => "none".to_string(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(other) => format!("`{other}`"),
        };
        page.push_str(&format!("| `{key}` | {default} | {} |\n", one_line(&field.attrs)));
    }
}
