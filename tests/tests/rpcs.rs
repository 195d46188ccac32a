//! Every rpc against a real node: TLS, gRPC and a store on disk.

use futures::StreamExt;
use soma_network::wire::{BlockRefs, Call, CommitRange, EpochProofsFrom, Status};
use soma_network::{Link, TlsTransport, Transport};
use soma_p2p::{CertifiedCommit, ChainId, EpochProof, Genesis};
use soma_tests::{TestNode, chain, config, disk_store, key, node, start};
use soma_types::{Access, Capabilities, NodeInfo, NodeRole, PeerId, ProtocolVersions, SignedNodeInfo};
use soma_verify::{
    CertificateVerifier, EpochContext, check_commits, verify_blocks, verify_epoch_proof, verify_node_info,
};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

struct Server {
    system: TestNode,
    link: Link,
    chain: ChainId,
    commits: Vec<CertifiedCommit>,
    genesis: Genesis,
    context: EpochContext,
    _dir: TempDir,
}

async fn server() -> Server {
    let (builder, commits) = chain(50);
    let genesis = builder.genesis().clone();
    let (store, dir) = disk_store(&genesis, &commits);
    let system = start(node(1, &genesis, store, config(&[])));
    let transport = TlsTransport::new(&key(7)).unwrap();
    let link = transport.dial(system.peer_id(), system.address(), Duration::from_secs(5)).await.unwrap();
    let context = EpochContext::new(genesis.chain_id(), genesis.committee().clone()).unwrap();
    Server { system, link, chain: builder.chain_id(), commits, genesis, context, _dir: dir }
}

impl Server {
    fn call(&self) -> Call {
        Call { peer: self.link.peer(), chain: Some(self.chain), remote: None, timeout: Duration::from_secs(10) }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

#[tokio::test]
async fn availability_and_commit_info_tell_what_the_node_has() {
    let server = server().await;
    let api = server.link.api();
    let availability = api.get_commit_availability(server.call()).await.unwrap();
    assert_eq!((availability.highest_synced, availability.lowest_available), (50, 1));
    let latest = api.get_commit_info(server.call(), None).await.unwrap();
    assert_eq!(latest, server.commits[49].commit.reference());
    let seventh = api.get_commit_info(server.call(), Some(7)).await.unwrap();
    assert_eq!(seventh, server.commits[6].commit.reference());
    let beyond = api.get_commit_info(server.call(), Some(51)).await.unwrap_err();
    assert_eq!(beyond.status, Status::OutOfRange);
}

#[tokio::test]
async fn commits_come_with_the_votes_that_prove_them_and_end_with_their_epoch() {
    let server = server().await;
    let range = CommitRange::new(3, 12).unwrap();
    let fetched = server.link.api().fetch_commits(server.call(), range).await.unwrap();
    let checked = check_commits(&server.context, 3, 12, fetched.commits, fetched.certifier_blocks).unwrap();
    assert_eq!(checked.commits.len(), 10);
    let range = CommitRange::new(15, 40).unwrap();
    let fetched = server.link.api().fetch_commits(server.call(), range).await.unwrap();
    assert_eq!(fetched.commits.len(), 6, "15 to 20, the last of the epoch");
    let beyond = server.link.api().fetch_commits(server.call(), CommitRange::new(51, 60).unwrap()).await.unwrap_err();
    assert_eq!(beyond.status, Status::OutOfRange);
    assert!(beyond.message.contains("1 to 50"), "{beyond}");
}

#[tokio::test]
async fn blocks_come_in_the_order_asked_and_a_missing_one_is_named() {
    let server = server().await;
    let mut refs: Vec<_> = server.commits[..20].iter().flat_map(|commit| commit.commit.blocks.clone()).collect();
    refs.reverse();
    let stream = server.link.api().fetch_blocks(server.call(), BlockRefs::new(refs.clone()).unwrap()).await.unwrap();
    let chunks: Vec<_> = stream.collect().await;
    let blocks: Vec<_> = chunks.into_iter().flat_map(Result::unwrap).collect();
    verify_blocks(&server.context, &CertificateVerifier, &refs, blocks).unwrap();

    let mut absent = refs[0];
    absent.round += 1_000;
    let asked = BlockRefs::new(vec![refs[1], absent]).unwrap();
    let mut stream = server.link.api().fetch_blocks(server.call(), asked).await.unwrap();
    let error = loop {
        match stream.next().await.expect("an error before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.status, Status::NotFound);
    assert!(error.message.contains(&absent.to_string()), "{error}");
}

#[tokio::test]
async fn epoch_proofs_lead_from_genesis_to_the_current_committee() {
    let server = server().await;
    let api = server.link.api();
    let answer = api.get_epoch_proofs(server.call(), EpochProofsFrom::new(0)).await.unwrap();
    assert_eq!(answer.proofs.len(), 2, "the third epoch has not ended");
    let (mut context, mut previous) = (server.context.clone(), server.genesis.commit());
    for (bytes, last) in answer.proofs.iter().zip([20, 40]) {
        let end = verify_epoch_proof(&context, &previous, &EpochProof::decode(bytes).unwrap()).unwrap();
        assert_eq!(end.last_commit, server.commits[last - 1].commit);
        previous = end.last_commit;
        context = EpochContext::new(server.chain, end.next_committee).unwrap();
    }
    assert_eq!(context.epoch(), 2);

    let second = api.get_epoch_proofs(server.call(), EpochProofsFrom::new(1)).await.unwrap();
    assert_eq!(second.proofs, answer.proofs[1..]);
    let room_for_one = EpochProofsFrom::new(0).within(answer.proofs[0].len() as u64);
    assert_eq!(api.get_epoch_proofs(server.call(), room_for_one).await.unwrap().proofs, answer.proofs[..1]);
    let too_small = api.get_epoch_proofs(server.call(), EpochProofsFrom::new(0).within(1)).await.unwrap_err();
    assert_eq!(too_small.status, Status::NotFound);
    let beyond = api.get_epoch_proofs(server.call(), EpochProofsFrom::new(2)).await.unwrap_err();
    assert_eq!(beyond.status, Status::OutOfRange);
    assert!(beyond.message.contains("epoch 2"), "{beyond}");
}

#[tokio::test]
async fn known_peers_returns_own_signed_info_and_never_the_callers() {
    let server = server().await;
    let info = NodeInfo {
        peer_id: PeerId::from(&key(7)),
        addresses: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()],
        chain_id: server.chain,
        timestamp_ms: now_ms(),
        protocol_versions: ProtocolVersions::SUPPORTED,
        capabilities: Capabilities { role: NodeRole::FullNode, archive: false, lowest_commit: 7 },
        access: Access::Public,
    };
    let own = SignedNodeInfo::sign(info, server.chain, &key(7));
    let answer = server.link.api().get_known_peers(server.call(), own.bytes().clone()).await.unwrap();
    let signed = verify_node_info(server.chain, answer.own_info, now_ms()).unwrap();
    assert_eq!(signed.peer_id, server.system.peer_id());
    assert_eq!(signed.addresses, [server.system.address().clone()]);
    assert!(!answer.known_peers.contains(own.bytes()));
}

#[tokio::test]
async fn a_push_is_acknowledged() {
    let server = server().await;
    server.link.api().push_commit(server.call(), 60).await.unwrap();
}

#[tokio::test]
async fn calls_with_another_chain_id_are_refused_and_without_one_are_read_only() {
    let server = server().await;
    let api = server.link.api();
    for (chain, may_look) in [(None, true), (Some(ChainId([7; 32])), false)] {
        let call = Call { chain, ..server.call() };
        let refs = BlockRefs::new(server.commits[0].commit.blocks.clone()).unwrap();
        let looks = [
            api.get_known_peers(call, bytes::Bytes::new()).await.err(),
            api.get_commit_availability(call).await.err(),
            api.get_commit_info(call, Some(0)).await.err(),
        ];
        let does = [
            api.fetch_commits(call, CommitRange::new(1, 2).unwrap()).await.err(),
            api.fetch_blocks(call, refs).await.err(),
            api.push_commit(call, 1).await.err(),
            api.get_epoch_proofs(call, EpochProofsFrom::new(0)).await.err(),
        ];
        for error in looks {
            assert_eq!(error.map(|error| error.status), (!may_look).then_some(Status::FailedPrecondition));
        }
        for error in does {
            assert_eq!(error.unwrap().status, Status::FailedPrecondition);
        }
    }
}

#[tokio::test]
async fn a_caller_hears_from_where_it_is_seen_whatever_it_says_of_itself() {
    let server = server().await;
    for said in [bytes::Bytes::new(), bytes::Bytes::from_static(b"no node info")] {
        let answer = server.link.api().get_known_peers(server.call(), said).await.unwrap();
        assert_eq!(answer.seen.ip, Some(std::net::Ipv4Addr::LOCALHOST.into()));
        verify_node_info(server.chain, answer.own_info, now_ms()).unwrap();
    }
}

#[tokio::test]
async fn a_node_says_which_commits_it_serves() {
    let server = server().await;
    let answer = server.link.api().get_known_peers(server.call(), bytes::Bytes::new()).await.unwrap();
    let info = verify_node_info(server.chain, answer.own_info, now_ms()).unwrap();
    assert_eq!(info.capabilities, Capabilities { role: NodeRole::FullNode, archive: true, lowest_commit: 1 });
}
