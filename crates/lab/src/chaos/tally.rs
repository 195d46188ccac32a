//! Counts losses and duplicates in a node's record.

use soma_p2p::{CommitIndex, SubDagDigest};
use soma_p2p_cli::record::Entry;

/// Maximum findings of one node that are printed; all are counted.
const MAX_TOLD: usize = 10;

/// What a node's record says.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// How often it was killed.
    pub(super) kills: u32,
    /// Commits that it had announced, and that were not there when it was looked for them.
    pub(super) lost: u64,
    /// Commits that its executor was given although it had them, or before its turn.
    pub(super) duplicated: u64,
    /// The last commit that its executor was given, and the digest up to there.
    pub(super) executed: CommitIndex,
    pub(super) digest: SubDagDigest,
    /// The findings, in words.
    pub(super) findings: Vec<String>,
}

/// Commits that must be on a node's disk, and the source of that knowledge.
struct Known {
    height: CommitIndex,
    from: String,
}

impl Known {
    fn learn(&mut self, height: CommitIndex, from: impl FnOnce() -> String) {
        if height > self.height {
            *self = Self { height, from: from() };
        }
    }
}

impl Tally {
    /// Counts one node's record; `digests` are the chain's if they are known, commit 1 first.
    pub(super) fn count(entries: &[Entry], digests: Option<&[SubDagDigest]>) -> Self {
        let mut tally = Self::default();
        let mut known = Known { height: 0, from: String::new() };
        let mut after = "its first start".to_owned();
        let mut differs = false;
        for entry in entries {
            match entry {
                Entry::Killed { number } => {
                    tally.kills += 1;
                    after = format!("kill {number}");
                }
                Entry::Opened { height } => tally.look_for(&mut known, *height, &after),
                Entry::Stored { height } => tally.look_for(&mut known, *height, "the end"),
                Entry::Announced { index, to } => known.learn(*index, || format!("{to} had heard of it")),
                Entry::Acknowledged { index } => known.learn(*index, || "its consensus had been told".into()),
                Entry::Given { index, digest } => {
                    known.learn(*index, || "its executor had been given it".into());
                    tally.given(*index, &after);
                    let expected = digests.map(|digests| digests.get(*index as usize - 1));
                    if expected.is_some_and(|expected| expected != Some(digest)) && !differs {
                        differs = true;
                        tally.find(format!(
                            "after {after} its executor was given a commit {index} that is not the chain's"
                        ));
                    }
                    (tally.executed, tally.digest) = (*index.max(&tally.executed), *digest);
                }
            }
        }
        tally
    }

    /// The node's disk has this much.
    fn look_for(&mut self, known: &mut Known, height: CommitIndex, after: &str) {
        if height < known.height {
            self.lost += u64::from(known.height - height);
            let Known { height: announced, from } = &*known;
            self.find(format!(
                "lost: commits {} to {announced} were not there after {after}, which left {height} commits ({announced}: {from})",
                height + 1
            ));
            // Each counts once.
            known.height = height;
        }
        known.learn(height, || "it was on its disk".into());
    }

    fn given(&mut self, index: CommitIndex, after: &str) {
        if index == self.executed + 1 {
            return;
        }
        self.duplicated += 1;
        let last = self.executed;
        self.find(if index <= last {
            format!("duplicated: after {after} its executor was given commit {index} again; it had {last}")
        } else {
            format!("out of order: after {after} its executor was given commit {index}, but {} was next", last + 1)
        });
    }

    fn find(&mut self, finding: String) {
        if self.findings.len() < MAX_TOLD {
            self.findings.push(finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(index: CommitIndex) -> SubDagDigest {
        format!("{index:064x}").parse().unwrap()
    }

    /// A record in words: `g4` is commit 4 given, `a` acknowledged, `p` announced to a peer, `o` opened, `s` stored,
    /// `k` the kill of that number.
    fn count(record: &str) -> Tally {
        let entries = record.split_whitespace().map(|word| {
            let number: u32 = word[1..].parse().unwrap();
            match &word[..1] {
                "g" => Entry::Given { index: number, digest: digest(number) },
                "a" => Entry::Acknowledged { index: number },
                "p" => Entry::Announced { index: number, to: "validator-0".into() },
                "o" => Entry::Opened { height: number },
                "s" => Entry::Stored { height: number },
                "k" => Entry::Killed { number },
                other => panic!("{other}"),
            }
        });
        let entries: Vec<_> = entries.collect();
        let digests: Vec<_> = (1..=9).map(digest).collect();
        Tally::count(&entries, Some(&digests))
    }

    #[test]
    fn a_record_without_faults_counts_nothing_but_its_kills() {
        let tally = count("o0 g1 g2 a3 g3 k1 p3 o3 g4 k4 o5 g5 g6 s6");
        assert_eq!((tally.kills, tally.lost, tally.duplicated, tally.executed), (2, 0, 0, 6));
        assert_eq!(tally.digest, digest(6));
        assert_eq!(tally.findings, [""; 0]);
    }

    #[test]
    fn commit_missing_after_restart_counts_as_lost_once() {
        for (record, from) in [
            ("o0 g1 g2 g3 k7 o1 g4 k8 o4 s4", "executor"),
            ("o0 g1 a3 k7 o1 g2 k8 o2 s4", "consensus"),
            ("o0 g1 k7 p3 o1 g2 k8 o2 s4", "validator-0"),
            ("o3 k7 o1 k8 o1 s4", "disk"),
        ] {
            let tally = count(record);
            assert_eq!((tally.kills, tally.lost, tally.duplicated), (2, 2, 0), "{record}: {tally:?}");
            let finding = tally.findings[0].as_str();
            assert!(
                finding.contains("commits 2 to 3") && finding.contains("kill 7") && finding.contains(from),
                "{finding}"
            );
        }
        assert_eq!(count("o0 g1 g2 k1 o2 g3 s1").lost, 2, "also what is missing at the end");
    }

    #[test]
    fn what_an_executor_is_given_again_or_before_its_turn_is_duplicated() {
        let again = count("o0 g1 g2 g3 k7 o3 g2 g3 g4 s4");
        assert_eq!((again.lost, again.duplicated, again.executed), (0, 2, 4));
        assert!(again.findings[0].contains("commit 2 again") && again.findings[0].contains("kill 7"), "{again:?}");
        let skipped = count("o0 g1 k7 o3 g3 g4 s4");
        assert_eq!((skipped.lost, skipped.duplicated), (0, 1));
        assert!(skipped.findings[0].contains("given commit 3, but 2 was next"), "{skipped:?}");
    }

    #[test]
    fn a_commit_that_is_not_the_chains_is_found() {
        let other = [Entry::Given { index: 1, digest: digest(1) }, Entry::Given { index: 2, digest: digest(7) }];
        let digests: Vec<_> = (1..=9).map(digest).collect();
        let tally = Tally::count(&other, Some(&digests));
        assert!(tally.findings[0].contains("commit 2 that is not the chain's"), "{tally:?}");
        assert!(Tally::count(&other, None).findings.is_empty());
    }
}
