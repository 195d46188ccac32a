//! A node that is killed again and again while it fetches a snapshot.

use super::{
    super::node_io::Event,
    network::Network,
    node::{Source, Work},
    record::{Kills, ObjectRecord},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soma_p2p_cli::{CliError, files};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Kills.
const KILLS: u32 = 50;

/// The longest time from the first chunk of a life to the kill. All lives but the last are shorter than the fetch.
const LONGEST_LIFE: Duration = Duration::from_millis(60);

pub(super) fn measure(network: &Network<'_>, case: &str, bytes: u64) -> Result<ObjectRecord, CliError> {
    let session = network.session;
    let (directory, manifest) = network.snapshot(bytes)?;
    let to = session.work().join("fetched");
    let (mut server, seed) = network.serve(0, Source::Snapshots { directory })?;
    let work = Work::Snapshot { manifest: manifest.id(), directory: to.clone() };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let started = Instant::now();
    for _ in 0..KILLS {
        let mut node = network.fetching(vec![seed.clone()], work.clone())?;
        let deadline = Instant::now() + Duration::from_secs(session.args.timeout);
        match node.next(session, deadline)? {
            Event::FirstChunk => {}
            other => return Err(CliError::failed(format!("all chunks came before {KILLS} kills: {other:?}"))),
        }
        thread::sleep(LONGEST_LIFE.mul_f64(rng.random()));
        node.kill();
    }
    let mut node = network.fetching(vec![seed], work)?;
    let fetched = network.fetched(&mut node)?;
    let seconds = started.elapsed().as_secs_f64();
    node.stop(session)?;
    server.ask_to_stop();
    let deadline = Instant::now() + Duration::from_secs(session.args.timeout);
    let mut served = None;
    let server_cpu_s = loop {
        match server.next(session, deadline)? {
            Event::ServedChunks { chunks } => served = Some(chunks),
            Event::Stopped { cpu_s, .. } => break cpu_s,
            _ => {}
        }
    };
    let is_whole = network.is_whole(to.clone(), &manifest);
    files::remove_dir(&to)?;
    let chunks = manifest.chunks.len() as u64;
    let served = served.ok_or_else(|| CliError::failed("the serving node did not count"))?;
    if !is_whole {
        return Err(CliError::failed("the fetched snapshot is not whole"));
    }
    Ok(ObjectRecord {
        case: case.into(),
        peers: 1,
        objects: chunks,
        bytes: manifest.bytes,
        seconds,
        objects_per_s: chunks as f64 / seconds,
        peak_rss_mib: fetched.peak_rss_mib,
        cpu_s: fetched.cpu_s,
        server_cpu_s,
        kills: Some(Kills { kills: KILLS, chunks_served_again: served.saturating_sub(chunks) }),
        ..ObjectRecord::default()
    })
}
