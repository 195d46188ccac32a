//! Plays the scenarios of the golden traces again, shows the changes, and writes the new traces.
//! `make bless-traces` runs it; with `--check` it writes nothing.

use anyhow::{Context, Result, anyhow};
use similar::{ChangeTag, TextDiff};
use soma_replay::{Trace, json};
use soma_testkit::simulation::golden;
use std::{fs, path::Path, process::ExitCode};

/// Maximum shown changes of one trace.
const MAX_LINES: usize = 60;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing.
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    fs::create_dir_all(golden::directory())?;
    for scenario in golden::scenarios() {
        let path = golden::path(&scenario.name);
        let played = scenario.run_twice(golden::SEED).map_err(|failure| anyhow!("{}: {failure}", scenario.name))?;
        let new = scenario.record(golden::SEED)?;
        let old = fs::read(&path).unwrap_or_default();
        if old == new {
            println!("{}: as it was", scenario.name);
            continue;
        }
        println!("{}: {played}", scenario.name);
        show(&old, &new)?;
        if !args.check {
            fs::write(&path, new).with_context(|| format!("{}", path.display()))?;
        }
    }
    let wanted: Vec<_> = golden::scenarios().iter().map(|scenario| golden::path(&scenario.name)).collect();
    for file in golden::files().into_iter().filter(|file| !wanted.contains(file)) {
        println!("{}: of no scenario any more", file.file_name().map(Path::new).unwrap_or(&file).display());
        if !args.check {
            fs::remove_file(file)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints how the stories differ.
fn show(old: &[u8], new: &[u8]) -> Result<()> {
    let new = story(new)?;
    let old = story(old).unwrap_or_else(|error| {
        println!("  the old one cannot be read any more: {error}");
        String::new()
    });
    let diff = TextDiff::from_lines(&old, &new);
    let changes: Vec<_> = diff.iter_all_changes().filter(|change| change.tag() != ChangeTag::Equal).collect();
    let count = |tag| changes.iter().filter(|change| change.tag() == tag).count();
    let (gone, come) = (count(ChangeTag::Delete), count(ChangeTag::Insert));
    println!("  {gone} messages are gone, {come} have come");
    if old.is_empty() {
        return Ok(());
    }
    for change in changes.iter().take(MAX_LINES) {
        print!("  {} {change}", change.tag());
    }
    if changes.len() > MAX_LINES {
        println!("  ... and {} more", changes.len() - MAX_LINES);
    }
    Ok(())
}

/// A trace as lines that stay the same when only numbers of records and times move.
fn story(trace: &[u8]) -> Result<String> {
    if trace.is_empty() {
        return Ok(String::new());
    }
    let trace = Trace::from_bytes(trace)?;
    let lines = json(&trace).filter_map(|line| {
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let (node, actor, sender) = (text("node"), text("actor"), text("sender"));
        match (line.get("message"), line.get("ended")) {
            (Some(message), _) => Some(format!("{node}/{actor} <- {sender}: {message} => {}\n", line["effects"])),
            (None, Some(ended)) => Some(format!("{node}/{actor} ended: {ended}\n")),
            (None, None) => None,
        }
    });
    Ok(lines.collect())
}
