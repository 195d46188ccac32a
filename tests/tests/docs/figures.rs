//! The figures in the documents are those in the code.

use crate::{root, rust_files};
use soma_network::wire::limits as wire;
use soma_p2p::Config;
use soma_protocol::state_sync;
use soma_types::limits;
use std::{collections::BTreeMap, fs};
use syn::{BinOp, Expr, Item, Lit};

/// The values of constants by their names, several where several files have one of that name. Durations in milliseconds.
type Constants = BTreeMap<String, Vec<u128>>;

fn document(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// Every `const` and `static` at the top of a module, with its expression.
fn expressions() -> Vec<(String, Expr)> {
    fn collect(items: Vec<Item>, found: &mut Vec<(String, Expr)>) {
        for item in items {
            match item {
                Item::Const(item) => found.push((item.ident.to_string(), *item.expr)),
                Item::Static(item) => found.push((item.ident.to_string(), *item.expr)),
                Item::Mod(item) => collect(item.content.map(|(_, items)| items).unwrap_or_default(), found),
                Item::Impl(item) => found.extend(item.items.into_iter().filter_map(|item| match item {
                    syn::ImplItem::Const(item) => Some((item.ident.to_string(), item.expr)),
                    _ => None,
                })),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    let files = ["crates", "actors"].map(|folder| rust_files(&root().join(folder)));
    for file in files.concat().into_iter().filter(|file| file.iter().any(|folder| folder == "src")) {
        collect(syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap().items, &mut found);
    }
    found
}

fn value(expression: &Expr, known: &Constants) -> Option<u128> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.base10_parse().ok(),
            _ => None,
        },
        Expr::Paren(inner) => value(&inner.expr, known),
        Expr::Cast(cast) => value(&cast.expr, known),
        Expr::Binary(binary) => {
            let (left, right) = (value(&binary.left, known)?, value(&binary.right, known)?);
            match binary.op {
                BinOp::Add(_) => left.checked_add(right),
                BinOp::Sub(_) => left.checked_sub(right),
                BinOp::Mul(_) => left.checked_mul(right),
                BinOp::Div(_) => left.checked_div(right),
                BinOp::Shl(_) => left.checked_shl(right.try_into().ok()?),
                _ => None,
            }
        }
        Expr::Path(path) => {
            let name = path.path.segments.last()?.ident.to_string();
            match known.get(&name)?.as_slice() {
                [value] => Some(*value),
                _ => None,
            }
        }
        Expr::Call(call) => {
            let Expr::Path(function) = &*call.func else { return None };
            let number = value(call.args.first()?, known)?;
            match function.path.segments.last()?.ident.to_string().as_str() {
                "from_secs" => Some(number * 1_000),
                "from_millis" => Some(number),
                "from_mins" => Some(number * 60_000),
                "from_hours" => Some(number * 3_600_000),
                _ => None,
            }
        }
        _ => None,
    }
}

fn constants() -> Constants {
    let mut left = expressions();
    let mut known = Constants::new();
    // Constants that are made of others are known once those are.
    loop {
        let before = left.len();
        let mut found = Constants::new();
        left.retain(|(name, expression)| match value(expression, &known) {
            Some(value) => {
                found.entry(name.clone()).or_default().push(value);
                false
            }
            None => true,
        });
        for (name, values) in found {
            known.entry(name).or_default().extend(values);
        }
        if left.len() == before {
            return known;
        }
    }
}

/// A figure as the documents write it, such as `1,024`, `12 MiB + 64 KiB` or `0.5 s`; durations in milliseconds.
fn figure(text: &str) -> Option<u128> {
    text.split(" + ").map(one_figure).sum()
}

fn one_figure(text: &str) -> Option<u128> {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let number: f64 = number.replace(',', "").parse().ok()?;
    let factor = match unit.split(' ').next().unwrap_or_default() {
        "KiB" => 1_024.0,
        "MiB" => 1_048_576.0,
        "s" => 1_000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        _ => 1.0,
    };
    Some((number * factor) as u128)
}

/// The cells of a table's row, without the spaces and backticks around them.
fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'));
    inner.map(|inner| inner.split('|').map(str::trim).collect()).unwrap_or_default()
}

fn is_constant(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
}

#[test]
fn limits_reference_has_the_values_of_the_code() {
    let (limits_page, known) = (document("reference/limits.md"), constants());
    let (mut compared, mut wrong) = (0, Vec::new());
    for row in limits_page.lines().map(cells) {
        let are_constants = |cell: &&str| cell.split(", ").all(|name| is_constant(name.trim_matches('`')));
        let Some(at) = row.iter().position(are_constants) else { continue };
        let names = row[at].split(", ").map(|name| name.trim_matches('`'));
        let values: Vec<_> = row.get(at + 1).map(|values| values.split(", ").collect()).unwrap_or_default();
        for (position, name) in names.enumerate() {
            let Some(in_code) = known.get(name) else {
                // Of a type of its own, such as an intensity; but it must be there.
                if !expressions().iter().any(|(constant, _)| constant == name) {
                    wrong.push(format!("{name} is in no code"));
                }
                continue;
            };
            match values.get(position).and_then(|value| figure(value)) {
                Some(value) if in_code.contains(&value) => compared += 1,
                _ => wrong.push(format!("{name} is {in_code:?}, not {values:?}")),
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(compared > 80, "only {compared} figures were compared");
}

#[test]
fn settings_have_the_defaults_that_operators_are_told() {
    let operating = document("operating.md");
    let full = operating.split("```toml").find(|block| block.contains("[p2p.discovery]")).expect("the full file");
    let full: toml::Table = full.split("```").next().unwrap().parse().unwrap();
    let mut told = full["p2p"].clone();
    let mut defaults = toml::Value::try_from(Config::default()).unwrap();
    for config in [&mut told, &mut defaults] {
        let config = config.as_table_mut().unwrap();
        // These are of the example.
        for key in ["listen", "external_addresses", "seed_peers"] {
            config.remove(key);
        }
    }
    let told: Config = told.try_into().unwrap();
    let defaults: Config = defaults.try_into().unwrap();
    assert_eq!(told, defaults);
}

#[test]
fn tables_of_settings_have_the_defaults_of_the_code() {
    let operating = document("operating.md");
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let mut section = Vec::new();
    let (mut compared, mut wrong) = (0, Vec::new());
    for line in operating.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            section = title.split('`').filter_map(|name| name.strip_prefix("[p2p.")?.strip_suffix(']')).collect();
        }
        let row = cells(line);
        let [keys, told, ..] = row[..] else { continue };
        for (position, key) in keys.split(", ").map(|key| key.trim_matches('`')).enumerate() {
            let path = key.split_once('.').or_else(|| Some((*section.first()?, key)));
            let of_section = path.and_then(|(section, key)| defaults.get(section)?.get(key));
            let of_all = || defaults.get(key).filter(|default| default.is_number());
            let Some(default) = of_section.or_else(of_all) else { continue };
            let told = if keys.contains(", ") { told.split(", ").nth(position).unwrap_or_default() } else { told };
            let told = told.trim_matches('`');
            let same = match default {
                serde_json::Value::Number(number) => figure(told) == number.as_u64().map(u128::from),
                serde_json::Value::String(text) => match text.parse::<humantime::Duration>() {
                    Ok(duration) => figure(told) == Some(duration.as_millis()),
                    Err(_) => told == text,
                },
                serde_json::Value::Array(list) => told == "none" && list.is_empty(),
                _ => false,
            };
            compared += 1;
            if !same {
                wrong.push(format!("{key} is {default}, not {told}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(compared > 35, "only {compared} settings were compared");
}

#[test]
fn figures_in_sentences_are_those_of_the_code() {
    let config = Config::default();
    let (serving, sync, core) = (&config.serving, &config.state_sync, state_sync::Config::default());
    let with_commas = |number: usize| {
        let digits = number.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
        groups.join(",")
    };
    let known = constants();
    let constant = |name: &str| match known[name].as_slice() {
        [value] => *value,
        several => panic!("{name} is {several:?}"),
    };
    let seconds = |name: &str| constant(name) / 1_000;
    let protocol = [
        format!("at most {} calls of one peer at once and {} in all", serving.max_calls_per_peer, serving.max_calls),
        format!("A request message has at most {} bytes", with_commas(wire::MAX_REQUEST_BYTES)),
        format!("at most {} fields", with_commas(wire::MAX_MESSAGE_FIELDS)),
        format!(
            "at most {} signed NodeInfos of at most {} KiB",
            wire::MAX_KNOWN_PEERS,
            limits::MAX_NODE_INFO_BYTES >> 10
        ),
        format!("1 to {} commits, certifier blocks", wire::MAX_COMMITS_PER_FETCH),
        format!("1 to {} `refs`", with_commas(wire::MAX_BLOCKS_PER_FETCH)),
        format!("block {} MiB, commit {} KiB", limits::MAX_BLOCK_BYTES >> 20, limits::MAX_COMMIT_BYTES >> 10),
        format!("at\nmost {} addresses", limits::MAX_ADDRESSES_PER_NODE),
        format!("all blocks of one commit together {} MiB", limits::MAX_COMMIT_BLOCKS_BYTES >> 20),
        format!("more than {} s ahead", seconds("MAX_CLOCK_SKEW_MS")),
        format!("older than {} h", seconds("MAX_NODE_INFO_AGE_MS") / 3_600),
        format!("at most {} bytes, with nothing behind it", with_commas(constant("MAX_CERTIFICATE_BYTES") as usize)),
    ];
    let semantics = [
        format!("from {} MiB of them that are at hand", constant("RECENT_BYTES") >> 20),
        format!("Calls of peers: {} of one peer and {} in all", serving.max_calls_per_peer, serving.max_calls),
        format!("every {} commits or", constant("TELL_EVERY")),
        format!("left to it for {} s before peers are asked", seconds("LOCAL_GRACE")),
        format!("makes no step for {} s", seconds("SLOW_AFTER")),
        format!("the sync, for {} s, although", seconds("STUCK_AFTER")),
        format!("after {} ms it hands back", constant("SLICE")),
        format!("Ranges are planned upward from the tip, at most {}.", core.ranges_ahead),
        format!("up to {} commits are asked for in one answer", sync.commits_per_fetch),
    ];
    for (name, sentences) in [("protocol.md", &protocol[..]), ("runtime-semantics.md", &semantics)] {
        let text = document(name);
        for sentence in sentences {
            assert!(text.contains(sentence.as_str()), "{name} does not say {sentence:?}");
        }
    }
}
