//! Results of loads: a line of JSON and a row for each.

use super::super::{
    message_load::{Heard, Load, Sent},
    usage,
};
use comfy_table::Table;
use serde::Serialize;
use soma_p2p::Topic;
use soma_p2p_cli::table;
use std::fmt;

/// One load, as both ends know it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MessageRecord {
    pub(super) case: String,
    /// soma-p2p, or libp2p-gossipsub.
    implementation: &'static str,
    /// What ran beside it, or what is special about it.
    variant: String,
    topic: Topic,
    payload_bytes: usize,
    /// Intended messages in a second. None: as many as possible.
    rate: Option<u32>,
    /// Messages in a second from the first one sent to the last one heard.
    pub(super) per_s: f64,
    sent: u32,
    heard: u32,
    lost: u32,
    /// Messages that came twice.
    again: u32,
    /// Messages that the reader at the hearing end was too slow for.
    gaps: u64,
    /// Messages that carried the time.
    timed: usize,
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    max_ms: Option<f64>,
    /// CPU seconds for a million messages. With several loads at once: for all of them.
    sender_cpu_s_per_million: Option<f64>,
    receiver_cpu_s_per_million: Option<f64>,
    /// Share of the machine's CPU time that all its processes used meanwhile: near 1, the cores are the limit.
    machine_cpu_share: Option<f64>,
    /// Share that processes used which are not part of the case: where this is much, nothing else means anything.
    other_cpu_share: Option<f64>,
    cores: usize,
    /// What is compared with another record, and the quotient.
    pub(super) ratio: Option<(&'static str, f64)>,
    /// What the ratio, or else the load, has to reach.
    pub(super) goal: &'static str,
}

impl MessageRecord {
    /// A load of which both ends have told. Without `sent` the sender was stopped before it was done.
    pub(super) fn new(
        case: &str,
        variant: &str,
        load: &Load,
        sent: Option<&Sent>,
        heard: &Heard,
        machine_cpu_share: Option<f64>,
    ) -> Self {
        let first_ns = sent.map_or(heard.first_ns, |sent| sent.first_ns);
        let sent_messages = sent.map_or(heard.messages + heard.missing, |sent| sent.messages);
        let seconds = heard.last_ns.saturating_sub(first_ns) as f64 / 1e9;
        let per_million = |cpu_s: f64, messages: f64| (messages >= 10_000.0).then(|| cpu_s / messages * 1e6);
        Self {
            case: case.into(),
            implementation: "soma-p2p",
            variant: variant.into(),
            topic: load.topic,
            payload_bytes: load.payload_bytes,
            rate: load.per_second,
            per_s: f64::from(heard.messages) / seconds.max(1e-9),
            sent: sent_messages,
            heard: heard.messages,
            lost: sent_messages.saturating_sub(heard.messages),
            again: heard.again,
            gaps: heard.gaps,
            timed: heard.latency.timed,
            p50_ms: heard.latency.p50_ms,
            p90_ms: heard.latency.p90_ms,
            p99_ms: heard.latency.p99_ms,
            max_ms: heard.latency.max_ms,
            sender_cpu_s_per_million: sent.and_then(|sent| per_million(sent.cpu_s, f64::from(sent.messages))),
            receiver_cpu_s_per_million: per_million(heard.cpu.0, heard.cpu.1 as f64),
            machine_cpu_share,
            other_cpu_share: None,
            cores: usage::cores(),
            ratio: None,
            goal: "",
        }
    }

    /// With what else ran on the machine.
    pub(super) fn beside_others(mut self, cpu_share: Option<f64>) -> Self {
        self.other_cpu_share = cpu_share;
        self
    }

    /// Of the other implementation.
    #[cfg(feature = "gossipsub")]
    pub(super) fn of_gossipsub(mut self) -> Self {
        self.implementation = "libp2p-gossipsub";
        self
    }

    /// With what it has to reach.
    pub(super) fn with_goal(mut self, goal: &'static str) -> Self {
        self.goal = goal;
        self
    }

    /// With its comparison with another one.
    pub(super) fn with_ratio(mut self, of: &'static str, ratio: f64) -> Self {
        self.ratio = Some((of, ratio));
        self
    }

    /// Its median latency, if any message carried the time.
    #[cfg(feature = "gossipsub")]
    pub(super) fn p50_ms(&self) -> Option<f64> {
        self.p50_ms
    }

    fn loss(&self) -> String {
        let mut loss = self.lost.to_string();
        if self.gaps > 0 {
            loss += &format!(" ({} at the reader)", self.gaps);
        }
        loss
    }

    fn comparison(&self) -> String {
        self.ratio.map_or_else(|| "-".into(), |(of, ratio)| format!("{of}: {ratio:.2}"))
    }
}

impl fmt::Display for MessageRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, implementation, variant, per_s, .. } = self;
        let loss = self.loss();
        let (p50, p99) = (known(self.p50_ms, 2), known(self.p99_ms, 2));
        write!(f, "{case} {implementation} {variant}: {per_s:.0}/s, {loss} lost, p50 {p50} ms, p99 {p99} ms")?;
        if self.ratio.is_some() { write!(f, ", {}", self.comparison()) } else { Ok(()) }
    }
}

/// Loads, a row for each.
pub(super) fn table_of(records: &[MessageRecord]) -> Table {
    let mut rows = table([
        "case",
        "variant",
        "sent",
        "lost",
        "per s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "sender CPU s/M",
        "receiver CPU s/M",
        "machine CPU",
        "other CPU",
        "ratio",
        "goal",
    ]);
    for record in records {
        rows.add_row([
            record.case.clone(),
            record.variant.clone(),
            record.sent.to_string(),
            record.loss(),
            format!("{:.0}", record.per_s),
            known(record.p50_ms, 2),
            known(record.p99_ms, 2),
            known(record.max_ms, 2),
            known(record.sender_cpu_s_per_million, 1),
            known(record.receiver_cpu_s_per_million, 1),
            percent(record.machine_cpu_share),
            percent(record.other_cpu_share),
            record.comparison(),
            record.goal.into(),
        ]);
    }
    rows
}

fn known(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.decimals$}"))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.0} %", 100.0 * share))
}
