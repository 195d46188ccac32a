//! Shows that the sweep finds bugs: breaks the range planner on purpose, each time in a copy of the workspace, and has
//! the copy's simulation look for it. `make mutants` runs it. Fails when a bug is not found, or the sweep finds one in
//! code that was not broken.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

/// Seeds within which each bug must be found.
const SEEDS: u32 = 50;

/// What a build needs.
const SOURCES: &[&str] = &["Cargo.toml", "Cargo.lock", "actors", "crates", "proto", "tests"];

/// One bug.
struct Mutant {
    /// The bug.
    bug: &'static str,
    file: &'static str,
    /// Stands in the file once ...
    right: &'static str,
    /// ... and is replaced by this.
    wrong: &'static str,
}

const PLAN: &str = "crates/protocol/src/state_sync/plan.rs";
const RANGE: &str = "crates/protocol/src/state_sync/range.rs";
const RESULTS: &str = "crates/protocol/src/state_sync/results.rs";

const MUTANTS: &[Mutant] = &[
    Mutant {
        bug: "the range of a worker that died is not given back to the plan",
        file: RESULTS,
        right: "        range.fail(now, None, false, reason);\n",
        wrong: "        let _ = (now, reason);\n",
    },
    Mutant {
        bug: "ranges beyond an epoch's end are never let go again",
        file: PLAN,
        right: "RangeState::Held { epoch } if *start <= next || self.epoch_of(*start) == epoch => Some(*start),",
        wrong: "RangeState::Held { epoch } if *start < next && self.epoch_of(*start) == epoch => Some(*start),",
    },
    Mutant {
        bug: "a range that failed once is never tried again",
        file: RANGE,
        right: "        self.state = RangeState::Waiting { not_before: now.monotonic + delay };\n",
        wrong: "        let _ = (now, delay);\n        self.state = RangeState::Waiting { not_before: Duration::MAX };\n",
    },
];

/// Patch number of the copy's version. No release has it, and the packages of the copy still accept each other.
const MUTANT_PATCH: &str = "999999";

pub(crate) fn run() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("the workspace")?;
    let copy = root.join("target/mutants");
    if copy.exists() {
        fs::remove_dir_all(&copy).with_context(|| format!("{}", copy.display()))?;
    }
    for source in SOURCES {
        copy_all(&root.join(source), &copy.join(source))?;
    }
    // Cargo tells packages in one target directory apart by name, version and path in the workspace. Of the same
    // version, what is built of the copy would count as built of the workspace, whatever is changed there later.
    replace_once(&copy.join("Cargo.toml"), &version(env!("CARGO_PKG_VERSION_PATCH")), &version(MUTANT_PATCH))?;
    for mutant in MUTANTS {
        let file = copy.join(mutant.file);
        let right = replace_once(&file, mutant.right, mutant.wrong)?;
        println!("bug: {}", mutant.bug);
        let found = sweep(root, &copy)?;
        fs::write(&file, right)?;
        let text = String::from_utf8_lossy(&found.stdout);
        match found.status.code() {
            Some(1) if text.contains("this still fails") => println!("found, and shrunk:\n{}", indent(&text)),
            Some(0) => bail!("not found within {SEEDS} seeds: {}", mutant.bug),
            _ => bail!("the sweep did not run: {}\n{text}{}", found.status, String::from_utf8_lossy(&found.stderr)),
        }
    }
    println!("all {} bugs found within {SEEDS} seeds", MUTANTS.len());
    Ok(ExitCode::SUCCESS)
}

/// The line of a manifest with this version.
fn version(patch: &str) -> String {
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    format!("\nversion = \"{major}.{minor}.{patch}\"\n")
}

/// Puts `new` in the place of `old`, which is to stand once in `file`. What the file was.
fn replace_once(file: &Path, old: &str, new: &str) -> Result<String> {
    let before = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let places = before.matches(old).count();
    ensure!(places == 1, "{}: {old:?} stands there {places} times, not once", file.display());
    fs::write(file, before.replace(old, new)).with_context(|| format!("{}", file.display()))?;
    Ok(before)
}

/// Builds the copy and runs its sweep. The build shares its dependencies with the workspace.
fn sweep(root: &Path, copy: &Path) -> Result<Output> {
    Command::new(env!("CARGO"))
        .args(["run", "--quiet", "-p", "soma-lab", "--no-default-features", "--features", "simulation", "--", "sim"])
        .args(["--seeds", &SEEDS.to_string()])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", root.join("target"))
        .output()
        .context("cargo run")
}

fn copy_all(from: &Path, to: &PathBuf) -> Result<()> {
    if !from.is_dir() {
        fs::create_dir_all(to.parent().context("a directory")?)?;
        fs::copy(from, to).with_context(|| format!("{}", from.display()))?;
        return Ok(());
    }
    for entry in fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let entry = entry?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The end of what the sweep printed: the failure and the shrunk scenario.
fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
