//! The page of limits: every named constant with a number or a duration, and its comment.

use super::{
    constants::{read, values},
    one_line,
};
use anyhow::Result;
use std::time::Duration;
use syn::Type;

/// The packages whose constants bound what a node does.
const PACKAGES: &[(&str, &str)] = &[
    ("crates/types", "The chain: every node must agree"),
    ("crates/verify", "Checks"),
    ("crates/network", "The wire protocol and the transport"),
    ("crates/protocol", "Decisions of the actors"),
    ("actors", "Shells of the actors"),
    ("crates/runtime", "Supervision and messages"),
    ("crates/store", "The store"),
    ("crates/replay", "Traces"),
    ("crates/soma-p2p", "The handle"),
    ("crates/cli", "The command"),
];

pub(super) fn page() -> Result<String> {
    let constants = read()?;
    let known = values(&constants);
    let mut page = String::from(
        "# Limits\n\n`make docs-reference` writes this page from the constants of the code. Every queue, buffer and list that a \
         peer can\nfill has one of these bounds. [Settings](settings.md) has the bounds that an operator can change.\n",
    );
    for (package, title) in PACKAGES {
        page.push_str(&format!("\n## {title} (`{package}`)\n\n| name | value | what | where |\n|---|---|---|---|\n"));
        for constant in constants.iter().filter(|constant| constant.file.starts_with(package)) {
            let (Some(value), comment) = (constant.value(&known), one_line(&constant.attributes)) else { continue };
            let place = constant.file.strip_prefix(package).unwrap_or(&constant.file).display().to_string();
            let place = place.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
            if !comment.is_empty() {
                let value = shown(&constant.name, &constant.kind, value);
                page.push_str(&format!("| `{}` | {value} | {comment} | `{place}` |\n", constant.name));
            }
        }
    }
    Ok(page)
}

/// A value with its unit: durations are in milliseconds here.
fn shown(name: &str, kind: &Type, value: u128) -> String {
    let is_duration = matches!(kind, Type::Path(path) if path.path.is_ident("Duration"));
    let is_bytes = ["BYTES", "BUFFER", "WINDOW", "FRAME", "ROOM"].iter().any(|word| name.contains(word));
    match u64::try_from(value) {
        Ok(milliseconds) if is_duration || name.ends_with("_MS") => {
            humantime::format_duration(Duration::from_millis(milliseconds)).to_string()
        }
        Ok(bytes) if is_bytes && bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        Ok(bytes) if is_bytes && bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        _ => with_commas(value),
    }
}

fn with_commas(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
