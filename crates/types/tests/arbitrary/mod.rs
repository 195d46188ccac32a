//! Arbitrary values of every encoded type, and small damage to encodings.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::Index};
use soma_types::{
    Access, Address, Authority, AuthoritySignature, Block, BlockDigest, BlockRef, Capabilities, Certificate, ChainId,
    Commit, CommitDigest, CommitRef, Committee, EndOfEpoch, Genesis, NodeInfo, NodeRole, PeerId, ProtocolVersions,
    PublicKey, QuorumSignatures, Signature, SignedTransaction, SigningKey, Transaction, TransactionBytes,
};
use std::net::SocketAddr;

fn signature() -> impl Strategy<Value = Signature> {
    any::<([u8; 32], [u8; 32])>().prop_map(|(low, high)| {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&low);
        bytes[32..].copy_from_slice(&high);
        Signature(bytes)
    })
}

fn address() -> impl Strategy<Value = Address> {
    prop_oneof![
        (any::<[u8; 4]>(), 1..=u16::MAX).prop_map(|at| Address::try_from(SocketAddr::from(at)).unwrap()),
        (any::<[u16; 8]>(), 1..=u16::MAX).prop_map(|at| Address::try_from(SocketAddr::from(at)).unwrap()),
        ("[a-z]{1,10}(\\.[a-z]{2,5})?", 1..=u16::MAX)
            .prop_map(|(name, port)| format!("/dns/{name}/tcp/{port}").parse().unwrap()),
    ]
}

fn block_ref() -> impl Strategy<Value = BlockRef> {
    any::<(u64, u32, u32, [u8; 32])>().prop_map(|(epoch, round, author, digest)| BlockRef {
        epoch,
        round,
        author,
        digest: BlockDigest(digest),
    })
}

fn commit_ref() -> impl Strategy<Value = CommitRef> {
    any::<(u32, [u8; 32])>().prop_map(|(index, digest)| CommitRef { index, digest: CommitDigest(digest) })
}

fn quorum() -> impl Strategy<Value = QuorumSignatures> {
    let one =
        (any::<u32>(), signature()).prop_map(|(authority, signature)| AuthoritySignature { authority, signature });
    vec(one, 0..4).prop_map(|signatures| QuorumSignatures { signatures })
}

pub(crate) fn committee() -> impl Strategy<Value = Committee> {
    let authority =
        (any::<(u64, [u8; 32], [u8; 32])>(), address()).prop_map(|((stake, protocol, network), address)| Authority {
            stake,
            protocol_key: PublicKey(protocol),
            network_key: PublicKey(network),
            address,
        });
    (any::<u64>(), vec(authority, 0..4)).prop_map(|(epoch, authorities)| Committee { epoch, authorities })
}

pub(crate) fn genesis() -> impl Strategy<Value = Genesis> {
    let key = |seed: u8| PublicKey::from(&SigningKey::from_bytes(&[seed; 32]));
    let members = vec((1..1_000u64, address()), 1..4).prop_map(move |members| {
        let authorities = (1u8..).zip(members).map(|(seed, (stake, address))| Authority {
            stake,
            protocol_key: key(seed),
            network_key: key(seed + 100),
            address,
        });
        Committee { epoch: 0, authorities: authorities.collect() }
    });
    ("\\PC{0,16}", any::<u64>(), members)
        .prop_map(|(name, timestamp_ms, committee)| Genesis::new(name, timestamp_ms, committee).unwrap())
}

pub(crate) fn certificate() -> impl Strategy<Value = Certificate> {
    (any::<(u64, [u8; 32], u64)>(), vec(any::<u8>(), 0..40), signature(), quorum()).prop_map(
        |((epoch, sender, nonce), payload, signature, quorum)| {
            let transaction = Transaction { sender: PublicKey(sender), nonce, payload };
            Certificate { epoch, signed_transaction: SignedTransaction { transaction, signature }, quorum }
        },
    )
}

pub(crate) fn block() -> impl Strategy<Value = (Block, Signature)> {
    let transaction = vec(any::<u8>(), 0..40).prop_map(|bytes| TransactionBytes(Bytes::from(bytes)));
    let end =
        (committee(), quorum()).prop_map(|(next_committee, certificate)| EndOfEpoch { next_committee, certificate });
    let lists = (vec(block_ref(), 0..4), vec(transaction, 0..4), vec(commit_ref(), 0..4), option::of(end));
    let body = (any::<(u64, u32, u32, u64)>(), lists).prop_map(
        |((epoch, round, author, timestamp_ms), (ancestors, transactions, commit_votes, end_of_epoch))| Block {
            epoch,
            round,
            author,
            timestamp_ms,
            ancestors,
            transactions,
            commit_votes,
            end_of_epoch,
        },
    );
    (body, signature())
}

pub(crate) fn commit() -> impl Strategy<Value = Commit> {
    (any::<(u32, [u8; 32], u64, u64)>(), block_ref(), vec(block_ref(), 0..6)).prop_map(
        |((index, previous, timestamp_ms, epoch), leader, blocks)| Commit {
            index,
            previous_digest: CommitDigest(previous),
            timestamp_ms,
            leader,
            blocks,
            epoch,
        },
    )
}

pub(crate) fn node_info() -> impl Strategy<Value = (NodeInfo, Signature)> {
    let access = prop_oneof![Just(Access::Public), Just(Access::Trusted), Just(Access::Private)];
    let role = prop_oneof![Just(NodeRole::Validator), Just(NodeRole::FullNode)];
    let plain = any::<([u8; 32], [u8; 32], u64, (u32, u32), (bool, u32))>();
    let info = (plain, vec(address(), 0..4), role, access).prop_map(
        |((peer, chain, timestamp_ms, (min, max), (archive, lowest_commit)), addresses, role, access)| NodeInfo {
            peer_id: PeerId(peer),
            addresses,
            chain_id: ChainId(chain),
            timestamp_ms,
            protocol_versions: ProtocolVersions { min, max },
            capabilities: Capabilities { role, archive, lowest_commit },
            access,
        },
    );
    (info, signature())
}

/// One change of a byte string.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Truncate(Index),
    Append(u8),
}

pub(crate) fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        4 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        1 => any::<Index>().prop_map(Damage::Remove),
        1 => any::<Index>().prop_map(Damage::Truncate),
        1 => any::<u8>().prop_map(Damage::Append),
    ];
    vec(one, 1..4)
}

/// Applies each `damage` to the bytes, in order.
pub(crate) fn damaged(mut bytes: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for change in damage {
        let len = bytes.len();
        match change {
            _ if len == 0 => bytes.push(0),
            Damage::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Damage::Set(at, byte) => bytes[at.index(len)] = *byte,
            Damage::Insert(at, byte) => bytes.insert(at.index(len), *byte),
            Damage::Remove(at) => drop(bytes.remove(at.index(len))),
            Damage::Truncate(at) => bytes.truncate(at.index(len)),
            Damage::Append(byte) => bytes.push(*byte),
        }
    }
    bytes
}
