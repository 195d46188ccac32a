//! Digests from parallel lanes equal the digests of single messages.

use proptest::prelude::*;
use soma_types::BlockBodyDigest;

fn one_by_one(messages: &[&[u8]]) -> Vec<BlockBodyDigest> {
    messages.iter().map(|message| BlockBodyDigest::of(&[message])).collect()
}

#[test]
fn messages_of_every_edge_length_hash_as_they_do_alone() {
    let bytes: Vec<u8> = (0..40_000u32).map(|n| (n % 251) as u8).collect();
    let around = |border: usize| border.saturating_sub(1)..=border + 1;
    let blocks = (0..=1024 / 64).flat_map(|block| around(block * 64));
    let chunks = (1..=20).flat_map(|chunk| around(chunk * 1024).chain([chunk * 1024 + 500]));
    let lengths: Vec<usize> = blocks.chain(chunks).chain([40_000]).collect();
    // Each message alone, all together, and each repeated to more than fill the widest lanes.
    let messages: Vec<&[u8]> = lengths.iter().map(|&len| &bytes[..len]).collect();
    assert_eq!(BlockBodyDigest::of_each(&messages), one_by_one(&messages));
    for &message in &messages {
        assert_eq!(BlockBodyDigest::of_each(&[message]), one_by_one(&[message]), "{} bytes", message.len());
        let many = [message; 19];
        assert_eq!(BlockBodyDigest::of_each(&many), one_by_one(&many), "19 times {} bytes", message.len());
    }
    assert_eq!(BlockBodyDigest::of_each(&[]), []);
}

proptest! {
    #[test]
    fn mixed_messages_hash_as_they_do_alone(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6_000), 0..50),
    ) {
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(BlockBodyDigest::of_each(&messages), one_by_one(&messages));
    }
}
