//! A pair as an operator runs it: a Prometheus scrapes both nodes, and the status page of one is open.

use super::{CHAIN, SETTLE, turns};
use crate::{
    bench::{chain::copy_dir, chain_cache::ChainCache, session::Session, sync},
    localnet::process::{NodeFiles, NodeProcess},
};
use soma_p2p::{Progress, SeedPeer, SigningKey, Verification};
use soma_p2p_cli::{CliError, files};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Time between two scrapes, as in `docs/operating`.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(15);

/// How often the second node is asked whether it has synced.
const SYNC_POLL: Duration = Duration::from_millis(100);

/// The serving node first.
pub(super) fn measure(session: &Session, chains: &mut ChainCache, time: Duration) -> Result<turns::Usage, CliError> {
    let mut chain = chains.take(session, CHAIN)?;
    let stores = chain.stores(2)?.to_vec();
    let dir = session.work().join("idle-operated");
    files::remove_dir(&dir)?;
    // Both have the chain from the start: its transactions are none that a node of the command would take from a peer.
    let start = |name: &str, index: usize, seeds: Vec<SeedPeer>| {
        let p2p = sync::config(Verification::Full, seeds);
        let key = SigningKey::from_bytes(&sync::key(index as u8));
        let node = NodeFiles::write(&dir, name.into(), &key, &chain.genesis, p2p)?;
        copy_dir(&stores[index], &node.config.store_dir()).map_err(CliError::failed)?;
        NodeProcess::start(&node)
    };
    let serving = start("serving", 0, Vec::new())?;
    let seed = SeedPeer { peer_id: serving.run.peer_id, address: serving.run.listen.clone() };
    let synced = start("synced", 1, vec![seed])?;
    let deadline = Instant::now() + Duration::from_secs(session.args.timeout);
    while synced.status().map_err(CliError::failed)?.p2p.progress != Some(Progress::Synced) {
        if Instant::now() > deadline {
            return Err(CliError::failed("the second node of the idle pair is not synced with the first"));
        }
        turns::wait(session, SYNC_POLL)?;
    }
    let admins = [serving.run.admin, synced.run.admin];
    // Ends when the node stops.
    let mut page = get(admins[1], "/events")?;
    let reading = thread::spawn(move || io::copy(&mut page, &mut io::sink()));
    turns::wait(session, SETTLE)?;
    let pids = [serving.run.pid, synced.run.pid];
    let usage = turns::usage_while(pids, || {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for admin in admins {
                get(admin, "/metrics")?.read_to_end(&mut Vec::new()).map_err(CliError::failed)?;
            }
            turns::wait(session, SCRAPE_INTERVAL.min(until.saturating_duration_since(Instant::now())))?;
        }
        Ok(())
    })?;
    let stopped = synced.wait_stopped() & serving.wait_stopped();
    let events = reading.join().ok().and_then(Result::ok).unwrap_or_default();
    if !stopped || events == 0 {
        return Err(CliError::failed("a node of the idle pair did not stop in order, or its page got nothing"));
    }
    chains.put_back(chain);
    files::remove_dir(&dir)?;
    Ok(usage)
}

/// Asks an admin endpoint; the answer, of which nothing has been read.
fn get(admin: SocketAddr, path: &str) -> Result<TcpStream, CliError> {
    let mut stream = TcpStream::connect(admin).map_err(CliError::failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(CliError::failed)?;
    Ok(stream)
}
