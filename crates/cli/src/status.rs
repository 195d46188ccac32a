//! `soma-p2p status`

use crate::{
    advice::{Verdict, advice_for},
    error::CliError,
    node_config::NodeConfig,
    node_status::NodeStatus,
    running,
};
use anstyle::AnsiColor;
use comfy_table::{Table, presets};
use soma_p2p::actor_status::{Archiver, ArchiverState, Broadcast, TopicSnapshot};
use soma_p2p::{BackfillProgress, ChildState, ChildStatus, PeerMemoryStatus, PeerStatus, Status, Strategy, Topic};
use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Args {
    /// The node's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Ask again every second until interrupted.
    #[arg(long)]
    watch: bool,
    /// Print JSON, one line for each answer.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let config = NodeConfig::read(&args.config)?;
    loop {
        let status: NodeStatus = running::ask(&config, "/status")?;
        if args.json {
            println!("{}", serde_json::to_string(&status).map_err(CliError::failed)?);
        } else {
            if args.watch {
                // Clear the screen and go to its first line.
                print!("\x1b[2J\x1b[H");
            }
            anstream::print!("{}", text_of(&status));
        }
        if !args.watch {
            return Ok(if status.p2p.is_ready() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        thread::sleep(WATCH_INTERVAL);
    }
}

/// Asks a node's admin endpoint.
pub fn fetch(admin: SocketAddr) -> Result<NodeStatus, ureq::Error> {
    running::fetch(admin, "/status")
}

fn text_of(node: &NodeStatus) -> String {
    let status: &Status = &node.p2p;
    let mut out = String::new();
    let mut line = |name: &str, value: String| out.push_str(&format!("{name:<10} {value}\n"));
    line("node", format!("{} on {}", status.peer_id, status.address));
    line("chain", status.chain_id.to_string());
    let colour = match Verdict::of(status) {
        Verdict::Well => AnsiColor::Green,
        Verdict::NeedsAttention => AnsiColor::Yellow,
        Verdict::NotWell => AnsiColor::Red,
    };
    let style = colour.on_default();
    line("state", format!("{style}{}{style:#}", status.explanation));
    if let Some(advice) = advice_for(status) {
        line("to do", advice.into());
    }
    if let Some(stuck) = &status.stuck {
        line("stuck", format!("for {}: {}", in_words(since(stuck.since_ms)), stuck.cause));
    }
    if let Some(trouble) = &status.network_explanation {
        line("network", trouble.clone());
    }
    line("height", format!("{} of {} ({} %)", status.height, status.target, status.percent));
    if let Some(epoch) = status.epoch {
        line("epoch", epoch.to_string());
    }
    line("executor", format!("{} digest {}", node.executor.index, &node.executor.digest[..16]));
    if let Some(sync) = &status.state_sync {
        let mib = sync.bytes_in_flight as f64 / f64::from(1 << 20);
        line("fetching", format!("{} workers, {} ranges, {mib:.1} MiB in flight", sync.workers, sync.ranges));
        if let Some(backfill) = &sync.backfill {
            line("backfill", backfill_in_words(backfill));
        }
    }
    if let Some(archive) = &status.archiver {
        line("archive", archive_text(archive));
    }
    if let Some(broadcast) = &status.broadcast {
        for (name, text) in topics_in_words(broadcast) {
            line(name, text);
        }
    }
    if let Some(discovery) = &status.discovery {
        line("known", format!("{} peers, {} of them seen live", discovery.known, discovery.seen_live));
        let told: Vec<_> = discovery.addresses.iter().map(|address| address.as_str()).collect();
        line(
            "told",
            if told.is_empty() { "no address yet: peers cannot dial this node".into() } else { told.join(", ") },
        );
    }
    if let Some(memory) = &status.peer_memory {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let PeerMemoryStatus { budget, connections, handshakes, known_peers, unread_answers, .. } = *memory;
        let held = connections + handshakes + known_peers + unread_answers;
        line(
            "memory",
            format!(
                "peers may hold {:.1} of {:.0} MiB: connections {:.1}, handshakes {:.1}, known peers {:.1}, unread answers {:.1}",
                mib(held),
                mib(budget),
                mib(connections),
                mib(handshakes),
                mib(known_peers),
                mib(unread_answers)
            ),
        );
    }
    if !status.banned.is_empty() {
        let banned = status
            .banned
            .iter()
            .map(|ban| format!("{} for {}: {}", ban.peer.short(), in_words(until(ban.until_ms)), ban.reason));
        line("banned", banned.collect::<Vec<_>>().join("; "));
    }
    let peers = connected(&status.peers);
    let mut tree = table(["actor", "state", "for", "mailbox", "restarts", "last exit"]);
    add_child(&mut tree, &status.tree, 0);
    format!("{out}\n{peers}\n\n{tree}\n")
}

/// The archive in words.
fn archive_text(archive: &Archiver) -> String {
    let mut text = format!("{}: ", archive.place);
    let read = format!("{} segments read", archive.segments_read);
    text += &match (archive.state, archive.next, archive.behind) {
        (ArchiverState::Off, ..) => read,
        (_, Some(next), Some(behind)) => {
            let written = archive.segments_written;
            format!("has commits up to {}, {behind} behind; {written} segments written, {read}", next.saturating_sub(1))
        }
        _ => format!("looking what it has; {read}"),
    };
    if let Some(failure) = archive.failure.as_ref().or(archive.read_failure.as_ref()) {
        let since = since(failure.since_ms);
        text += &format!("; fails for {} ({} times): {}", in_words(since), failure.attempts, failure.reason);
    }
    text
}

/// A line for each topic of messages.
fn topics_in_words(broadcast: &Broadcast) -> impl Iterator<Item = (&'static str, String)> {
    broadcast.topics.iter().map(|(topic, it)| {
        let name = match topic {
            Topic::Consensus => "consensus",
            Topic::Certificates => "certs",
            Topic::Transactions => "txs",
        };
        let TopicSnapshot { peers, published, delivered, duplicates, rejected, dropped, .. } = it;
        let mut text = format!("{peers} peers, {published} published, {delivered} received, {duplicates} again");
        if *rejected > 0 {
            text += &format!(", {rejected} rejected");
        }
        if *dropped > 0 {
            text += &format!(", {dropped} not sent to slow peers");
        }
        if let Some((peer, bytes)) = it.slowest_peer.filter(|(_, bytes)| *bytes > 0) {
            text += &format!("; {} waits for {bytes} bytes", peer.short());
        }
        (name, text)
    })
}

/// The time since then.
fn since(unix_ms: u64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(unix_ms))
}

/// The time until then.
fn until(unix_ms: u64) -> Duration {
    Duration::from_millis(unix_ms.saturating_sub(now_ms()))
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

/// How far the node has got with the commits before its history.
fn backfill_in_words(backfill: &BackfillProgress) -> String {
    let BackfillProgress { lowest, target, is_complete, problem } = backfill;
    match (is_complete, problem) {
        (true, _) => format!("complete: commits from {lowest} on are stored"),
        (false, None) => format!("commits from {lowest} on are stored, and those from {target} on are wanted"),
        (false, Some(problem)) => format!("commits from {lowest} on are stored, wanted from {target} on: {problem}"),
    }
}

/// A table of connected peers.
pub(crate) fn connected(peers: &[PeerStatus]) -> Table {
    let mut table = table(["peer", "we ask it", "it asks us", "commits", "serving us", "served", "score"]);
    for peer in peers {
        let serving = peer.serving.as_ref();
        let range = |serving: &soma_p2p::PeerSnapshot| match (serving.lowest, serving.highest) {
            (Some(lowest), Some(highest)) => format!("{lowest} to {highest}"),
            _ => "not said yet".into(),
        };
        table.add_row([
            peer.peer_id.short(),
            yes(peer.outbound),
            yes(peer.inbound),
            serving.map(range).unwrap_or_default(),
            serving.map(|serving| serving.in_flight.to_string()).unwrap_or_default(),
            serving.map(|serving| serving.served.to_string()).unwrap_or_default(),
            serving.map(|serving| serving.score.to_string()).unwrap_or_default(),
        ]);
    }
    table
}

pub(crate) fn state_text(state: ChildState) -> &'static str {
    match state {
        ChildState::Starting => "starting",
        ChildState::Running => "running",
        ChildState::Stopping => "stopping",
        ChildState::BackingOff => "restarting soon",
        ChildState::Stopped => "stopped",
        ChildState::GivenUp => "given up",
    }
}

/// Adds an actor, or a supervisor with its children, each level a step to the right.
fn add_child(tree: &mut Table, child: &ChildStatus, depth: usize) {
    let strategy = child.strategy.map(|strategy| match strategy {
        Strategy::OneForOne => "one for one",
        Strategy::RestForOne => "rest for one",
        Strategy::OneForAll => "one for all",
    });
    let name = match strategy {
        Some(strategy) => format!("{}{} ({strategy})", "  ".repeat(depth), child.name),
        None => format!("{}{}", "  ".repeat(depth), child.name),
    };
    tree.add_row([
        name,
        state_text(child.state).into(),
        in_words(Duration::from_millis(child.in_state_ms)),
        child.mailbox.map(|messages| messages.to_string()).unwrap_or_default(),
        child.restarts.to_string(),
        child.last_exit.as_ref().map(ToString::to_string).unwrap_or_default(),
    ]);
    for below in &child.children {
        add_child(tree, below, depth + 1);
    }
}

/// A time to two units, such as `3 min 20 s`.
pub(crate) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

pub(crate) fn yes(value: bool) -> String {
    if value { "yes".into() } else { "no".into() }
}

/// An empty table in the style of all of this command's tables.
pub fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_p2p::ExitReason;

    #[test]
    fn a_time_is_told_in_its_two_largest_units() {
        let said = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (59_999, "59 s"),
            (60_000, "1 min 0 s"),
            (200_000, "3 min 20 s"),
            (3_599_000, "59 min 59 s"),
            (3_600_000, "1 h 0 min"),
            (86_399_000, "23 h 59 min"),
            (86_400_000, "1 d 0 h"),
            (400 * 86_400_000, "400 d 0 h"),
        ];
        for (ms, words) in said {
            assert_eq!(in_words(Duration::from_millis(ms)), words);
        }
    }

    #[test]
    fn backfill_is_told_with_its_bounds_and_its_problem() {
        let mut backfill =
            BackfillProgress { lowest: 61, target: 1, is_complete: false, problem: Some("no peer".into()) };
        let words = backfill_in_words(&backfill);
        assert!(["61", "1", "no peer"].iter().all(|part| words.contains(part)), "{words}");
        (backfill.lowest, backfill.is_complete) = (1, true);
        assert!(backfill_in_words(&backfill).starts_with("complete"));
    }

    fn child(name: &str, state: ChildState, children: Vec<ChildStatus>) -> ChildStatus {
        ChildStatus {
            name: name.into(),
            state,
            in_state_ms: 1_500,
            restarts: 0,
            last_exit: None,
            mailbox: None,
            strategy: (!children.is_empty()).then_some(Strategy::RestForOne),
            children,
        }
    }

    #[test]
    fn tree_shows_down_actors_restart_counts_and_last_exits() {
        let failing = ChildStatus {
            restarts: 6,
            last_exit: Some(ExitReason::Panicked("out of luck".into())),
            ..child("connections", ChildState::GivenUp, Vec::new())
        };
        let waiting = ChildStatus { mailbox: Some(3), ..child("discovery", ChildState::BackingOff, Vec::new()) };
        let root = child("network", ChildState::Stopping, vec![failing, waiting]);
        let mut tree = table(["actor", "state", "for", "mailbox", "restarts", "last exit"]);
        add_child(&mut tree, &root, 0);
        let rows: Vec<Vec<String>> =
            tree.row_iter().map(|row| row.cell_iter().map(|cell| cell.content()).collect()).collect();
        assert_eq!(
            rows,
            [
                ["network (rest for one)", "stopping", "1 s", "", "0", ""],
                ["  connections", "given up", "1 s", "", "6", "panicked: out of luck"],
                ["  discovery", "restarting soon", "1 s", "3", "0", ""],
            ]
        );
    }
}
