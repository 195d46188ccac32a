//! What a system measures. The names and the help are those that `/metrics` of the command shows.

use metrics::{counter, describe_counter, describe_gauge, describe_histogram};

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It has a value now.
    Gauge,
    /// It counts durations, in seconds. These are the upper bounds of the buckets, for recorders that want such.
    Histogram(&'static [f64]),
}

/// One metric. A counter without labels begins at 0. Others appear once they have a value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning, and the values of its labels.
    pub help: &'static str,
}

/// Buckets for what takes a request or a disk: from a millisecond to the longest that a request may take.
const SECONDS: MetricKind =
    MetricKind::Histogram(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);

/// Buckets for what takes some computing: from ten microseconds to the time after which an actor counts as hung.
const HANDLER_SECONDS: MetricKind =
    MetricKind::Histogram(&[0.00001, 0.00003, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0]);

/// Every metric of a system.
pub const METRICS: &[Metric] = &[
    Metric {
        name: "soma_actor_handler_seconds",
        kind: HANDLER_SECONDS,
        labels: &["actor"],
        help: "Time in which an actor handled one input: its decision, and the start of what follows from it.",
    },
    Metric {
        name: "soma_actor_restarts_total",
        kind: MetricKind::Counter,
        labels: &["actor"],
        help: "Restarts of actors and supervisors. Every restart follows an end.",
    },
    Metric {
        name: "soma_archive_errors_total",
        kind: MetricKind::Counter,
        labels: &["operation"],
        help: "Failed operations of the archive: list, read, write.",
    },
    Metric {
        name: "soma_archive_faults_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Segments of the archive that were damaged or broke a rule.",
    },
    Metric {
        name: "soma_archive_read_bytes_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Bytes of segments read from the archive.",
    },
    Metric {
        name: "soma_archive_segments_read_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Segments read from the archive.",
    },
    Metric {
        name: "soma_archive_segments_written_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Segments written to the archive.",
    },
    Metric {
        name: "soma_archive_written_bytes_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Bytes of segments written to the archive.",
    },
    Metric {
        name: "soma_archived_commit",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "The last commit up to which the archive has all that this node stored.",
    },
    Metric { name: "soma_bans_total", kind: MetricKind::Counter, labels: &[], help: "Bans of peers." },
    Metric {
        name: "soma_blocked_threads",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Threads that the supervisor abandoned and that have not come back; normally none.",
    },
    Metric { name: "soma_blocks_sent_total", kind: MetricKind::Counter, labels: &[], help: "Blocks sent to peers." },
    Metric {
        name: "soma_bytes_sent_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Bytes of blocks and commits sent to peers.",
    },
    Metric {
        name: "soma_calls_answered_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Calls of peers that were answered.",
    },
    Metric {
        name: "soma_calls_refused_total",
        kind: MetricKind::Counter,
        labels: &["reason"],
        help: "Calls of peers that were refused: other-chain, too-many, too-fast.",
    },
    Metric {
        name: "soma_dials_failed_total",
        kind: MetricKind::Counter,
        labels: &["cause"],
        help: "Failed dials: unreachable, wrong-key, other-chain, refused (the peer is full or keeps this node out), banned, denied, full, group-full (enough links to the peer's network), pausing (the peer's addresses failed lately).",
    },
    Metric {
        name: "soma_equivocations_total",
        kind: MetricKind::Counter,
        labels: &["topic"],
        help: "Authors that contradicted themselves with two messages.",
    },
    Metric {
        name: "soma_highest_synced_commit",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Highest durable commit.",
    },
    Metric {
        name: "soma_inbound_connections",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Connections that peers made to this node.",
    },
    Metric {
        name: "soma_inbound_evicted_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Inbound connections ended to make room for others.",
    },
    Metric {
        name: "soma_inbound_refused_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Inbound connections not admitted.",
    },
    Metric { name: "soma_known_peers", kind: MetricKind::Gauge, labels: &[], help: "Peers in the address book." },
    Metric {
        name: "soma_lowest_available_commit",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "The lowest available commit, on a node that prunes or backfills.",
    },
    Metric {
        name: "soma_mailbox_busy_total",
        kind: MetricKind::Counter,
        labels: &["receiver", "sender"],
        help: "Messages that waited because the receiver's mailbox was full.",
    },
    Metric {
        name: "soma_message_validator_panics_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Panics in the node's message validator; the message is ignored then.",
    },
    Metric {
        name: "soma_messages_delivered_total",
        kind: MetricKind::Counter,
        labels: &["topic"],
        help: "Messages of other nodes that were accepted.",
    },
    Metric {
        name: "soma_messages_missed_total",
        kind: MetricKind::Counter,
        labels: &["topic"],
        help: "Messages that a reader of this node was too slow for.",
    },
    Metric {
        name: "soma_messages_sent_total",
        kind: MetricKind::Counter,
        labels: &["topic"],
        help: "Messages put into the queues to peers.",
    },
    Metric {
        name: "soma_network_trouble",
        kind: MetricKind::Gauge,
        labels: &["trouble"],
        help: "1 for what is wrong with this node's place in the network, 0 for what was.",
    },
    Metric {
        name: "soma_node_infos_dropped_total",
        kind: MetricKind::Counter,
        labels: &["reason"],
        help: "Node infos that did not pass: too-large, malformed, other-chain, too-new (the peer's clock or this node's), too-old, bad-signature.",
    },
    Metric {
        name: "soma_object_bytes_fetched_total",
        kind: MetricKind::Counter,
        labels: &["kind"],
        help: "Bytes of objects fetched from peers.",
    },
    Metric {
        name: "soma_object_calls_failed_total",
        kind: MetricKind::Counter,
        labels: &["fault"],
        help: "Failed calls for objects.",
    },
    Metric {
        name: "soma_objects_fetched_total",
        kind: MetricKind::Counter,
        labels: &["kind"],
        help: "Objects fetched from peers, with right digests.",
    },
    Metric {
        name: "soma_objects_lacked_total",
        kind: MetricKind::Counter,
        labels: &["kind"],
        help: "Objects that a peer was asked for and lacks.",
    },
    Metric {
        name: "soma_outbound_peers",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Peers that this node is connected to.",
    },
    Metric {
        name: "soma_outbox_busy_total",
        kind: MetricKind::Counter,
        labels: &["receiver"],
        help: "Messages lost because an ordered queue to the receiver was full.",
    },
    Metric {
        name: "soma_peer_faults_total",
        kind: MetricKind::Counter,
        labels: &["kind"],
        help: "Ranges that a peer failed to serve, by kind of fault.",
    },
    Metric {
        name: "soma_peers_seen_live",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Peers of the address book that were reached and have not failed three times since.",
    },
    Metric {
        name: "soma_push_to_durable_seconds",
        kind: SECONDS,
        labels: &[],
        help: "Time from a peer's first announcement of a commit until it is durable here, on a node at most 32 commits behind. A peer that announces a commit too early makes it longer.",
    },
    Metric {
        name: "soma_pushes_total",
        kind: MetricKind::Counter,
        labels: &["heard"],
        help: "Announcements of commits to peers: yes if the peer took it, else no.",
    },
    Metric {
        name: "soma_silent_validators",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Validators that have sent this validator no consensus message for a while; 0 on a full node.",
    },
    Metric {
        name: "soma_store_backfilled_commits_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Commits written durably below the lowest one.",
    },
    Metric {
        name: "soma_store_batches_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Batches written durably.",
    },
    Metric {
        name: "soma_store_commits_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Commits written durably.",
    },
    Metric { name: "soma_store_prune_steps_total", kind: MetricKind::Counter, labels: &[], help: "Steps of pruning." },
    Metric {
        name: "soma_store_slow_writes_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Once for every 30 s that a write has waited for the disk.",
    },
    Metric {
        name: "soma_store_write_errors_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Writes that failed.",
    },
    Metric {
        name: "soma_store_write_seconds",
        kind: SECONDS,
        labels: &[],
        help: "Time of one durable write of a batch of commits.",
    },
    Metric {
        name: "soma_sync_blocks_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Blocks fetched and verified.",
    },
    Metric {
        name: "soma_sync_bytes_in_flight",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Bytes reserved for ranges, or waiting to be written.",
    },
    Metric {
        name: "soma_sync_bytes_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Bytes fetched and verified.",
    },
    Metric {
        name: "soma_sync_cause",
        kind: MetricKind::Gauge,
        labels: &["cause"],
        help: "1 for what the sync is doing, or why it is doing nothing; 0 for what it did before.",
    },
    Metric {
        name: "soma_sync_commits_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Commits fetched and verified.",
    },
    Metric {
        name: "soma_sync_fetch_seconds",
        kind: SECONDS,
        labels: &["source"],
        help: "Time to download a range of commits with their blocks, from a peer or the archive; also of a download that ended early.",
    },
    Metric {
        name: "soma_sync_shortfalls_total",
        kind: MetricKind::Counter,
        labels: &["kind"],
        help: "Ranges that ended early: cut and other-epoch, which are normal, or a kind of fault.",
    },
    Metric { name: "soma_sync_stuck", kind: MetricKind::Gauge, labels: &[], help: "1 while the node is stuck." },
    Metric {
        name: "soma_sync_worker_failures_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Sync workers that ended without a result.",
    },
    Metric {
        name: "soma_target_commit",
        kind: MetricKind::Gauge,
        labels: &[],
        help: "Highest commit that a peer claims.",
    },
    Metric {
        name: "soma_trace_missed_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Messages that the trace lacks because its disk did not keep up.",
    },
    Metric {
        name: "soma_transaction_verifier_panics_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Panics in the node's transaction verifier; the verifier's answer is not believed then.",
    },
    Metric {
        name: "soma_verifier_batch_seconds",
        kind: SECONDS,
        labels: &[],
        help: "Time to check one batch of signatures.",
    },
    Metric {
        name: "soma_verifier_batches_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Batches of signatures checked.",
    },
    Metric { name: "soma_verifier_blocks_total", kind: MetricKind::Counter, labels: &[], help: "Blocks verified." },
    Metric {
        name: "soma_verifier_refused_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Checks refused because too many waited.",
    },
    Metric {
        name: "soma_verifier_rejected_total",
        kind: MetricKind::Counter,
        labels: &["what"],
        help: "Rejected commits, blocks, sub-dags and node-info. For commits this includes ranges behind the end of an epoch, which is normal.",
    },
    Metric {
        name: "soma_verifier_signatures_total",
        kind: MetricKind::Counter,
        labels: &[],
        help: "Signatures checked.",
    },
];

/// Gives the current recorder the help of every metric, and each counter without labels its 0: else a first error would
/// not show as an increase.
pub(crate) fn describe() {
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => {
                describe_counter!(metric.name, metric.help);
                if metric.labels.is_empty() {
                    counter!(metric.name).increment(0);
                }
            }
            MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram(_) => describe_histogram!(metric.name, metric.help),
        }
    }
}
