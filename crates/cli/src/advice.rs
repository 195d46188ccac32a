//! What an operator can do about a cause that the status names. `docs/runbook` says more.

use serde::Serialize;
use soma_p2p::Status;

/// What to do; none where there is nothing to do, or where nothing is known of such a cause.
fn advice(cause: &str) -> Option<&'static str> {
    Some(match cause {
        "validators-silent" => "On a validator: find out why these validators send no consensus messages.",
        "objects-missing" => "Connect to peers that have these objects; the executor waits for them.",
        "not-connected" => "Wait some seconds; then check the seed peers.",
        "nobody-known" => "Set p2p.seed_peers in the configuration file.",
        "seeds-unreachable" => "Follow the reason of each seed: its address, its firewall, or whether it runs.",
        "seeds-on-other-chain" => "Check the genesis file and the seed peers: one of them is of another network.",
        "seeds-have-other-keys" => "Check the peer ids in p2p.seed_peers.",
        "clock-off" => "Set the clock of this machine; let it follow a time server.",
        "unreachable" => "Check p2p.external_addresses, port forwarding and firewalls.",
        "unheard" => "Wait some seconds; then find other peers, because these do not answer.",
        "claims-unproven" => "Find other peers: these lie, or have lost their data.",
        "nobody-has-it" => "Wait; then connect to more peers.",
        "all-pruned" => "Set an archive, connect to a node that keeps everything, or begin at the latest epoch.",
        "archive-unreachable" => "Follow the reason: the object storage, the network, or the credentials.",
        "untested" => "Wait some seconds; then find other peers.",
        "all-paused" => "Wait a minute; the log has the reasons for the pauses.",
        "no-committee" => "Read the log; then begin from a copy of a store.",
        "executor-behind" => "Find out why the executor is slow or does not move.",
        "executor-failed" => "Begin from a copy of a store, and restart: this store is damaged.",
        "slow-check" => "Report the transaction to the authors of the transaction verifier.",
        "disk" => "Check free space, the disk and its permissions; then restart the node.",
        "retrying" => "Follow the reason of the last attempt.",
        _ => return None,
    })
}

/// What to do about a node; none if there is nothing to do.
pub(crate) fn advice_for(status: &Status) -> Option<&'static str> {
    let causes = status.cause.as_deref().into_iter().chain(status.network_trouble.as_deref());
    causes.filter_map(advice).next()
}

/// How a node is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// It is ready, and there is nothing to do.
    Well,
    /// It is ready, and there is [advice](advice_for).
    NeedsAttention,
    /// It is not ready.
    NotWell,
}

impl Verdict {
    /// Of a node.
    pub(crate) fn of(status: &Status) -> Self {
        match (status.is_ready(), advice_for(status)) {
            (true, None) => Self::Well,
            (true, Some(_)) => Self::NeedsAttention,
            (false, _) => Self::NotWell,
        }
    }

    /// The same in words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Well => "The node is well",
            Self::NeedsAttention => "The node needs attention",
            Self::NotWell => "The node is not well",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The causes in the tables of the documentation, and whether their advice is to do nothing.
    fn documented() -> Vec<(String, bool)> {
        let text = include_str!("../../../docs/operating/status.md");
        let tables = text.lines().skip_while(|line| *line != "## Causes").take_while(|line| *line != "## The tree");
        let rows = tables.filter(|line| line.starts_with("| `") && !line.starts_with("| `cause`"));
        rows.flat_map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let is_nothing = cells.get(3).is_some_and(|cell| cell.starts_with("nothing"));
            let names = cells.get(1).map(|cell| cell.replace('`', "")).unwrap_or_default();
            names.split(", ").map(|name| (name.to_owned(), is_nothing)).collect::<Vec<_>>()
        })
        .collect()
    }

    #[test]
    fn every_documented_cause_has_advice_unless_there_is_nothing_to_do() {
        let documented = documented();
        assert!(documented.len() > 20, "{documented:?}");
        for (cause, is_nothing) in documented {
            assert_eq!(advice(&cause).is_none(), is_nothing, "{cause}");
        }
        assert_eq!(advice("no such cause"), None);
    }
}
