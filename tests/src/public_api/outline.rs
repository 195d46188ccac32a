//! Reads a crate, and leaves of it what is public.

use crate::modules::{file_of, is_test};
use anyhow::{Context, Result};
use std::{collections::BTreeSet, fs, path::Path};
use syn::{Attribute, Fields, File, ImplItem, Item, TraitItem, Type, UseTree, Visibility, parse_quote};

/// The public items of a crate, by module.
pub(super) struct Outline {
    pub(super) modules: Vec<(Vec<String>, File)>,
}

impl Outline {
    /// Of the crate with this root file: everything, or only these types.
    pub(super) fn read(root: &Path, only: Option<&BTreeSet<String>>) -> Result<Self> {
        let mut modules = Vec::new();
        read_file(root, &[], &mut modules)?;
        for (_, file) in &mut modules {
            file.items.retain_mut(leave_public);
        }
        let mut outline = Self { modules };
        let public = only.cloned().unwrap_or_else(|| outline.type_names());
        let is_wanted = |item: &Item| match item {
            Item::Impl(item) => self_name(&item.self_ty).is_some_and(|name| public.contains(&name)),
            Item::Use(_) => only.is_none(),
            item => only.is_none() || name_of(item).is_some_and(|name| public.contains(&name)),
        };
        outline.modules.iter_mut().for_each(|(_, file)| file.items.retain(is_wanted));
        Ok(outline)
    }

    /// The types that there are.
    pub(super) fn type_names(&self) -> BTreeSet<String> {
        let items = self.modules.iter().flat_map(|(_, file)| &file.items);
        let types = items.filter(|item| {
            matches!(item, Item::Struct(_) | Item::Enum(_) | Item::Trait(_) | Item::Type(_) | Item::Union(_))
        });
        types.filter_map(name_of).collect()
    }
}

/// The names that a file re-exports from a crate.
pub(super) fn exported_names(items: &[Item], of_crate: &str) -> BTreeSet<String> {
    fn collect(tree: &UseTree, names: &mut BTreeSet<String>) {
        match tree {
            UseTree::Path(path) => collect(&path.tree, names),
            UseTree::Group(group) => group.items.iter().for_each(|tree| collect(tree, names)),
            UseTree::Name(name) => names.extend([name.ident.to_string()]),
            UseTree::Rename(rename) => names.extend([rename.ident.to_string()]),
            UseTree::Glob(_) => {}
        }
    }
    fn of_item(item: &Item, of_crate: &str, names: &mut BTreeSet<String>) {
        match item {
            Item::Use(item) if matches!(item.vis, Visibility::Public(_)) => match &item.tree {
                UseTree::Path(path) if path.ident == of_crate => collect(&path.tree, names),
                _ => {}
            },
            Item::Mod(module) => {
                let items = module.content.iter().flat_map(|(_, items)| items);
                items.for_each(|item| of_item(item, of_crate, names));
            }
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    items.iter().for_each(|item| of_item(item, of_crate, &mut names));
    names
}

fn read_file(file: &Path, path: &[String], modules: &mut Vec<(Vec<String>, File)>) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let mut syntax = syn::parse_file(&text).with_context(|| file.display().to_string())?;
    let (children, items): (Vec<_>, Vec<_>) = std::mem::take(&mut syntax.items)
        .into_iter()
        .partition(|item| matches!(item, Item::Mod(module) if module.content.is_none()));
    modules.push((path.to_vec(), File { shebang: None, attrs: Vec::new(), items }));
    for child in children {
        if let Item::Mod(child) = child
            && !is_test(&child.attrs)
        {
            let name = child.ident.to_string();
            read_file(&file_of(file, path.is_empty(), &name)?, &[path, &[name]].concat(), modules)?;
        }
    }
    Ok(())
}

fn leave_signs(attributes: &mut Vec<Attribute>) {
    let signs = ["derive", "non_exhaustive", "cfg", "must_use"];
    attributes.retain(|attribute| signs.iter().any(|sign| attribute.path().is_ident(sign)));
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// Takes away what is private in an item, its comments and its bodies. Whether anything is left.
fn leave_public(item: &mut Item) -> bool {
    match item {
        Item::Struct(item) => {
            leave_signs(&mut item.attrs);
            match &mut item.fields {
                Fields::Named(fields) => {
                    let public = std::mem::take(&mut fields.named).into_iter().filter(|field| is_public(&field.vis));
                    fields.named = public.collect();
                    fields.named.iter_mut().for_each(|field| leave_signs(&mut field.attrs));
                }
                Fields::Unnamed(fields) if !fields.unnamed.iter().all(|field| is_public(&field.vis)) => {
                    fields.unnamed.clear();
                }
                fields => fields.iter_mut().for_each(|field| leave_signs(&mut field.attrs)),
            }
            is_public(&item.vis)
        }
        Item::Enum(item) => {
            leave_signs(&mut item.attrs);
            for variant in &mut item.variants {
                leave_signs(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| leave_signs(&mut field.attrs));
            }
            is_public(&item.vis)
        }
        Item::Trait(item) => {
            leave_signs(&mut item.attrs);
            for item in &mut item.items {
                match item {
                    TraitItem::Fn(function) => {
                        leave_signs(&mut function.attrs);
                        function.default = function.default.take().map(|_| parse_quote!({}));
                    }
                    TraitItem::Const(constant) => leave_signs(&mut constant.attrs),
                    TraitItem::Type(kind) => leave_signs(&mut kind.attrs),
                    _ => {}
                }
            }
            is_public(&item.vis)
        }
        Item::Impl(item) => {
            leave_signs(&mut item.attrs);
            let is_trait = item.trait_.is_some();
            item.items.retain_mut(|item| match item {
                ImplItem::Fn(function) if !is_trait && is_public(&function.vis) => {
                    leave_signs(&mut function.attrs);
                    function.block = parse_quote!({});
                    true
                }
                ImplItem::Const(constant) if !is_trait && is_public(&constant.vis) => {
                    leave_signs(&mut constant.attrs);
                    true
                }
                ImplItem::Type(_) => is_trait,
                _ => false,
            });
            is_trait || !item.items.is_empty()
        }
        Item::Fn(item) => {
            leave_signs(&mut item.attrs);
            item.block = parse_quote!({});
            is_public(&item.vis)
        }
        Item::Const(item) => {
            leave_signs(&mut item.attrs);
            is_public(&item.vis)
        }
        Item::Static(item) => {
            leave_signs(&mut item.attrs);
            is_public(&item.vis)
        }
        Item::Type(item) => {
            leave_signs(&mut item.attrs);
            is_public(&item.vis)
        }
        Item::Use(item) => {
            leave_signs(&mut item.attrs);
            is_public(&item.vis)
        }
        Item::Mod(item) => {
            if is_test(&item.attrs) || !is_public(&item.vis) {
                return false;
            }
            leave_signs(&mut item.attrs);
            if let Some((_, items)) = &mut item.content {
                items.retain_mut(leave_public);
            }
            true
        }
        _ => false,
    }
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Struct(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Const(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        _ => return None,
    };
    Some(name.to_string())
}

fn self_name(kind: &Type) -> Option<String> {
    match kind {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
        Type::Reference(reference) => self_name(&reference.elem),
        _ => None,
    }
}
