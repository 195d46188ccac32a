//! One verdict: whatever way a chain comes to a node, its commits pass or fail alike.
//!
//! Chains that break each rule of `docs/protocol.md` ("Verification") once, and chains that break none, come in answers
//! that are cut everywhere, over the end of an epoch, before and after a restart, by `send_commit`, from an archive.

mod forge;
mod node_infos;
mod rules;
mod ways;

use forge::{Chain, Item};
use rules::{ANSWERS, Answer, CONTENT, Content, ELSEWHERE};
use std::{collections::BTreeSet, sync::LazyLock};
use ways::{HONEST, SERVER, Scripted, Verdict, explanation, from_archive, from_consensus, from_peers};

/// Commits of the chains, in epochs of three.
const COMMITS: usize = 6;

/// All ways to cut a chain: which commits are the last of an answer. The last of all is one in any case.
const CUTS: std::ops::Range<u32> = 0..1 << (COMMITS - 1);

static CHAIN: LazyLock<Chain> = LazyLock::new(|| Chain::new(COMMITS, 3));

/// The same authorities in an epoch that does not end.
static ENDLESS: LazyLock<Chain> = LazyLock::new(|| Chain::new(COMMITS, 100));

/// Every way in which the chain can come, with its name, must end as `expected` says.
fn expect_everywhere(name: &str, chain: &Chain, items: &[Item], expected: &Verdict) {
    let genesis = chain.genesis();
    let expect = |way: String, verdict: Verdict| assert_eq!(&verdict, expected, "{name}: {way}: {}", explanation());
    for cuts in CUTS {
        let peer = Scripted::new(genesis, items, cuts);
        expect(format!("answers cut at {cuts:06b}"), from_peers(genesis, &[], COMMITS, 100, vec![(SERVER, peer)]));
    }
    for commits_per_fetch in 1..=3 {
        let peer = Scripted::new(genesis, items, 0);
        let way = format!("{commits_per_fetch} commits asked for at once");
        expect(way, from_peers(genesis, &[], COMMITS, commits_per_fetch, vec![(SERVER, peer)]));
    }
    for stored in 1..=expected.height as usize {
        let peer = Scripted::new(genesis, items, 0);
        let verdict = from_peers(genesis, &items[..stored], COMMITS, 100, vec![(SERVER, peer)]);
        expect(format!("after a restart with {stored} commits"), verdict);
    }
    for stored in 0..=expected.height as usize {
        if let Some((verdict, _)) = from_consensus(genesis, stored, items) {
            expect(format!("by send_commit from commit {} on", stored + 1), verdict);
        }
        for cuts in [0, CUTS.end - 1] {
            let way = format!("from an archive cut at {cuts:06b}, from commit {} on", stored + 1);
            expect(way, from_archive(genesis, stored, items, cuts));
        }
    }
}

/// What a node has that has taken the first commits.
fn taken(items: &[Item], height: usize) -> Verdict {
    let mut digest = soma_p2p::SubDagDigest::default();
    for item in &items[..height] {
        digest.push(&item.certified.as_ref().expect("a right commit").sub_dag());
    }
    Verdict { height: height as u32, banned: Vec::new(), digest }
}

#[test]
fn verdict_on_an_honest_chain_is_yes_in_every_way_it_comes() {
    for chain in [&*CHAIN, &*ENDLESS] {
        let items = chain.with(0, None);
        expect_everywhere("honest", chain, &items, &taken(&items, COMMITS));
    }
}

#[test]
fn verdict_on_a_block_committed_twice_accepts_it_on_every_path() {
    let items = ENDLESS.with(0, None);
    let mut twice = items.clone();
    let again = rules::commit_again(&ENDLESS, &items, 3);
    twice.splice(2.., again);
    expect_everywhere("twice", &ENDLESS, &twice, &taken(&twice, COMMITS));
}

fn content(rules: &[Content]) {
    for Content { id, name, at, chain, edit } in rules {
        let chain = match chain {
            rules::On::Epochs => &*CHAIN,
            rules::On::Endless => &*ENDLESS,
        };
        for &at in *at {
            let items = chain.with(at, Some(*edit));
            // What breaks the rule may come into its own with the next commit only.
            let height = if *id == "H5" || *id == "L2" { at } else { at - 1 };
            expect_everywhere(&format!("{id} {name}, commit {at}"), chain, &items, &taken(&items, height));
        }
    }
}

/// Rules by the first letter of their ids, so that tests run side by side.
fn content_of(letters: &str) {
    let rules: Vec<_> = CONTENT.iter().filter(|rule| letters.contains(&rule.id[..1])).copied().collect();
    assert!(!rules.is_empty(), "{letters}");
    content(&rules);
}

#[test]
fn verdict_on_commits_that_break_a_rule_is_equal_on_every_path() {
    content_of("CL");
}

#[test]
fn verdict_on_blocks_of_wrong_form_is_the_same_in_every_way_they_come() {
    content_of("F");
}

#[test]
fn verdict_on_committed_blocks_is_the_same_in_every_way_they_come() {
    content_of("B");
}

#[test]
fn verdict_on_transactions_is_the_same_in_every_way_they_come() {
    content_of("T");
}

#[test]
fn verdict_on_sub_dags_is_the_same_in_every_way_they_come() {
    content_of("S");
}

#[test]
fn verdict_on_handovers_is_the_same_in_every_way_they_come() {
    content_of("HK");
}

#[test]
fn verdict_on_an_answer_that_breaks_a_rule_bans_its_peer() {
    let (genesis, items) = (CHAIN.genesis(), CHAIN.with(0, None));
    for Answer { id, name, lie, block_lie, bans } in ANSWERS {
        for cuts in CUTS {
            let liar = Scripted { lie: *lie, block_lie: *block_lie, ..Scripted::new(genesis, &items, cuts) };
            let alone = from_peers(genesis, &[], COMMITS, 100, vec![(SERVER, liar.clone())]);
            assert_eq!(alone.banned, if *bans { vec![SERVER] } else { vec![] }, "{id} {name}: cut at {cuts:06b}");
            assert_eq!(alone.height, 0, "{id} {name}: cut at {cuts:06b}");
            let honest = Scripted::new(genesis, &items, cuts);
            let both = from_peers(genesis, &[], COMMITS, 100, vec![(SERVER, liar), (HONEST, honest)]);
            assert_eq!((both.height, both.digest), (COMMITS as u32, taken(&items, COMMITS).digest), "{id} {name}");
            assert!(!both.banned.contains(&HONEST), "{id} {name}: cut at {cuts:06b}");
        }
    }
}

#[test]
fn verdict_on_votes_that_break_a_rule_is_no_by_send_commit_too() {
    for rule in rules::VOTES {
        for at in [2, 4] {
            let items = CHAIN.with(at, Some(rule.edit));
            let (verdict, error) = from_consensus(CHAIN.genesis(), 0, &items).expect("blocks");
            assert_eq!(verdict, taken(&items, at - 1), "{} {}", rule.id, rule.name);
            let index = at as u32;
            let refused =
                matches!(&error, Some(soma_p2p::LocalCommitError::NotCertified { index: i, .. }) if *i == index);
            assert!(refused, "{} {}: {error:?}", rule.id, rule.name);
        }
    }
}

#[test]
fn verdict_on_a_certified_fork_is_no_in_every_way_it_comes() {
    let (genesis, honest) = (CHAIN.genesis(), CHAIN.with(0, None));
    for at in [2, 4] {
        let fork = forge::Edit::Commit(|commit| commit.previous_digest = soma_types::CommitDigest([9; 32]));
        let items = CHAIN.with(at, Some(fork));
        for cuts in CUTS {
            let peers =
                vec![(SERVER, Scripted::new(genesis, &items, cuts)), (HONEST, Scripted::new(genesis, &honest, cuts))];
            let verdict = from_peers(genesis, &[], COMMITS, 100, peers);
            assert_eq!((verdict.height, verdict.digest), (COMMITS as u32, taken(&honest, COMMITS).digest));
            assert!(!verdict.banned.contains(&HONEST), "cut at {cuts:06b}");
        }
        let (verdict, error) = from_consensus(genesis, 0, &items).expect("blocks");
        assert_eq!(verdict, taken(&honest, at - 1));
        assert!(matches!(error, Some(soma_p2p::LocalCommitError::Fork { .. })), "{error:?}");
    }
}

/// A commit of too many bytes, which takes too long to be cut in every way.
#[test]
fn verdict_on_an_oversized_commit_is_equal_on_every_path() {
    let spec = soma_testkit::ChainSpec {
        payload_bytes: 1_000_000,
        rounds_per_commit: 5,
        commits_per_epoch: 100,
        ..soma_testkit::ChainSpec::default()
    };
    let chain = Chain::of(spec, 1);
    let items = chain.with(0, None);
    let bytes: usize = items[0].blocks.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes > soma_types::limits::MAX_COMMIT_BLOCKS_BYTES);
    let refused = taken(&items, 0);
    let peer = Scripted::new(chain.genesis(), &items, 0);
    assert_eq!(from_peers(chain.genesis(), &[], 1, 100, vec![(SERVER, peer)]), refused);
    assert_eq!(from_consensus(chain.genesis(), 0, &items).unwrap().0, refused);
}

#[test]
fn verdict_tests_cover_every_rule_of_the_protocol_and_no_other() {
    let document = include_str!("../../../docs/protocol.md");
    let section = document.split("\n## ").find(|section| section.starts_with("Verification")).expect("the section");
    let stated: BTreeSet<&str> =
        section.lines().filter_map(|line| line.strip_prefix("- **")?.split_once("**")).map(|(id, _)| id).collect();
    let tested: Vec<&str> = CONTENT
        .iter()
        .map(|rule| rule.id)
        .chain(ANSWERS.iter().map(|rule| rule.id))
        .chain(rules::VOTES.iter().map(|rule| rule.id))
        .chain(node_infos::RULES.iter().map(|rule| rule.id))
        .chain(ELSEWHERE.iter().map(|(id, _)| *id))
        .collect();
    assert_eq!(stated, tested.into_iter().collect());
}
