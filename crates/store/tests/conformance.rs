//! Both stores keep what every store promises, and hold the same after the same calls.

mod common;

use bytes::Bytes;
use common::Chain;
use soma_store::{
    PeerList,
    conformance::{check_all, contents},
};
use soma_types::PeerId;

#[test]
fn store_in_memory_keeps_every_promise() {
    check_all(&common::in_memory);
}

#[test]
fn store_on_disk_keeps_every_promise() {
    check_all(&common::on_disk);
}

#[test]
fn both_stores_hold_the_same_after_the_same_calls() {
    let mut chain = Chain::with_stakes(&[5, 1, 2, 3]);
    let stores = [common::in_memory(&chain.genesis), common::on_disk(&chain.genesis)];
    let mut batches = vec![chain.grow(4), vec![chain.end_epoch()], chain.grow(2)];
    batches[2].push(chain.end_epoch());
    batches.push(chain.grow(3));
    let voted: Vec<_> = batches.iter().flatten().map(|certified| certified.commit.reference()).collect();
    for batch in &batches {
        let [memory, disk] = [&stores[0], &stores[1]].map(|store| {
            store.apply(batch).unwrap();
            store
                .update_peers(PeerList::Infos, &[(PeerId([batch.len() as u8; 32]), Bytes::from_static(b"info"))], &[])
                .unwrap();
            contents(&**store, &voted)
        });
        assert_eq!(memory, disk);
    }
}
