//! The page of metrics.

use soma_p2p::{METRICS, MetricKind};

pub(super) fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\n`make docs-reference` writes this page from `crates/soma-p2p/src/metrics.rs`. A counter without labels \
         begins\nat 0; others appear once they have a value. [Watching a node](../operating/watching.md#metrics) says how to \
         read them.\n\n| name | kind | what |\n|---|---|---|\n",
    );
    for metric in METRICS {
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram(_) => "histogram",
        };
        let labels = if metric.labels.is_empty() { String::new() } else { format!("{{{}}}", metric.labels.join(", ")) };
        page.push_str(&format!("| `{}{labels}` | {kind} | {} |\n", metric.name, metric.help));
    }
    page
}
