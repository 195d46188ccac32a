//! Events of a node: the differences between two samples of its status.

use serde::Serialize;
use soma_p2p::{ChildStatus, Status};
use std::collections::{BTreeMap, BTreeSet};

/// Something that an operator may want to know of later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NodeEvent {
    /// When it was noticed, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    /// Its kind, for its look: `restart`, `ban`, `epoch`, `stuck` or `peers`.
    pub(crate) kind: &'static str,
    /// A sentence for people.
    pub(crate) text: String,
}

/// The events between two samples, or since the start of the node.
pub(super) fn between(before: Option<&Status>, now: &Status, at_ms: u64) -> Vec<NodeEvent> {
    let mut events = Vec::new();
    let mut tell = |kind, text| events.push(NodeEvent { at_ms, kind, text });
    let restarts_before = before.map(|before| restarts(&before.tree)).unwrap_or_default();
    for (name, count) in restarts(&now.tree) {
        let more = count.saturating_sub(restarts_before.get(name).copied().unwrap_or_default());
        if more > 0 {
            let exit = now.tree.find(name).and_then(|child| child.last_exit.as_ref());
            let why = exit.map(|exit| format!(": {exit}")).unwrap_or_default();
            tell("restart", format!("{name} was restarted{}{why}", times(more)));
        }
    }
    let was_banned = |peer| before.is_some_and(|before| before.is_banned(peer));
    for ban in now.banned.iter().filter(|ban| !was_banned(ban.peer)) {
        tell("ban", format!("peer {} was banned: {}", ban.peer.short(), ban.reason));
    }
    let banned_before = before.into_iter().flat_map(|before| &before.banned);
    for ban in banned_before.filter(|ban| !now.is_banned(ban.peer)) {
        tell("ban", format!("the ban of peer {} ended", ban.peer.short()));
    }
    if let (Some(old), Some(new)) = (before.and_then(|before| before.epoch), now.epoch)
        && old != new
    {
        tell("epoch", format!("epoch {new} has begun"));
    }
    match (before.and_then(|before| before.stuck.as_ref()), &now.stuck) {
        (None, Some(stuck)) => tell("stuck", format!("the node is stuck: {}", stuck.explanation)),
        (Some(_), None) => tell("stuck", format!("the node goes on: {}", now.explanation)),
        (Some(old), Some(new)) if old.cause != new.cause => {
            tell("stuck", format!("the node is stuck for another reason: {}", new.explanation));
        }
        _ => {}
    }
    let connected = |status: &Status| status.peers.iter().map(|peer| peer.peer_id).collect::<BTreeSet<_>>();
    let (old, new) = (before.map(connected).unwrap_or_default(), connected(now));
    let list = |peers: Vec<String>| peers.join(", ");
    let made: Vec<_> = new.difference(&old).map(|peer| peer.short()).collect();
    let lost: Vec<_> = old.difference(&new).map(|peer| peer.short()).collect();
    if !made.is_empty() {
        tell("peers", format!("connected: {}", list(made)));
    }
    if !lost.is_empty() {
        tell("peers", format!("connection lost: {}", list(lost)));
    }
    events
}

/// Restarts of each actor and supervisor.
fn restarts(tree: &ChildStatus) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    let mut left = vec![tree];
    while let Some(child) = left.pop() {
        counts.insert(child.name.as_str(), child.restarts);
        left.extend(&child.children);
    }
    counts
}

fn times(count: u64) -> String {
    if count == 1 { String::new() } else { format!(" {count} times") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PEER: &str = "ad77c94ad1a12d32c2d05724279a8e030a170c84335bd5ff595988f0cfbbed35";

    /// A quiet node, with changes.
    fn status(changes: impl FnOnce(&mut Value)) -> Status {
        let actor = json!({
            "name": "verifier", "state": "running", "in_state_ms": 1, "restarts": 0, "last_exit": null,
            "mailbox": 0, "strategy": null, "children": [],
        });
        let mut tree = actor.clone();
        (tree["name"], tree["strategy"], tree["children"]) = (json!("root"), json!("one-for-one"), json!([actor]));
        let mut value = json!({
            "peer_id": PEER, "chain_id": PEER, "address": "/ip4/127.0.0.1/tcp/1", "height": 10, "target": 10,
            "percent": 100, "epoch": 1, "explanation": "synced at commit 10", "peers": [], "banned": [], "tree": tree,
        });
        changes(&mut value);
        serde_json::from_value(value).unwrap()
    }

    fn told(before: &Status, now: &Status) -> Vec<(&'static str, String)> {
        between(Some(before), now, 7).into_iter().map(|event| (event.kind, event.text)).collect()
    }

    #[test]
    fn nothing_is_told_where_nothing_has_happened() {
        let quiet = status(|_| {});
        assert_eq!(told(&quiet, &quiet), []);
    }

    #[test]
    fn restarts_are_told_with_their_number_and_reason() {
        let restarted = status(|status| {
            let verifier = &mut status["tree"]["children"][0];
            (verifier["restarts"], verifier["last_exit"]) = (json!(2), json!({"exit": "panicked", "reason": "a bug"}));
        });
        let [(kind, text)] = &told(&status(|_| {}), &restarted)[..] else { panic!("one event") };
        assert_eq!(*kind, "restart");
        assert!(["verifier", "2 times", "a bug"].iter().all(|part| text.contains(part)), "{text}");
    }

    #[test]
    fn bans_are_told_when_they_begin_and_end() {
        let banned = status(|status| {
            status["banned"] = json!([{"peer": PEER, "until_ms": 600_000, "reason": "it lied"}]);
        });
        let short = &PEER[..8];
        let began = ("ban", format!("peer {short} was banned: it lied"));
        assert_eq!(told(&status(|_| {}), &banned), [began]);
        assert_eq!(told(&banned, &status(|_| {})), [("ban", format!("the ban of peer {short} ended"))]);
    }

    #[test]
    fn what_was_so_at_the_first_look_is_told() {
        let banned = status(|status| {
            status["banned"] = json!([{"peer": PEER, "until_ms": 600_000, "reason": "it lied"}]);
        });
        let events = between(None, &banned, 7);
        assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), ["ban"]);
    }

    #[test]
    fn epochs_and_connections_are_told() {
        let later = status(|status| {
            status["epoch"] = json!(2);
            status["peers"] = json!([{"peer_id": PEER, "outbound": true, "inbound": false, "serving": null}]);
        });
        let short = &PEER[..8];
        let expected = [("epoch", "epoch 2 has begun".to_owned()), ("peers", format!("connected: {short}"))];
        assert_eq!(told(&status(|_| {}), &later), expected);
        let lost = status(|status| status["epoch"] = json!(2));
        assert_eq!(told(&later, &lost), [("peers", format!("connection lost: {short}"))]);
    }

    #[test]
    fn a_stuck_node_is_told_with_its_cause_and_its_end() {
        let stuck = |cause: &str| {
            let cause = cause.to_owned();
            status(move |status| {
                status["stuck"] = json!({"since_ms": 1, "cause": cause, "explanation": format!("because {cause}")});
            })
        };
        let (quiet, disk, peers) = (status(|_| {}), stuck("disk"), stuck("nobody-has-it"));
        assert_eq!(told(&quiet, &disk), [("stuck", "the node is stuck: because disk".to_owned())]);
        assert_eq!(told(&disk, &disk), []);
        assert!(told(&disk, &peers)[0].1.contains("because nobody-has-it"));
        assert_eq!(told(&peers, &quiet), [("stuck", "the node goes on: synced at commit 10".to_owned())]);
    }
}
