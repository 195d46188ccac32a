//! Checks of messages.

use super::world::World;
use crate::consensus::payload::{MAX_BLOCKS_PER_MESSAGE, Payload, next_committee, validate};
use bytes::Bytes;
use soma_p2p::{
    Block, MessageVerdict, SignedBlock,
    types::{AuthoritySignature, EndOfEpoch, QuorumSignatures, Scope, Signature},
};
use soma_testkit::{ChainBuilder, ChainSpec};

fn builder() -> ChainBuilder {
    let spec = ChainSpec { committee_is_fixed: true, ..ChainSpec::default() };
    ChainBuilder::new(spec).unwrap()
}

#[test]
fn proposal_of_another_author_or_with_a_wrong_signature_is_rejected() {
    let context = World::new(0, 4, 10).context(0);
    let commit = builder().next_commit();
    let block = &commit.blocks[0];
    let proposal = |bytes: &[u8]| Payload::Proposal(bytes).encode();
    let right = proposal(block.bytes());
    let slot = Some(u64::from(block.round));
    assert_eq!(validate(&context, block.author, &right), MessageVerdict::Accept { slot });
    assert_eq!(validate(&context, block.author + 1, &right), MessageVerdict::Reject);
    assert_eq!(
        validate(&World::new(0, 4, 10).context(1), block.author, &right),
        MessageVerdict::Ignore,
        "another epoch"
    );
    let blocks = Payload::Blocks { at_ms: 1, blocks: vec![block.bytes()] }.encode();
    assert_eq!(validate(&context, block.author + 1, &blocks), MessageVerdict::Accept { slot: None });
    let mut bytes = block.bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(validate(&context, block.author, &proposal(&bytes)), MessageVerdict::Reject);
}

#[test]
fn lists_beyond_their_bounds_are_rejected() {
    let context = World::new(0, 4, 10).context(0);
    let commit = builder().next_commit();
    let reference = commit.blocks[0].reference();
    for (count, verdict) in [
        (0, MessageVerdict::Reject),
        (MAX_BLOCKS_PER_MESSAGE, MessageVerdict::Accept { slot: None }),
        (MAX_BLOCKS_PER_MESSAGE + 1, MessageVerdict::Reject),
    ] {
        let request = Payload::Request { at_ms: 1, is_retry: false, blocks: vec![(reference, 0); count] }.encode();
        assert_eq!(validate(&context, 0, &request), verdict, "{count}");
        let blocks: Vec<&[u8]> = vec![commit.blocks[0].bytes(); count];
        assert_eq!(validate(&context, 0, &Payload::Blocks { at_ms: 1, blocks }.encode()), verdict, "{count}");
    }
}

#[test]
fn handover_that_no_quorum_signed_is_rejected() {
    let context = World::new(0, 4, 10).context(0);
    let (builder, digest) = (builder(), next_committee(&context).digest());
    let sign = |authority| {
        let key = builder.protocol_key(0, authority);
        let signature = context.intent(Scope::NextCommittee).sign(&key, &digest.0);
        AuthoritySignature { authority, signature }
    };
    let block = |signatures: Vec<AuthoritySignature>| {
        let block = Block {
            epoch: 0,
            round: 1,
            author: 0,
            timestamp_ms: 1,
            ancestors: context.genesis_refs().to_vec(),
            transactions: Vec::new(),
            commit_votes: Vec::new(),
            end_of_epoch: Some(EndOfEpoch {
                next_committee: next_committee(&context),
                certificate: QuorumSignatures { signatures },
            }),
        };
        let block = SignedBlock::sign(block, context.chain(), &builder.protocol_key(0, 0));
        Payload::Proposal(block.bytes()).encode()
    };
    let right = block((0..3).map(sign).collect());
    assert_eq!(validate(&context, 0, &right), MessageVerdict::Accept { slot: Some(1) });
    assert_eq!(validate(&context, 0, &block((0..2).map(sign).collect())), MessageVerdict::Reject);
    let mut signatures: Vec<_> = (0..3).map(sign).collect();
    signatures[2].signature = Signature::ZERO;
    assert_eq!(validate(&context, 0, &block(signatures)), MessageVerdict::Reject);

    let own = |signature| Payload::NextCommittee { epoch: 0, round: 4, signature }.encode();
    assert_eq!(validate(&context, 2, &own(sign(2).signature)), MessageVerdict::Accept { slot: None });
    assert_eq!(validate(&context, 2, &own(sign(1).signature)), MessageVerdict::Reject);
}

#[test]
fn no_bytes_panic_the_check_of_messages() {
    let context = World::new(0, 4, 10).context(0);
    let commit = builder().next_commit();
    let message = Payload::Blocks { at_ms: 1, blocks: vec![commit.blocks[0].bytes(), commit.certifiers[1].bytes()] };
    let right = message.encode();
    assert_eq!(Payload::decode(&right).unwrap(), message);
    for length in 0..right.len() {
        assert_eq!(validate(&context, 0, &right.slice(..length)), MessageVerdict::Reject, "{length}");
    }
    for at in 0..right.len() {
        let mut bytes = right.to_vec();
        bytes[at] ^= 0xff;
        validate(&context, 0, &Bytes::from(bytes));
    }
}
