//! No file has more than [`MAX_LINES`] lines, except files of tests.

use anyhow::{Context, Result};
use std::{fs, path::Path};

/// The longest file that a reader still takes in at once.
const MAX_LINES: usize = 500;

pub(super) fn violations(folder: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() && name != "tests" {
            violations.extend(self::violations(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests.rs" {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let lines = text.lines().count();
            if lines > MAX_LINES {
                violations.push(format!("{} has {lines} lines: split it, {MAX_LINES} are allowed", path.display()));
            }
        }
    }
    violations.sort();
    Ok(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_501_lines_is_reported_unless_it_has_tests() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, lines: usize| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "//\n".repeat(lines)).unwrap();
        };
        write("lib.rs", 500);
        write("core/tests.rs", 501);
        write("core/tests/long.rs", 501);
        assert_eq!(violations(folder.path()).unwrap(), Vec::<String>::new());
        write("core/long.rs", 501);
        let found = violations(folder.path()).unwrap();
        assert!(matches!(&found[..], [one] if one.contains("long.rs has 501 lines")), "{found:?}");
    }
}
