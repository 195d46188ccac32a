//! The log of a validator: the blocks that it has signed, and those that they build on, durable before it publishes
//! them. A validator that returns reads its log, and so never signs a second block of one round.
//!
//! ```text
//!   DIR/EPOCH-PART.blocks   part = round / ROUNDS_PER_FILE of the own block
//!     record: length (u32, little-endian), a block; the last one may be torn by a crash: it was never published
//! ```

use super::interface::GC_ROUNDS;
use soma_p2p::{
    SignedBlock, VerifiedBlock,
    types::{Epoch, Round, limits::MAX_BLOCK_BYTES},
};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Rounds in one file. With the file before it, it covers the rounds that a validator remembers.
const ROUNDS_PER_FILE: Round = 4 * GC_ROUNDS;

/// The log.
pub(crate) struct BlockLog {
    dir: PathBuf,
    open: Option<((Epoch, Round), File)>,
}

impl BlockLog {
    /// Opens the log, and reads the blocks of an epoch in it, in the order in which they were written.
    pub(crate) fn open(dir: &Path, epoch: Epoch) -> io::Result<(Self, Vec<VerifiedBlock>)> {
        fs::create_dir_all(dir)?;
        let mut blocks = Vec::new();
        for (_, path) in files(dir)?.into_iter().filter(|((of, _), _)| *of == epoch) {
            let bytes = bytes::Bytes::from(fs::read(&path)?);
            let mut at = 0;
            while let Some(length) = bytes.get(at..at + 4).and_then(|length| length.try_into().ok()) {
                let length = u32::from_le_bytes(length) as usize;
                let end = at + 4 + length;
                // The validator verified it before it wrote it.
                let is_whole = length <= MAX_BLOCK_BYTES && end <= bytes.len();
                let Some(block) = is_whole.then(|| SignedBlock::decode(bytes.slice(at + 4..end)).ok()).flatten() else {
                    break;
                };
                blocks.push(VerifiedBlock::assume_verified(block));
                at = end;
            }
            if at < bytes.len() {
                // What follows a torn record must not be lost with it.
                let file = File::options().write(true).open(&path)?;
                file.set_len(at as u64)?;
                file.sync_all()?;
            }
        }
        Ok((Self { dir: dir.to_owned(), open: None }, blocks))
    }

    /// Makes blocks durable. The last one is the validator's own.
    pub(crate) fn append(&mut self, blocks: &[VerifiedBlock]) -> io::Result<()> {
        let Some(own) = blocks.last() else { return Ok(()) };
        let key = (own.epoch, own.round / ROUNDS_PER_FILE);
        if self.open.as_ref().is_none_or(|(open, _)| *open != key) {
            let file = File::options().create(true).append(true).open(self.path(key))?;
            File::open(&self.dir)?.sync_all()?;
            self.open = Some((key, file));
            self.remove_before(key)?;
        }
        let Some((_, file)) = &mut self.open else { return Ok(()) };
        let mut records = Vec::new();
        for block in blocks {
            records.extend((block.bytes().len() as u32).to_le_bytes());
            records.extend_from_slice(block.bytes());
        }
        file.write_all(&records)?;
        file.sync_data()
    }

    fn path(&self, (epoch, part): (Epoch, Round)) -> PathBuf {
        self.dir.join(format!("{epoch:010}-{part:08}.blocks"))
    }

    /// Removes all files but this one and the one before it, in the same or the last epoch.
    fn remove_before(&self, key: (Epoch, Round)) -> io::Result<()> {
        let older: Vec<_> = files(&self.dir)?.into_iter().filter(|(other, _)| *other < key).collect();
        for (_, path) in older.iter().rev().skip(1) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// The files of a log, in the order in which they were written.
fn files(dir: &Path) -> io::Result<Vec<((Epoch, Round), PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".blocks"));
        let key = name.and_then(|name| name.split_once('-'));
        if let Some((epoch, part)) = key.and_then(|(epoch, part)| Some((epoch.parse().ok()?, part.parse().ok()?))) {
            files.push(((epoch, part), path));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_testkit::{ChainBuilder, ChainSpec};

    fn blocks(count: usize) -> Vec<VerifiedBlock> {
        let commits = ChainBuilder::new(ChainSpec::default()).unwrap().build(count);
        commits.into_iter().flat_map(|commit| commit.blocks).collect()
    }

    #[test]
    fn log_returns_what_was_appended_without_a_torn_record() {
        let dir = tempfile::tempdir().unwrap();
        let blocks = blocks(8);
        let (mut log, read) = BlockLog::open(dir.path(), 0).unwrap();
        assert_eq!(read, []);
        log.append(&blocks[..2]).unwrap();
        log.append(&blocks[2..5]).unwrap();
        drop(log);
        let [(_, file)] = &files(dir.path()).unwrap()[..] else { panic!("one file") };
        let length = fs::metadata(file).unwrap().len();
        File::options().write(true).open(file).unwrap().set_len(length - 1).unwrap();

        let (mut log, read) = BlockLog::open(dir.path(), 0).unwrap();
        assert_eq!(read, blocks[..4]);
        log.append(&blocks[5..6]).unwrap();
        let (_, read) = BlockLog::open(dir.path(), 0).unwrap();
        assert_eq!(read, [&blocks[..4], &blocks[5..6]].concat());
        assert_eq!(BlockLog::open(dir.path(), 1).unwrap().1, [], "another epoch");
    }

    #[test]
    fn log_keeps_the_last_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = BlockLog::open(dir.path(), 0).unwrap();
        let blocks = blocks(2 * ROUNDS_PER_FILE as usize + 10);
        for block in &blocks {
            log.append(std::slice::from_ref(block)).unwrap();
        }
        let (_, read) = BlockLog::open(dir.path(), 0).unwrap();
        assert!(read.first().unwrap().round == ROUNDS_PER_FILE && read.last() == blocks.last());
    }
}
