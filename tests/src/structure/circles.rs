//! No circle of modules inside a crate: if a module uses another, the other does not use the first in turn.
//!
//! A child may use its parent, and the parent its child. A name that is re-exported counts as a use of the module that
//! defines it. Tests do not count.

use crate::modules::{file_of, is_test};
use anyhow::{Context, Result};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::Path,
};
use syn::{
    Item, UseTree,
    visit::{self, Visit},
};

/// The names from the crate's root down.
type ModulePath = Vec<String>;

/// Longest chain of re-exports that is followed.
const MAX_REEXPORTS: usize = 16;

#[derive(Default)]
struct Module {
    /// Everything that the module names, from the crate's root.
    named: Vec<ModulePath>,
    /// Names that the module imports or re-exports, and what they stand for.
    imported: BTreeMap<String, ModulePath>,
    /// Modules whose names it takes all.
    globs: Vec<ModulePath>,
    /// Names that it defines.
    defined: BTreeSet<String>,
}

#[derive(Default)]
struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

/// The circles of the crate whose root file this is.
pub(super) fn violations(root: &Path) -> Result<Vec<String>> {
    let mut read = Crate::default();
    read.read_file(root, &Vec::new())?;
    Ok(read.circles().into_iter().map(|circle| format!("{}: circle of modules: {circle}", root.display())).collect())
}

impl Crate {
    fn read_file(&mut self, file: &Path, path: &ModulePath) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let syntax = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        self.read_items(&syntax.items, path, file)
    }

    fn read_items(&mut self, items: &[Item], path: &ModulePath, file: &Path) -> Result<()> {
        let mut module = Module::default();
        for item in items {
            match item {
                Item::Mod(child) if is_test(&child.attrs) => {}
                Item::Mod(child) => {
                    let name = child.ident.to_string();
                    let child_path = [&path[..], std::slice::from_ref(&name)].concat();
                    match &child.content {
                        Some((_, items)) => self.read_items(items, &child_path, file)?,
                        None => self.read_file(&file_of(file, path.is_empty(), &name)?, &child_path)?,
                    }
                }
                item => Names { module: &mut module, path }.visit_item(item),
            }
        }
        self.modules.insert(path.clone(), module);
        Ok(())
    }

    /// The module that a path leads to.
    fn module_of(&self, named: &[String], reexports: usize) -> ModulePath {
        let mut module = ModulePath::new();
        for (position, name) in named.iter().enumerate() {
            let child = [&module[..], std::slice::from_ref(name)].concat();
            if self.modules.contains_key(&child) {
                module = child;
                continue;
            }
            let Some(here) = self.modules.get(&module).filter(|_| reexports < MAX_REEXPORTS) else { break };
            let rest = &named[position + 1..];
            let behind = here.imported.get(name).map(|target| [&target[..], rest].concat()).or_else(|| {
                let has_it = |glob: &&ModulePath| {
                    let from = self.modules.get(&self.module_of(glob, reexports + 1));
                    from.is_some_and(|from| from.defined.contains(name) || from.imported.contains_key(name))
                };
                let glob = here.globs.iter().find(has_it).filter(|_| !here.defined.contains(name))?;
                Some([&glob[..], &named[position..]].concat())
            });
            return behind.map_or(module, |behind| self.module_of(&behind, reexports + 1));
        }
        module
    }

    /// Which module uses which, without its ancestors and its descendants.
    fn uses(&self) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
        let used_by = |user: &ModulePath, module: &Module| {
            let used = module.named.iter().map(|named| self.module_of(named, 0));
            used.filter(|used| !used.starts_with(user) && !user.starts_with(used)).collect()
        };
        self.modules.iter().map(|(user, module)| (user.clone(), used_by(user, module))).collect()
    }

    fn circles(&self) -> Vec<String> {
        let uses = self.uses();
        let mut circles = Vec::new();
        let mut reported = BTreeSet::new();
        for start in uses.keys() {
            let way = way_back(&uses, start).filter(|way| !way.iter().any(|module| reported.contains(module)));
            if let Some(way) = way {
                circles.push(way.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(" -> "));
                reported.extend(way);
            }
        }
        circles
    }
}

/// The shortest way from a module back to itself.
fn way_back(uses: &BTreeMap<ModulePath, BTreeSet<ModulePath>>, start: &ModulePath) -> Option<Vec<ModulePath>> {
    let mut ways = VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in way.last().and_then(|last| uses.get(last)).into_iter().flatten() {
            let longer = [&way[..], std::slice::from_ref(next)].concat();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next) {
                ways.push_back(longer);
            }
        }
    }
    None
}

/// Collects what one module names.
struct Names<'a> {
    module: &'a mut Module,
    path: &'a ModulePath,
}

impl Names<'_> {
    /// The path from the crate's root, if the name is one of this crate.
    fn absolute(&self, names: &[String]) -> Option<ModulePath> {
        let mut from = match names.first().map(String::as_str)? {
            "crate" => ModulePath::new(),
            "self" | "super" => self.path.clone(),
            _ => return None,
        };
        for name in names {
            match name.as_str() {
                "crate" | "self" => {}
                "super" => drop(from.pop()),
                name => from.push(name.to_string()),
            }
        }
        Some(from)
    }

    fn read_use(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.read_use(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.read_use(tree, before)),
            UseTree::Name(name) if name.ident == "self" => self.import(before.last().cloned(), before.to_vec()),
            UseTree::Name(name) => self.import(Some(name.ident.to_string()), with(&name.ident)),
            UseTree::Rename(rename) => self.import(Some(rename.rename.to_string()), with(&rename.ident)),
            UseTree::Glob(_) => {
                let target = self.absolute(before).unwrap_or_else(|| [&self.path[..], before].concat());
                self.module.named.push(target.clone());
                self.module.globs.push(target);
            }
        }
    }

    fn import(&mut self, name: Option<String>, names: Vec<String>) {
        // Without `crate`, `self` or `super` it is a child, or of another crate, which then leads to no module.
        let target = self.absolute(&names).unwrap_or_else(|| [&self.path[..], &names].concat());
        if target.last() != name.as_ref() || target.len() != self.path.len() + 1 || !target.starts_with(self.path) {
            self.module.imported.extend(name.map(|name| (name, target.clone())));
        }
        self.module.named.push(target);
    }

    fn read_path(&mut self, names: &[String]) {
        self.module.named.extend(self.absolute(names));
    }
}

impl<'ast> Visit<'ast> for Names<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (name, attributes) = match item {
            Item::Const(item) => (Some(&item.ident), &item.attrs),
            Item::Enum(item) => (Some(&item.ident), &item.attrs),
            Item::Fn(item) => (Some(&item.sig.ident), &item.attrs),
            Item::Macro(item) => (item.ident.as_ref(), &item.attrs),
            Item::Static(item) => (Some(&item.ident), &item.attrs),
            Item::Struct(item) => (Some(&item.ident), &item.attrs),
            Item::Trait(item) => (Some(&item.ident), &item.attrs),
            Item::Type(item) => (Some(&item.ident), &item.attrs),
            Item::Impl(item) => (None, &item.attrs),
            Item::Use(item) => (None, &item.attrs),
            item => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            self.module.defined.extend(name.map(ToString::to_string));
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.read_use(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.read_path(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        visit::visit_macro(self, called);
        // What stands in a macro has no syntax tree: its paths are read word by word.
        let text = called.tokens.to_string().replace("::", " :: ");
        let words: Vec<&str> = text.split_whitespace().collect();
        for (position, word) in words.iter().enumerate() {
            if matches!(*word, "crate" | "super" | "self") {
                let pairs = words[position + 1..].chunks_exact(2).take_while(|pair| pair[0] == "::");
                let names =
                    pairs.map(|pair| pair[1].trim_matches(|c: char| !c.is_alphanumeric() && c != '_').to_string());
                let names: Vec<String> = std::iter::once((*word).to_string()).chain(names).collect();
                self.read_path(&names);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let violations = violations(&folder.path().join("lib.rs")).unwrap();
        violations.iter().map(|text| text.split(": ").last().unwrap().to_string()).collect()
    }

    const NONE: [String; 0] = [];

    #[test]
    fn two_modules_that_use_each_other_are_a_circle() {
        let files =
            [("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b::B; pub struct A;"), ("b.rs", "pub struct B;")];
        assert_eq!(found(&files), NONE);
        let files = [files[0], files[1], ("b.rs", "pub struct B; fn f() -> crate::a::A { crate::a::A }")];
        assert_eq!(found(&files), ["a -> b -> a"]);
    }

    #[test]
    fn a_circle_of_three_modules_in_a_folder_is_found() {
        let files = [
            ("lib.rs", "mod core;"),
            ("core/mod.rs", "mod a; mod b; mod c;"),
            ("core/a.rs", "use super::b::B; pub struct A;"),
            ("core/b.rs", "use super::c::C; pub struct B;"),
            ("core/c.rs", "use crate::core::a; pub struct C;"),
        ];
        assert_eq!(found(&files), ["core::a -> core::b -> core::c -> core::a"]);
    }

    #[test]
    fn a_use_through_a_re_export_a_glob_or_a_macro_counts() {
        let a = ("a.rs", "use crate::b::B; pub struct A;");
        let through = |root: &'static str, b: &'static str| found(&[("lib.rs", root), a, ("b.rs", b)]);
        let circle = ["a -> b -> a"];
        assert_eq!(through("mod a; mod b; pub use a::A;", "use crate::A; pub struct B;"), circle);
        assert_eq!(through("mod a; mod b; pub use a::*;", "use super::A; pub struct B;"), circle);
        assert_eq!(through("mod a; mod b;", "pub struct B; fn f() { vec![crate::a::A]; }"), circle);
        assert_eq!(through("mod a; mod b; pub use a::A;", "pub struct B;"), NONE);
    }

    #[test]
    fn a_parent_with_its_child_and_a_test_are_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod tests;"),
            ("a/mod.rs", "mod child; use child::Child; pub struct A;"),
            ("a/child.rs", "use super::A; use crate::b::B; pub struct Child;"),
            ("b.rs", "pub struct B; #[cfg(test)] mod tests { use crate::a::A; }"),
        ];
        assert_eq!(found(&files), NONE);
    }
}
