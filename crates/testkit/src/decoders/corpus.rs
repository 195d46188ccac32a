//! Writes the seeds of every decoder into `DIRECTORY/NAME`, for its fuzz target: `corpus DIRECTORY`.

use soma_testkit::decoders::{Chain, DECODERS};
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let directory: PathBuf = env::args_os().nth(1).ok_or("usage: corpus DIRECTORY")?.into();
    let chain = Chain::build()?;
    for decoder in DECODERS {
        let corpus = directory.join(decoder.name);
        fs::create_dir_all(&corpus)?;
        for (number, seed) in (decoder.seeds)(&chain).into_iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number}")), seed)?;
        }
        println!("{}", decoder.name);
    }
    Ok(())
}
