//! The book of docs/ is complete: every page is in its summary, every alert and cause has a page, and links lead
//! somewhere.

use crate::root;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn docs() -> PathBuf {
    root().join("docs")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The Markdown files below a folder.
fn pages(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = paths.flat_map(|path| if path.is_dir() { pages(&path) } else { vec![path] });
    below.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The names of the pages in a folder of the runbook, without `.md`.
fn runbook(folder: &str) -> BTreeSet<String> {
    let pages = pages(&docs().join("runbook").join(folder));
    pages.iter().map(|page| page.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// A page without its blocks of code.
fn text(page: &str) -> String {
    let mut in_code = false;
    let lines = page.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Targets of the links and pictures of a page, on the web excepted.
fn links(page: &str) -> Vec<String> {
    let targets = text(page);
    let targets = targets.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.is_empty() && !target.contains("://")).map(str::to_owned).collect()
}

/// The anchor of a heading, as code hosts and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The anchors of all headings of a page. A second heading of one text ends with `-1`.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    for line in text(page).lines() {
        let heading = line.trim_start_matches('#');
        if heading.len() < line.len() && heading.starts_with(' ') {
            let anchor = anchor(heading);
            let count = seen.entry(anchor.clone()).or_default();
            anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
            *count += 1;
        }
    }
    anchors
}

/// Why a link of this page leads nowhere, if it does.
fn problem(page: &Path, link: &str) -> Option<String> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
    let reason = if !target.exists() {
        "no such file"
    } else if !anchor.is_empty() && !anchors(&read(&target)).contains(anchor) {
        "no such heading"
    } else {
        return None;
    };
    Some(format!("{}: {link}: {reason}", page.display()))
}

#[test]
fn every_page_is_in_the_summary_once_and_every_entry_exists() {
    let summary = docs().join("SUMMARY.md");
    let entries: Vec<_> = links(&read(&summary)).iter().map(|entry| docs().join(entry)).collect();
    let listed: BTreeSet<_> = entries.iter().cloned().collect();
    assert_eq!(listed.len(), entries.len(), "an entry stands there twice");
    let pages: BTreeSet<_> = pages(&docs()).into_iter().filter(|page| *page != summary).collect();
    assert!(pages.len() > 80, "only {} pages were found", pages.len());
    assert_eq!(pages.difference(&listed).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "not in SUMMARY.md");
    assert_eq!(listed.difference(&pages).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "in SUMMARY.md only");
}

#[test]
fn every_alert_names_its_page_of_the_runbook() {
    let rules = read(&docs().join("operating/alerts.yaml"));
    let overview = read(&docs().join("runbook/README.md"));
    let mut expected = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let (alert, rule) = rule.split_once('\n').unwrap();
        let mut name = String::new();
        for letter in alert.strip_prefix("Soma").unwrap().chars() {
            if letter.is_ascii_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        let annotation = format!("runbook: docs/runbook/alerts/{name}.md");
        assert!(rule.lines().any(|line| line.trim() == annotation), "{alert} has no annotation `{annotation}`");
        let page = read(&docs().join(format!("runbook/alerts/{name}.md")));
        assert!(page.starts_with(&format!("# {alert}\n")), "the title of {name}.md is not {alert}");
        assert!(overview.contains(&format!("| `{alert}` |")), "the overview of the runbook lacks {alert}");
        expected.insert(name);
    }
    assert!(expected.len() >= 20, "only {} alerts were found", expected.len());
    assert_eq!(runbook("alerts"), expected);
}

#[test]
fn every_cause_has_its_page_of_the_runbook() {
    let code = read(&root().join("crates/cli/src/advice.rs"));
    let arms = code.lines().take_while(|line| !line.trim_start().starts_with("_ =>"));
    let arm = |line: &str| Some(line.trim().strip_prefix('"')?.split_once("\" =>")?.0.to_owned());
    let with_advice: BTreeSet<String> = arms.filter_map(arm).collect();
    assert!(with_advice.len() > 20, "{with_advice:?}");
    let pages = runbook("causes");
    assert_eq!(with_advice.difference(&pages).collect::<Vec<_>>(), Vec::<&String>::new(), "no page");
    // Those with nothing to do, and those without a name, are in the overview, too.
    let overview = links(&read(&docs().join("runbook/README.md")));
    let listed = overview.iter().filter_map(|link| link.strip_prefix("causes/")?.strip_suffix(".md"));
    assert_eq!(listed.map(str::to_owned).collect::<BTreeSet<_>>(), pages);
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let beyond = ["README.md", "CONTRIBUTING.md"].map(|name| root().join(name));
    let (mut found, mut problems) = (0, Vec::new());
    for page in pages(&docs()).into_iter().chain(beyond) {
        let links = links(&read(&page));
        found += links.len();
        problems.extend(links.iter().filter_map(|link| problem(&page, link)));
    }
    assert!(found > 400, "only {found} links were found");
    assert_eq!(problems, Vec::<String>::new());

    // Wrong links are found.
    let page = docs().join("operating.md");
    assert!(problem(&page, "operating/nowhere.md").is_some());
    assert!(problem(&page, "operating/status.md#nothing").is_some());
    assert_eq!(problem(&page, "operating/history.md#p2ppruning"), None);
}

#[test]
fn introduction_and_runbook_link_to_nothing_outside_the_book() {
    let docs = docs().canonicalize().unwrap();
    for page in pages(&docs.join("runbook")).into_iter().chain([docs.join("introduction.md")]) {
        for link in links(&read(&page)) {
            let file = link.split('#').next().unwrap();
            let target = page.parent().unwrap().join(file).canonicalize();
            assert!(target.is_ok_and(|target| target.starts_with(&docs)), "{}: {link}", page.display());
        }
    }
}

#[test]
fn sample_of_the_readme_is_that_of_the_page_for_embedders() {
    let sample = |page: String| page.split("```rust\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    assert_eq!(sample(read(&docs().join("embedding.md"))), sample(read(&root().join("README.md"))));
}
