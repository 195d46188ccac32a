//! Servers that this node dials, and that send HTTP/2 frames nobody asked for.

use crate::{HOSTILE, goes_on, raw::RawServer, victim};
use bytes::Bytes;
use soma_testkit::{ChainBuilder, ChainSpec};
use soma_tests::{eventually, key};

/// A frame of this type and with these flags, for stream 0.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Bytes {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 0];
    frame.extend_from_slice(payload);
    frame.into()
}

#[tokio::test]
async fn server_that_floods_an_outbound_connection_is_banned_and_sync_continues() {
    let mut builder = ChainBuilder::new(ChainSpec::default()).unwrap();
    let commits = builder.build(30);
    let genesis = builder.genesis();
    let mut priority = frame(2, 0, &[0, 0, 0, 0, 16]).to_vec();
    priority[8] = 1;
    let floods = [
        ("PING ACK", frame(6, 1, &[7; 8])),
        ("PING", frame(6, 0, &[7; 8])),
        ("SETTINGS", frame(4, 0, &[])),
        ("PRIORITY", priority.into()),
        ("WINDOW_UPDATE", frame(8, 0, &[0, 0, 0, 1])),
        ("an unknown kind of", frame(0xbb, 0, &[1; 100])),
    ];
    for (number, (what, flood)) in (0..).zip(floods) {
        let hostile = key(HOSTILE + number);
        let server = RawServer::flooding(&hostile, genesis, flood).await;
        let victim = victim(genesis, &[], vec![server.seed_peer()]);
        let id = server.seed_peer().peer_id;
        let banned = |status: &soma_p2p::Status| status.is_banned(id);
        eventually(&victim, &format!("a server that sends {what} frames without end is banned"), banned).await;
        goes_on(&victim, genesis, &commits, &commits).await;
    }
}
