//! Writes the golden file of the facade's public items. `make public-api` runs it.

use anyhow::Result;
use soma_tests::public_api;

fn main() -> Result<()> {
    std::fs::write(public_api::golden_file(), public_api::outline()?)?;
    println!("wrote {}", public_api::golden_file().display());
    Ok(())
}
