//! Checks the structure of the workspace, as docs/architecture.md has it. `make lint` runs it.

use soma_tests::structure;
use std::process::ExitCode;

fn main() -> ExitCode {
    match structure::violations() {
        Ok(violations) if violations.is_empty() => {
            println!("rules of structure: all in order");
            ExitCode::SUCCESS
        }
        Ok(violations) => {
            eprintln!("rules of structure (docs/architecture.md):\n  {}", violations.join("\n  "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
