//! Promises about reads: of any length, within a bound, concurrent with a writer.

use super::*;

/// A batch of blocks of very different lengths, up to the longest that there may be.
pub(super) fn of_many_lengths(chain: &mut Chain) -> Vec<CertifiedCommit> {
    [[0, 1, 65_000], [70_000, 5, 64 << 10], [30_000, 30_000, 30_000], [1_000_000, 0, 1]]
        .map(|sizes| {
            let round = chain.round + 1;
            let blocks = sizes.iter().zip(0..).map(|(size, author)| chain.block(round, author, &[], *size)).collect();
            chain.commit_of(blocks)
        })
        .into()
}

pub(super) fn blocks_of_any_length_read_back_in_any_order(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let batch = of_many_lengths(&mut chain);
    store.apply(&batch).unwrap();
    let blocks: Vec<_> = batch.iter().flat_map(|certified| certified.blocks.clone()).collect();
    for step in [1, 5, 7, 11] {
        let asked: Vec<_> = (0..blocks.len()).map(|number| &blocks[number * step % blocks.len()]).collect();
        let refs: Vec<_> = asked.iter().map(|block| block.reference()).collect();
        let bytes: Vec<_> = asked.iter().map(|block| Some(block.bytes().clone())).collect();
        assert_eq!(store.blocks(&refs).unwrap(), bytes);
    }
    for certified in &batch {
        assert_eq!(store.sub_dag(certified.commit.index).unwrap(), Some(certified.sub_dag()));
    }
}

pub(super) fn blocks_within_a_bound_are_the_first_ones_and_at_least_one(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let batch = of_many_lengths(&mut chain);
    store.apply(&batch).unwrap();
    let mut refs: Vec<_> = batch.iter().flat_map(|certified| certified.commit.blocks.clone()).collect();
    refs.insert(2, chain.block(99, 3, &[], 0).reference());
    let all = store.blocks(&refs).unwrap();
    let mut total = 0;
    for (count, block) in (1..).zip(&all) {
        total += block.as_ref().map_or(0, Bytes::len);
        let fits = store.blocks_within(&refs, total).unwrap();
        // With the last one there is room for one that is not there.
        let expected = if count == 2 { 3 } else { count };
        assert_eq!(fits, all[..expected], "{total}");
        let less = store.blocks_within(&refs, total - 1).unwrap();
        assert!(less == all[..less.len()] && less.len() < expected.max(2), "{total}");
    }
    assert_eq!(store.blocks_within(&refs, 0).unwrap(), all[..1]);
    assert_eq!(store.blocks_within(&[], 100).unwrap(), []);
}

pub(super) fn commits_as_bytes_end_at_the_bound_and_at_the_first_gap(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let bytes: Vec<_> = chain.grow(5).iter().map(|certified| certified.commit.bytes().clone()).collect();
    let mut again = Chain::new();
    store.apply(&again.grow(5)).unwrap();
    for (range, expected) in [(1..=5, &bytes[..]), (2..=3, &bytes[1..3]), (4..=u32::MAX, &bytes[3..]), (6..=9, &[])] {
        let total: usize = expected.iter().map(Bytes::len).sum();
        assert_eq!(store.commit_bytes(range.clone(), usize::MAX).unwrap(), expected);
        assert_eq!(store.commit_bytes(range.clone(), total).unwrap(), expected);
        if let Some((_, fewer)) = expected.split_last() {
            assert_eq!(store.commit_bytes(range, total - 1).unwrap(), fewer);
        }
    }
    #[expect(clippy::reversed_empty_ranges)]
    let reversed = 4..=3;
    assert_eq!(store.commit_bytes(reversed, usize::MAX).unwrap(), Vec::<Bytes>::new());
}

pub(super) fn commits_and_votes_of_batches_of_any_size_read_back_from_any_start(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let mut all = vec![chain.genesis.commit().reference()];
    // As at the head, then as in a sync: some values begin and end in the middle of sixteen.
    for size in [1, 1, 3, 36, 1, 2] {
        let batch = chain.grow(size);
        store.apply(&batch).unwrap();
        for certified in &batch {
            let commit = certified.commit.reference();
            let mut voters: Vec<_> = certified.certifiers.iter().map(|block| block.reference()).collect();
            voters.sort_unstable();
            assert_eq!(store.votes(commit).unwrap(), voters);
            all.push(commit);
        }
    }
    for start in 0..all.len() {
        for end in [start, start + 1, start + 17, all.len()] {
            let read = store.commits(start as u32..=end as u32).unwrap();
            let expected = &all[start..all.len().min(end + 1)];
            assert_eq!(read.iter().map(|commit| commit.reference()).collect::<Vec<_>>(), expected, "{start}..={end}");
        }
    }
    assert_eq!(store.commit(all.len() as u32).unwrap(), None);
}

pub(super) fn readers_beside_a_writer_see_whole_commits(open: &Factory) {
    let mut chain = Chain::new();
    let store = open(&chain.genesis);
    let batches: Vec<_> = (0..40).map(|_| chain.grow(3)).collect();
    let store: &dyn Store = &*store;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < chain.last.index {
                    let highest = store.watermarks().unwrap().highest_synced;
                    assert!(highest.index >= seen, "the watermark moved back");
                    seen = highest.index;
                    assert_eq!(store.commit(seen).unwrap().unwrap().reference(), highest);
                    // The next ones may be there already; if so, with all their blocks.
                    for index in seen.max(1)..seen + 3 {
                        store.sub_dag(index).unwrap();
                    }
                }
            });
        }
        for batch in &batches {
            store.apply(batch).unwrap();
        }
    });
}
