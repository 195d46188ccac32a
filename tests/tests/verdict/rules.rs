//! Each rule of the protocol, and how it is broken. Ids are those of `docs/protocol.md`.

use crate::{
    CHAIN, COMMITS, ENDLESS,
    forge::{Chain, DraftBlock, Edit, Item},
    ways::{BlockLie, Lie},
};
use bytes::Bytes;
use soma_types::{
    Authority, Block, BlockDigest, BlockRef, CommitDigest, CommitRef, Committee, PublicKey, Scope, Signature,
    SignedBlock, TransactionBytes, TrustedCommit, UnverifiedCommit, VerifiedBlock,
    limits::{MAX_BLOCKS_PER_COMMIT, MAX_COMMIT_VOTES_PER_BLOCK, MAX_COMMITTEE_SIZE, MAX_TRANSACTIONS_PER_BLOCK},
};

/// Which chain a rule is broken on.
#[derive(Clone, Copy)]
pub(crate) enum On {
    /// With epochs of three commits.
    Epochs,
    /// With one epoch that does not end.
    Endless,
}

/// A rule about what a quorum certifies: the commits before the breach pass, and no peer is to blame.
#[derive(Clone, Copy)]
pub(crate) struct Content {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    /// Where it is broken: in the middle of an epoch, and behind its end.
    pub(crate) at: &'static [usize],
    pub(crate) chain: On,
    pub(crate) edit: Edit,
}

/// A rule about an answer: its peer is caught.
pub(crate) struct Answer {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) lie: Option<Lie>,
    pub(crate) block_lie: Option<BlockLie>,
    pub(crate) bans: bool,
}

/// A rule about the blocks that certify a commit.
pub(crate) struct Votes {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) edit: Edit,
}

/// Rules that are shown by tests of their own.
pub(crate) const ELSEWHERE: &[(&str, &str)] = &[
    ("L1", "verdict_on_a_certified_fork_is_no_in_every_way_it_comes"),
    ("S2", "verdict_on_an_oversized_commit_is_equal_on_every_path"),
    // crates/types/src/epoch_proof.rs and crates/verify/tests/epoch_proofs.rs.
    ("P1", "proof_has_one_encoding_and_no_claimed_length_is_trusted"),
    ("P2", "proof_without_a_quorum_of_votes_is_a_lie"),
    ("P3", "block_that_the_commit_does_not_name_cannot_end_the_epoch"),
    ("P4", "certified_commit_that_does_not_end_the_epoch_is_no_proof"),
    ("P5", "epoch_ends_after_the_one_before"),
    ("P6", "block_that_ends_the_epoch_has_the_form_of_a_block"),
    ("P7", "handover_needs_a_quorum_of_right_signatures_on_a_valid_next_committee"),
];

const MIDDLE: &[usize] = &[2, 5];
const EVERYWHERE: &[usize] = &[1, 2, 4];
/// The last commit of the first epoch.
const LAST: &[usize] = &[3];

macro_rules! commit {
    ($id:literal, $name:literal, $at:expr, $edit:expr) => {
        Content { id: $id, name: $name, at: $at, chain: On::Epochs, edit: Edit::Commit($edit) }
    };
}

macro_rules! block {
    ($id:literal, $name:literal, $edit:expr) => {
        Content {
            id: $id,
            name: $name,
            at: MIDDLE,
            chain: On::Epochs,
            edit: Edit::Blocks(|_, blocks| {
                let edit: fn(&mut Block) = $edit;
                edit(&mut blocks[0].block);
            }),
        }
    };
}

macro_rules! transaction {
    ($id:literal, $name:literal, $make:expr) => {
        Content {
            id: $id,
            name: $name,
            at: MIDDLE,
            chain: On::Epochs,
            edit: Edit::Blocks(|chain, blocks| {
                let make: fn(&Chain, u64) -> TransactionBytes = $make;
                let block = &mut blocks[1].block;
                block.transactions.push(make(chain, block.epoch));
            }),
        }
    };
}

macro_rules! handover {
    ($id:literal, $name:literal, $authorities:expr, $edit:expr) => {
        Content {
            id: $id,
            name: $name,
            at: LAST,
            chain: On::Epochs,
            edit: Edit::Blocks(|chain, blocks| {
                let edit: fn(&mut Committee) = $edit;
                let mut next = chain.committee(1);
                edit(&mut next);
                leader(blocks).block.end_of_epoch = Some(chain.handover(0, next, $authorities));
            }),
        }
    };
}

fn leader(blocks: &mut [DraftBlock]) -> &mut DraftBlock {
    blocks.last_mut().expect("a leader")
}

fn lie_in_bytes(bytes: &mut Bytes, change: impl FnOnce(&mut Vec<u8>)) {
    let mut changed = bytes.to_vec();
    change(&mut changed);
    *bytes = changed.into();
}

pub(crate) const CONTENT: &[Content] = &[
    commit!("C5", "a commit of another epoch", EVERYWHERE, |commit| commit.epoch += 1),
    commit!("C6", "a commit without blocks", EVERYWHERE, |commit| commit.blocks.clear()),
    commit!("C6", "a commit of too many blocks", MIDDLE, |commit| {
        commit.blocks = vec![commit.leader; MAX_BLOCKS_PER_COMMIT + 1];
    }),
    commit!("C7", "blocks out of order", MIDDLE, |commit| commit.blocks.swap(0, 1)),
    commit!("C7", "a block twice", EVERYWHERE, |commit| commit.blocks.insert(0, commit.blocks[0])),
    commit!("C8", "a block of another epoch", EVERYWHERE, |commit| commit.blocks[0].epoch += 1),
    commit!("C8", "a block of round 0", EVERYWHERE, |commit| commit.blocks[0].round = 0),
    commit!("C8", "a block of a stranger", EVERYWHERE, |commit| commit.blocks[0].author = 4),
    commit!("C9", "a leader that is not the last block", MIDDLE, |commit| commit.leader = commit.blocks[0]),
    Content {
        id: "L2",
        name: "an epoch that begins without a handover",
        at: LAST,
        chain: On::Epochs,
        edit: Edit::Blocks(|_, blocks| leader(blocks).block.end_of_epoch = None),
    },
    block!("F1", "a block of another epoch", |block| block.epoch += 1),
    block!("F2", "a block of a stranger", |block| block.author = 4),
    block!("F3", "a block of round 0", |block| block.round = 0),
    block!("F4", "too many transactions", |block| {
        block.transactions = vec![TransactionBytes(Bytes::new()); MAX_TRANSACTIONS_PER_BLOCK + 1];
    }),
    block!("F5", "too many votes", |block| {
        let vote = CommitRef { index: 1, digest: CommitDigest([1; 32]) };
        block.commit_votes = vec![vote; MAX_COMMIT_VOTES_PER_BLOCK + 1];
    }),
    block!("F6", "a first ancestor of another author", |block| block.ancestors.swap(0, 1)),
    block!("F7", "two ancestors of one author", |block| block.ancestors.push(block.ancestors[1])),
    block!("F8", "an ancestor of another epoch", |block| block.ancestors[1].epoch += 1),
    block!("F8", "an ancestor of a stranger", |block| block.ancestors[1].author = 4),
    block!("F8", "an ancestor of the same round", |block| block.ancestors[1].round = block.round),
    block!("F9", "an ancestor of round 0 that is no genesis block", |block| {
        block.ancestors[3].round = 0;
        block.ancestors[3].digest = BlockDigest([7; 32]);
    }),
    block!("F10", "too few parents", |block| block.ancestors.truncate(2)),
    Content {
        id: "B3",
        name: "bytes that are no block",
        at: MIDDLE,
        chain: On::Epochs,
        edit: Edit::Blocks(|_, blocks| blocks[0].bytes = Some(Bytes::from(vec![7; 200]))),
    },
    Content {
        id: "B4",
        name: "a block under another name",
        at: MIDDLE,
        chain: On::Epochs,
        edit: Edit::Blocks(|_, blocks| {
            blocks[0].named = Some(|own: BlockRef| BlockRef { round: own.round.saturating_sub(1).max(1), ..own });
            // The first round of an epoch has none before it that a name could have.
            if blocks[0].block.round == 1 {
                blocks[0].named = Some(|own: BlockRef| BlockRef { author: (own.author + 1) % 4, ..own });
            }
        }),
    },
    Content {
        id: "B6",
        name: "a block that its author did not sign",
        at: MIDDLE,
        chain: On::Epochs,
        edit: Edit::Blocks(|_, blocks| blocks[0].signature = Some(Signature::ZERO)),
    },
    Content {
        id: "B6",
        name: "a leader that its author did not sign",
        at: EVERYWHERE,
        chain: On::Epochs,
        edit: Edit::Blocks(|_, blocks| leader(blocks).signature = Some(Signature([1; 64]))),
    },
    transaction!("B5", "a transaction that is refused", |_, _| TransactionBytes(Bytes::from_static(b"refused"))),
    transaction!("T1", "a transaction with a byte behind it", |chain, epoch| {
        let mut bytes = chain.transaction(epoch, &[0, 1, 2], |_| ()).0.to_vec();
        bytes.push(0);
        TransactionBytes(bytes.into())
    }),
    transaction!("T2", "a transaction of another epoch", |chain, epoch| {
        chain.transaction(epoch + 1, &[0, 1, 2], |_| ())
    }),
    transaction!("T3", "signers out of order", |chain, epoch| chain.transaction(epoch, &[1, 0, 2], |_| ())),
    transaction!("T3", "a signer twice", |chain, epoch| chain.transaction(epoch, &[0, 1, 1], |_| ())),
    transaction!("T3", "a signer who is a stranger", |chain, epoch| chain.transaction(epoch, &[0, 1, 4], |_| ())),
    transaction!("T3", "too few signers", |chain, epoch| chain.transaction(epoch, &[0, 1], |_| ())),
    transaction!("T4", "a sender whose key is of small order", |chain, epoch| {
        chain.transaction(epoch, &[0, 1, 2], |certificate| {
            let mut small = [0; 32];
            small[0] = 1;
            certificate.signed_transaction.transaction.sender = PublicKey(small);
        })
    }),
    transaction!("T5", "a transaction that its sender did not sign", |chain, epoch| {
        chain.transaction(epoch, &[0, 1, 2], |certificate| certificate.signed_transaction.signature.0[3] ^= 1)
    }),
    transaction!("T6", "a transaction that an authority did not sign", |chain, epoch| {
        chain.transaction(epoch, &[0, 1, 2], |certificate| certificate.quorum.signatures[2].signature.0[3] ^= 1)
    }),
    Content {
        id: "S1",
        name: "a block outside the leader's history",
        at: MIDDLE,
        chain: On::Epochs,
        edit: Edit::Blocks(|_, blocks| {
            blocks[0].block.timestamp_ms -= 1;
            blocks[0].is_stranger = true;
        }),
    },
    Content {
        id: "S3",
        name: "a block older than its ancestor",
        at: MIDDLE,
        chain: On::Epochs,
        edit: Edit::Blocks(|_, blocks| leader(blocks).block.timestamp_ms = 1),
    },
    commit!("S4", "a timestamp that is too late", EVERYWHERE, |commit| commit.timestamp_ms += 5_000),
    commit!("S4", "a timestamp that is too early", EVERYWHERE, |commit| commit.timestamp_ms -= 1),
    commit!("S4", "a timestamp that goes back", EVERYWHERE, |commit| commit.timestamp_ms -= 50_000),
    commit!("S4", "a timestamp of the last commit of an epoch that is too late", LAST, |commit| {
        commit.timestamp_ms += 5_000;
    }),
    Content {
        id: "H1",
        name: "handovers to two committees",
        at: LAST,
        chain: On::Epochs,
        edit: Edit::Blocks(|chain, blocks| {
            let mut other = chain.committee(1);
            other.authorities[0].stake += 1;
            blocks[0].block.end_of_epoch = Some(chain.handover(0, other, &[0, 1, 2]));
        }),
    },
    handover!("H2", "a committee of the epoch after the next", &[0, 1, 2], |next| next.epoch += 1),
    handover!("H2", "a committee of the same epoch", &[0, 1, 2], |next| next.epoch = 0),
    handover!("H3", "a handover without a quorum", &[0, 1], |_| ()),
    handover!("H3", "a handover with signers out of order", &[1, 0, 2], |_| ()),
    handover!("H3", "a handover signed by a stranger", &[0, 1, 4], |_| ()),
    Content {
        id: "H4",
        name: "a handover with a wrong signature",
        at: LAST,
        chain: On::Epochs,
        edit: Edit::Blocks(|_, blocks| {
            let end = leader(blocks).block.end_of_epoch.as_mut().expect("the last commit of an epoch");
            end.certificate.signatures[2].signature.0[3] ^= 1;
        }),
    },
    Content {
        id: "H4",
        name: "a handover signed by the next committee",
        at: LAST,
        chain: On::Epochs,
        edit: Edit::Blocks(|chain, blocks| {
            let end = leader(blocks).block.end_of_epoch.as_mut().expect("the last commit of an epoch");
            let digest = end.next_committee.digest();
            end.certificate = chain.signatures(Scope::NextCommittee, 1, &digest.0, &[0, 1, 2]);
        }),
    },
    Content {
        id: "H5",
        name: "an epoch that goes on behind its end",
        at: MIDDLE,
        chain: On::Endless,
        edit: Edit::Blocks(|chain, blocks| {
            leader(blocks).block.end_of_epoch = Some(chain.handover(0, chain.committee(1), &[0, 1, 2]));
        }),
    },
    handover!("K1", "a committee of nobody", &[0, 1, 2], |next| next.authorities.clear()),
    handover!("K1", "a committee of too many", &[0, 1, 2], |next| {
        let many = (0..=MAX_COMMITTEE_SIZE).map(|_| next.authorities[0].clone());
        next.authorities = many.collect();
    }),
    handover!("K2", "a member without stake", &[0, 1, 2], |next| next.authorities[2].stake = 0),
    handover!("K3", "stakes that cannot be counted", &[0, 1, 2], |next| {
        next.authorities.iter_mut().for_each(|authority: &mut Authority| authority.stake = u64::MAX / 4);
    }),
    handover!("K4", "a key that is none", &[0, 1, 2], |next| {
        next.authorities[1].network_key = PublicKey([0xff; 32]);
    }),
    handover!("K5", "a key of two members", &[0, 1, 2], |next| {
        next.authorities[1].protocol_key = next.authorities[0].protocol_key;
    }),
];

macro_rules! answer {
    ($id:literal, $name:literal, $lie:expr) => {
        Answer { id: $id, name: $name, lie: Some($lie), block_lie: None, bans: true }
    };
}

/// Signs the first certifier block of an answer again, changed.
fn sign_again(bytes: &mut Bytes, change: impl FnOnce(&mut Block)) {
    let mut block = SignedBlock::decode(bytes.clone()).expect("an honest block").value().clone();
    let key = CHAIN.key(block.epoch, block.author);
    change(&mut block);
    *bytes = SignedBlock::sign(block, CHAIN.genesis().chain_id(), &key).bytes().clone();
}

/// Makes the last commit of an answer anew, changed.
fn make_again(bytes: &mut Bytes, change: impl FnOnce(&mut soma_types::Commit)) {
    let mut commit = (*UnverifiedCommit::decode(bytes.clone()).expect("an honest commit")).clone();
    change(&mut commit);
    *bytes = UnverifiedCommit::from(commit).bytes().clone();
}

pub(crate) const ANSWERS: &[Answer] = &[
    answer!("C1", "an answer without commits", |answer, _| answer.commits.clear()),
    answer!("C1", "more commits than asked for", |answer, range| {
        let wanted = (range.end() - range.start()) as usize + 2;
        answer.commits.resize(wanted, answer.commits[0].clone());
    }),
    answer!("C2", "a commit with a byte behind it", |answer, _| {
        lie_in_bytes(&mut answer.commits[0], |bytes| bytes.push(0));
    }),
    answer!("C3", "a commit of another index", |answer, _| {
        let last = answer.commits.last_mut().expect("commits");
        make_again(last, |commit| commit.index += 1);
    }),
    answer!("C4", "a commit that does not follow", |answer, _| {
        let last = answer.commits.last_mut().expect("commits");
        make_again(last, |commit| commit.previous_digest = CommitDigest([9; 32]));
    }),
    answer!("V1", "more votes than authorities", |answer, _| {
        answer.certifier_blocks.resize(5, answer.certifier_blocks[0].clone());
    }),
    answer!("V2", "a vote that is no block", |answer, _| answer.certifier_blocks[1] = Bytes::from_static(&[1; 100])),
    answer!("V2", "a vote of wrong form", |answer, _| {
        sign_again(&mut answer.certifier_blocks[0], |block| block.ancestors.clear());
    }),
    answer!("V3", "two votes of one author", |answer, _| {
        answer.certifier_blocks[1] = answer.certifier_blocks[0].clone();
    }),
    answer!("V4", "a block that does not vote", |answer, _| {
        sign_again(&mut answer.certifier_blocks[0], |block| block.commit_votes.clear());
    }),
    answer!("V4", "a vote for another digest", |answer, _| {
        sign_again(&mut answer.certifier_blocks[0], |block| block.commit_votes[0].digest = CommitDigest([3; 32]));
    }),
    answer!("V5", "votes of too few", |answer, _| answer.certifier_blocks.truncate(2)),
    answer!("V6", "a vote that its author did not sign", |answer, _| {
        lie_in_bytes(&mut answer.certifier_blocks[0], |bytes| {
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
        });
    }),
    Answer {
        id: "B1",
        name: "more blocks than asked for",
        lie: None,
        block_lie: Some(|blocks| blocks.push(blocks[0].clone())),
        bans: true,
    },
    Answer {
        id: "B1",
        name: "blocks out of order",
        lie: None,
        block_lie: Some(|blocks| {
            blocks.reverse();
            // Of one block there is no other order.
            if let [only] = &mut blocks[..] {
                lie_in_bytes(only, |bytes| bytes.reverse());
            }
        }),
        bans: true,
    },
    Answer {
        id: "B1",
        name: "fewer blocks than asked for",
        lie: None,
        block_lie: Some(|blocks| blocks.clear()),
        bans: false,
    },
    Answer {
        id: "B2",
        name: "bytes of another digest",
        lie: None,
        block_lie: Some(|blocks| lie_in_bytes(&mut blocks[0], |bytes| bytes[60] ^= 1)),
        bans: true,
    },
];

macro_rules! votes {
    ($id:literal, $name:literal, $edit:expr) => {
        Votes { id: $id, name: $name, edit: Edit::Certifiers($edit) }
    };
}

pub(crate) const VOTES: &[Votes] = &[
    votes!("V1", "more votes than authorities", |_, blocks| {
        let mut more = blocks[0].again();
        more.block.timestamp_ms += 1;
        blocks.push(more);
    }),
    votes!("V2", "a vote of wrong form", |_, blocks| blocks[0].block.ancestors.clear()),
    votes!("V3", "two votes of one author", |_, blocks| {
        blocks[1] = blocks[0].again();
        blocks[1].block.timestamp_ms += 1;
    }),
    votes!("V4", "a block that does not vote", |_, blocks| blocks[0].block.commit_votes.clear()),
    votes!("V5", "votes of too few", |_, blocks| blocks.truncate(2)),
    votes!("V6", "a vote that its author did not sign", |_, blocks| blocks[0].signature = Some(Signature::ZERO)),
    votes!("V6", "a vote signed by another", |chain, blocks| {
        let block = blocks[0].block.clone();
        let other = chain.key(block.epoch, (block.author + 1) % 4);
        let signed = SignedBlock::sign(block, chain.genesis().chain_id(), &other);
        blocks[0].signature = Some(*signed.signature());
    }),
];

/// The commits from `at` on, of which the first names the leader before it once more.
pub(crate) fn commit_again(chain: &Chain, items: &[Item], at: usize) -> Vec<Item> {
    let leader = items[at - 2].blocks.last().expect("a leader").clone();
    let mut again = chain.with(
        at,
        Some(Edit::Commit(|commit| {
            let leader = ENDLESS.commits[commit.index as usize - 2].commit.leader;
            commit.blocks.push(leader);
            commit.blocks.sort_by_key(|block| (block.round, block.author));
        })),
    );
    let item = &mut again[at - 1];
    item.blocks.push(leader.clone());
    item.blocks.sort_by_key(|(block, _)| (block.round, block.author));
    let block = SignedBlock::decode(leader.1).expect("an honest block");
    let certified = item.certified.as_mut().expect("blocks");
    certified.commit = TrustedCommit::assume_trusted(item.commit.clone());
    certified.blocks.push(VerifiedBlock::assume_verified(block));
    certified.blocks.sort_by_key(|block| (block.round, block.author));
    assert_eq!(again.len(), COMMITS);
    again.split_off(at - 1)
}
