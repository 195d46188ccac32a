//! The processes of one fetch.

use super::{
    super::{
        child::BenchNode,
        node_io::{Event, Fetched},
        session::Session,
        sync,
    },
    latencies,
    node::{ObjectSetup, Source, Work},
    record::ObjectRecord,
};
use crate::localnet::process::loopback;
use soma_p2p::{Config, Genesis, SeedPeer, SnapshotDirectory, SnapshotManifest};
use soma_p2p_cli::{CliError, files};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

/// The command of a node's process.
const COMMAND: &str = "bench-object-node";

/// Nodes of one chain.
pub(super) struct Network<'a> {
    pub(super) session: &'a Session,
    genesis: Genesis,
    genesis_file: PathBuf,
}

impl<'a> Network<'a> {
    pub(super) fn new(session: &'a Session) -> Result<Self, CliError> {
        let builder = ChainBuilder::new(ChainSpec::default()).map_err(CliError::failed)?;
        let genesis = builder.genesis().clone();
        let genesis_file = session.work().join("objects-genesis.bin");
        files::replace(&genesis_file, &genesis.encode()).map_err(CliError::failed)?;
        Ok(Self { session, genesis, genesis_file })
    }

    /// A snapshot of `bytes` bytes, and its directory. It is made once.
    pub(super) fn snapshot(&self, bytes: u64) -> Result<(PathBuf, SnapshotManifest), CliError> {
        let path = self.session.work().join("snapshot");
        let directory = SnapshotDirectory::new(&path, self.genesis.chain_id());
        let mut found = directory.manifests().map_err(CliError::failed)?;
        let manifest = match found.pop() {
            Some(manifest) => manifest,
            None => {
                let mut writer = directory.write(self.genesis.commit().reference(), 1);
                let mut piece = vec![0xa5; 1 << 16];
                for at in 0..bytes >> 16 {
                    piece[..8].copy_from_slice(&at.to_le_bytes());
                    writer.write_all(&piece).map_err(CliError::failed)?;
                }
                writer.finish().map_err(CliError::failed)?
            }
        };
        Ok((path, manifest))
    }

    /// Whether a directory has the whole snapshot. Each chunk is read and checked.
    pub(super) fn is_whole(&self, path: PathBuf, manifest: &SnapshotManifest) -> bool {
        let directory = SnapshotDirectory::new(path, self.genesis.chain_id());
        let mut reader = directory.open(manifest.clone());
        std::io::copy(&mut reader, &mut std::io::sink()).is_ok_and(|bytes| bytes == manifest.bytes)
    }

    /// Starts a serving node.
    pub(super) fn serve(&self, index: u8, source: Source) -> Result<(BenchNode, SeedPeer), CliError> {
        let mut node = self.start(&format!("serving-{index}"), index + 1, Vec::new(), source, None)?;
        let seed = node.ready(self.session)?;
        Ok((node, seed))
    }

    /// Starts the fetching node.
    pub(super) fn fetching(&self, seeds: Vec<SeedPeer>, work: Work) -> Result<BenchNode, CliError> {
        let mut node = self.start("fetching", 0, seeds, Source::Nothing, Some(work))?;
        node.ready(self.session)?;
        Ok(node)
    }

    fn start(
        &self,
        name: &str,
        key: u8,
        seeds: Vec<SeedPeer>,
        source: Source,
        work: Option<Work>,
    ) -> Result<BenchNode, CliError> {
        let mut config = Config::listening_on(loopback().into());
        config.seed_peers = seeds;
        let setup = ObjectSetup { genesis: self.genesis_file.clone(), key: sync::key(key), config, source, work };
        BenchNode::start_command(self.session, name, COMMAND, &setup)
    }

    /// The end of what a node fetches.
    pub(super) fn fetched(&self, node: &mut BenchNode) -> Result<Fetched, CliError> {
        let deadline = Instant::now() + Duration::from_secs(self.session.args.timeout);
        loop {
            if let Event::Fetched(fetched) = node.next(self.session, deadline)? {
                return Ok(fetched);
            }
        }
    }

    /// Fetches once, from a node for each source.
    pub(super) fn fetch(&self, sources: Vec<Source>, work: Work) -> Result<ObjectRecord, CliError> {
        let mut servers = Vec::new();
        let mut seeds = Vec::new();
        for (index, source) in (0..).zip(sources) {
            let (node, seed) = self.serve(index, source)?;
            servers.push(node);
            seeds.push(seed);
        }
        let peers = servers.len();
        let mut node = self.fetching(seeds, work)?;
        let fetched = self.fetched(&mut node)?;
        let mut server_cpu_s = 0.0;
        for server in servers {
            server_cpu_s += server.stop(self.session)?.cpu_s;
        }
        node.stop(self.session)?;
        let latencies = latencies(fetched.latencies_ms);
        Ok(ObjectRecord {
            peers,
            objects: fetched.objects,
            bytes: fetched.bytes,
            seconds: fetched.seconds,
            objects_per_s: fetched.objects as f64 / fetched.seconds,
            p50_ms: latencies.map(|(p50, _)| p50),
            p99_ms: latencies.map(|(_, p99)| p99),
            peak_rss_mib: fetched.peak_rss_mib,
            cpu_s: fetched.cpu_s,
            server_cpu_s,
            ..ObjectRecord::default()
        })
    }
}
