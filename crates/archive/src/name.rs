//! Names of segments: `CHAIN/EPOCH/FIRST-LAST`.

use soma_types::{ChainId, CommitIndex, Epoch};
use std::{fmt, str::FromStr};

/// The name of a segment, from its contents. The text is its path in the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// The chain.
    pub chain: ChainId,
    /// The epoch of all commits.
    pub epoch: Epoch,
    /// The first commit.
    pub first: CommitIndex,
    /// The last commit.
    pub last: CommitIndex,
}

/// The text of an epoch in a name. Padded, so that names sort like numbers.
pub(crate) fn epoch_text(epoch: Epoch) -> String {
    format!("{epoch:010}")
}

/// An epoch from its text in a name.
pub(crate) fn parse_epoch(text: &str) -> Option<Epoch> {
    text.parse().ok().filter(|epoch| epoch_text(*epoch) == text)
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{:010}-{:010}", self.chain, epoch_text(self.epoch), self.first, self.last)
    }
}

impl FromStr for SegmentName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split('/');
            let (chain, epoch, range) = (parts.next()?, parts.next()?, parts.next()?);
            let (first, last) = range.split_once('-')?;
            let (first, last) = (first.parse().ok()?, last.parse().ok()?);
            Some(Self { chain: chain.parse().ok()?, epoch: parse_epoch(epoch)?, first, last })
        };
        // One name for each range.
        let name = parse().filter(|name| name.first >= 1 && name.first <= name.last && name.to_string() == text);
        name.ok_or_else(|| format!("{text:?} is not CHAIN/EPOCH/FIRST-LAST"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_has_one_text_and_sorts_by_epoch_and_range() {
        let chain = ChainId([7; 32]);
        let names = [(0, 1, 9), (0, 10, 100), (9, 101, 200), (10, 201, 300), (10, 1_000_000, u32::MAX)];
        let names = names.map(|(epoch, first, last)| SegmentName { chain, epoch, first, last });
        let texts = names.map(|name| name.to_string());
        assert!(texts.is_sorted());
        assert_eq!(texts.each_ref().map(|text| text.parse::<SegmentName>().unwrap()), names);
        assert_eq!(texts[1], format!("{}/0000000000/0000000010-0000000100", "07".repeat(32)));
        let wrong = ["0/0000000001-0000000009", "0000000000/1-9", "0000000000/0000000009-0000000001"];
        for wrong in wrong.map(|text| format!("{chain}/{text}")).into_iter().chain(["".into(), "a/b/c".into()]) {
            assert!(wrong.parse::<SegmentName>().is_err(), "{wrong}");
        }
    }
}
