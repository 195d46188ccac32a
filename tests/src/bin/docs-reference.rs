//! Writes the reference pages from the code. `make docs-reference` runs it.

use anyhow::Result;
use soma_tests::reference::pages;

fn main() -> Result<()> {
    for (path, page) in pages()? {
        std::fs::write(&path, page)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}
