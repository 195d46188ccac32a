//! The named constants of the code, and their values.

use crate::public_api::workspace;
use anyhow::{Context, Result};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use syn::{Attribute, BinOp, Expr, Item, Lit, Type};

/// The values of constants by their names, several where several files have one of that name. Durations in
/// milliseconds.
pub type Constants = BTreeMap<String, Vec<u128>>;

/// One `const` at the top of a module or in an `impl`.
pub(super) struct Constant {
    pub(super) name: String,
    /// The file, from the workspace on.
    pub(super) file: PathBuf,
    pub(super) attributes: Vec<Attribute>,
    pub(super) kind: Type,
    expression: Expr,
}

/// Every constant of the workspace with its value, if that is a number or a duration.
///
/// # Errors
///
/// A source cannot be read.
pub fn constants() -> Result<Constants> {
    Ok(values(&read()?))
}

/// Every constant of the packages, without tests.
pub(super) fn read() -> Result<Vec<Constant>> {
    let mut found = Vec::new();
    for folder in ["crates", "actors"] {
        read_folder(&workspace().join(folder), &mut found)?;
    }
    Ok(found)
}

fn read_folder(folder: &Path, found: &mut Vec<Constant>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && !["tests", "benches", "examples", "target"].iter().any(|skipped| name == *skipped) {
            read_folder(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let items = syn::parse_file(&text).with_context(|| path.display().to_string())?.items;
            collect(items, path.strip_prefix(workspace()).unwrap_or(&path), found);
        }
    }
    Ok(())
}

fn collect(items: Vec<Item>, file: &Path, found: &mut Vec<Constant>) {
    for item in items {
        match item {
            Item::Const(item) => found.push(Constant {
                name: item.ident.to_string(),
                file: file.to_path_buf(),
                attributes: item.attrs,
                kind: *item.ty,
                expression: *item.expr,
            }),
            Item::Mod(item) if !crate::modules::is_test(&item.attrs) => {
                collect(item.content.map(|(_, items)| items).unwrap_or_default(), file, found);
            }
            Item::Impl(item) => {
                for item in item.items {
                    if let syn::ImplItem::Const(item) = item {
                        found.push(Constant {
                            name: item.ident.to_string(),
                            file: file.to_path_buf(),
                            attributes: item.attrs,
                            kind: item.ty,
                            expression: item.expr,
                        });
                    }
                }
            }
            _ => {}
        }
    }
}

/// The values of these constants.
pub(super) fn values(constants: &[Constant]) -> Constants {
    let mut left: Vec<_> = constants.iter().collect();
    let mut known = Constants::new();
    // Constants that are made of others are known once those are.
    loop {
        let before = left.len();
        let mut found = Constants::new();
        left.retain(|constant| match value(&constant.expression, &known) {
            Some(value) => {
                found.entry(constant.name.clone()).or_default().push(value);
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

impl Constant {
    /// Its value among those of all constants.
    pub(super) fn value(&self, known: &Constants) -> Option<u128> {
        value(&self.expression, known)
    }
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
