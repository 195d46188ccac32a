//! Commits from the parent process, which plays the consensus, to its validators: over their standard input.
//!
//! A frame is the number of blocks and of certifier blocks (u32, big-endian), then the commit, the blocks and the
//! certifier blocks, each behind its length (u32, big-endian).

use crate::executor::Keep;
use bytes::Bytes;
use soma_p2p::{
    CertifiedCommit, Handle, LocalCommitError, SignedBlock, TrustedCommit, UnverifiedCommit, VerifiedBlock,
};
use soma_types::limits::{MAX_BLOCK_BYTES, MAX_BLOCKS_PER_COMMIT, MAX_COMMIT_BYTES, MAX_COMMITTEE_SIZE};
use std::{
    io::{self, Write},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, stdin};

/// How often a commit is offered that the system cannot take at the moment, and the pause between: for the ten restarts
/// in a minute that an actor may need.
const OFFERS: u32 = 300;
const OFFER_PAUSE: Duration = Duration::from_millis(200);

/// Writes one commit.
pub fn write_commit(out: &mut impl Write, commit: &CertifiedCommit) -> io::Result<()> {
    let CertifiedCommit { commit, blocks, certifiers } = commit;
    out.write_all(&(blocks.len() as u32).to_be_bytes())?;
    out.write_all(&(certifiers.len() as u32).to_be_bytes())?;
    let blocks = blocks.iter().chain(certifiers).map(|block| block.bytes());
    for bytes in [commit.bytes()].into_iter().chain(blocks) {
        out.write_all(&(bytes.len() as u32).to_be_bytes())?;
        out.write_all(bytes)?;
    }
    out.flush()
}

/// Hands every commit on standard input to the system; ends with the input, or with a commit that is refused. One for
/// which commits are missing is not refused: all of them come from peers.
pub async fn take_commits(system: &Handle, keep: &Keep) -> Result<(), String> {
    let mut input = BufReader::new(stdin());
    while let Some(commit) =
        read_commit(&mut input).await.map_err(|error| format!("commits on standard input: {error}"))?
    {
        let index = commit.commit.index;
        let taken = offer(system, commit).await;
        if taken.map_err(|error| format!("commit {index} on standard input: {error}"))? {
            keep.acknowledged(index).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Offers a commit until it is taken, or left to peers because those before it are missing, or refused for another
/// reason than that this is no good moment. Whether it was taken.
pub async fn offer(system: &Handle, commit: CertifiedCommit) -> Result<bool, LocalCommitError> {
    use LocalCommitError::{Busy, Gap, Unavailable};
    let index = commit.commit.index;
    let mut attempts = 1;
    loop {
        match system.send_commit(commit.clone()).await {
            Ok(()) => return Ok(true),
            Err(Gap { .. }) if index > system.height().saturating_add(1) => return Ok(false),
            // It has caught up meanwhile, or will be able to.
            Err(Gap { .. } | Busy { .. } | Unavailable) if attempts < OFFERS => attempts += 1,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(OFFER_PAUSE).await;
    }
}

/// Resolves at the end of standard input.
pub async fn until_end() -> Result<(), String> {
    let mut input = stdin();
    let mut ignored = [0; 256];
    while input.read(&mut ignored).await.map_err(|error| error.to_string())? > 0 {}
    Ok(())
}

async fn read_commit(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<CertifiedCommit>> {
    let blocks = match input.read_u32().await {
        Ok(count) => count as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let certifiers = input.read_u32().await? as usize;
    if blocks > MAX_BLOCKS_PER_COMMIT || certifiers > MAX_COMMITTEE_SIZE {
        return Err(io::Error::other("more blocks than a commit may have"));
    }
    let commit = UnverifiedCommit::decode(read_bytes(input, MAX_COMMIT_BYTES).await?).map_err(io::Error::other)?;
    // The parent made it.
    let commit = TrustedCommit::assume_trusted(commit);
    let mut all = Vec::with_capacity(blocks + certifiers);
    for _ in 0..blocks + certifiers {
        let block = SignedBlock::decode(read_bytes(input, MAX_BLOCK_BYTES).await?).map_err(io::Error::other)?;
        // The parent made it.
        all.push(VerifiedBlock::assume_verified(block));
    }
    let certifiers = all.split_off(blocks);
    Ok(Some(CertifiedCommit { commit, blocks: all, certifiers }))
}

async fn read_bytes(input: &mut (impl AsyncRead + Unpin), limit: usize) -> io::Result<Bytes> {
    let size = input.read_u32().await? as usize;
    if size > limit {
        return Err(io::Error::other(format!("an item of {size} bytes is over the limit of {limit}")));
    }
    let mut bytes = vec![0; size];
    input.read_exact(&mut bytes).await?;
    Ok(bytes.into())
}
