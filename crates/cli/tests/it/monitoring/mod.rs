//! The dashboard and the alert rules of docs/operating name only what a running node measures.

mod promql;

use crate::{Home, Running, config, node::get, ping::listening, stored};
use promql::{Catalogue, Labels, series};
use serde::Deserialize;
use serde_json::Value;
use soma_p2p::{METRICS, MetricKind};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Commits of the chain that the second node syncs, and how many make an epoch.
const COMMITS: usize = 250;
const EPOCH: u32 = 100;

/// Metrics of the command itself, and of Prometheus.
const BEYOND_METRICS: [(&str, &[&str]); 2] = [("soma_build_info", &["version"]), ("soma_ready", &[])];

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operating").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The series of [`METRICS`].
fn described() -> Catalogue {
    let mut catalogue = Catalogue::default();
    for metric in METRICS {
        let labels = || metric.labels.iter().copied();
        match metric.kind {
            MetricKind::Histogram(_) => {
                catalogue.add(&format!("{}_bucket", metric.name), labels().chain(["le"]));
                catalogue.add(&format!("{}_sum", metric.name), labels());
                catalogue.add(&format!("{}_count", metric.name), labels());
            }
            _ => catalogue.add(metric.name, labels()),
        }
    }
    for (name, labels) in BEYOND_METRICS {
        catalogue.add(name, labels.iter().copied());
    }
    catalogue
}

/// Two nodes, of which the second has fetched a chain from the first.
struct Synced {
    home: Home,
    nodes: [Running; 2],
}

impl Synced {
    fn start() -> Self {
        let home = stored(COMMITS, EPOCH);
        fs::create_dir(home.path("data")).unwrap();
        fs::rename(home.path("store"), home.path("data/store")).unwrap();
        let first = Self::node(&home, "data", "");
        let (peer, address) = listening(&first);
        let second = Self::node(&home, "data2", &format!("seed_peers = [\"{peer}@{address}\"]\n"));
        let watch = Running::start(&mut home.command(["status", "--config", "data2.toml", "--json", "--watch"]));
        watch.until("it has synced", |output| {
            let last = output.stdout.split_inclusive('\n').next_back().filter(|line| line.ends_with('\n'));
            let status = last.map(|line| serde_json::from_str::<Value>(line).unwrap());
            status.is_some_and(|status| status["executor"]["index"] == COMMITS)
        });
        Self { home, nodes: [first, second] }
    }

    /// A node with a key and a directory of its own.
    fn node(home: &Home, directory: &str, p2p: &str) -> Running {
        let key = format!("{directory}.key");
        home.run(["keygen", "--out", &key]).ok();
        let text = config("", p2p).replace("\"chain/genesis.bin\"", "\"genesis.bin\"");
        let text = text.replace("\"node.key\"", &format!("\"{key}\"")).replace("\"data\"", &format!("\"{directory}\""));
        let name = format!("{directory}.toml");
        home.write(&name, &text);
        home.start_node(&name)
    }

    /// What both nodes show to Prometheus.
    fn metrics(&self) -> String {
        let of = |directory: &str| {
            let run = fs::read(self.home.path(directory).join("run.json")).unwrap();
            let run: Value = serde_json::from_slice(&run).unwrap();
            let (code, metrics) = get(run["admin"].as_str().unwrap(), "/metrics");
            assert_eq!(code, 200);
            metrics
        };
        of("data") + &of("data2")
    }

    fn stop(self) {
        for node in self.nodes {
            node.stop("TERM").ok();
        }
    }
}

/// The lines of the text format that have a value.
fn samples(metrics: &str) -> impl Iterator<Item = &str> {
    metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// Everything that a dashboard or a rule may name.
fn catalogue(metrics: &str) -> Catalogue {
    let mut catalogue = described();
    for (name, labels) in samples(metrics).map(series) {
        let Some(known) = catalogue.labels(&name) else {
            assert!(name.starts_with("process_"), "{name} is in no line of METRICS");
            catalogue.add(&name, labels.iter().map(String::as_str));
            continue;
        };
        assert_eq!(labels.into_iter().collect::<Labels>(), known, "labels of {name}");
    }
    // Prometheus makes it for each target.
    catalogue.add("up", []);
    catalogue
}

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    alert: String,
    expr: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn rules() -> Vec<Rule> {
    let rules: Rules = yaml_serde::from_str(&document("alerts.yaml")).unwrap();
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// Names of labels that follow `before` in a template.
fn named_after<'a>(template: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    let name = |rest: &'a str| rest.split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).next().unwrap();
    template.split(before).skip(1).map(name)
}

/// An expression of the dashboard, without Grafana's variables.
fn without_variables(expression: &str) -> String {
    expression.replace("$__rate_interval", "5m").replace("$job", "job").replace("$instance", "instance")
}

/// Every expression of the dashboard, with where it stands and the text that shows its labels.
fn expressions(dashboard: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            found.push((text(&panel["title"]), text(&target["expr"]), text(&target["legendFormat"])));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        if annotation["expr"].is_string() {
            found.push((text(&annotation["name"]), text(&annotation["expr"]), text(&annotation["titleFormat"])));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        // `label_values(SELECTOR, LABEL)` is Grafana's own.
        if let Some(query) = variable["query"]["query"].as_str() {
            let arguments = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) = arguments.and_then(|arguments| arguments.rsplit_once(", ")).unwrap();
            found.push((text(&variable["name"]), selector.into(), format!("{{{{{label}}}}}")));
        }
    }
    found
}

/// What the rules and the dashboard name that does not exist.
fn unknown(catalogue: &Catalogue, rules: &[Rule], dashboard: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let mut check = |place: &str, expression: &str, templates: &[(&str, &str)]| {
        let (labels, names) = catalogue.check(expression);
        unknown.extend(names.into_iter().map(|name| format!("{place}: {name}")));
        for label in templates.iter().flat_map(|(template, before)| named_after(template, before)) {
            if !labels.contains(label) {
                unknown.push(format!("{place}: label {label:?} in its text"));
            }
        }
    };
    for rule in rules {
        let templates: Vec<_> = rule.annotations.values().map(|text| (text.as_str(), "$labels.")).collect();
        check(&rule.alert, &rule.expr, &templates);
    }
    for (place, expression, template) in expressions(dashboard) {
        check(&place, &without_variables(&expression), &[(&template, "{{")]);
    }
    unknown
}

#[test]
fn dashboard_and_alert_rules_name_only_what_a_running_node_measures() {
    let nodes = Synced::start();
    let metrics = nodes.metrics();
    nodes.stop();
    let catalogue = catalogue(&metrics);
    let mut dashboard: Value = serde_json::from_str(&document("dashboard.json")).unwrap();
    let mut rules = rules();
    assert!(rules.len() >= 15 && expressions(&dashboard).len() >= 60, "too few were found");
    assert_eq!(unknown(&catalogue, &rules, &dashboard), Vec::<String>::new());

    // A name that does not exist is found.
    rules[0].expr = "soma_syncing_stuck == 1".into();
    rules[1].annotations.insert("action".into(), "ask {{ $labels.peer }}".into());
    let panel = dashboard["panels"].as_array().unwrap().iter().position(|panel| panel["targets"].is_array()).unwrap();
    dashboard["panels"][panel]["targets"][0]["expr"] = "sum by (peer) (soma_bans_total{job=\"$job\"})".into();
    dashboard["templating"]["list"][1]["query"]["query"] = "label_values(soma_build, job)".into();
    let found = unknown(&catalogue, &rules, &dashboard).join("\n");
    for expected in
        ["metric \"soma_syncing_stuck\"", "label \"peer\" in its text", "an aggregation", "metric \"soma_build\""]
    {
        assert!(found.contains(expected), "{expected:?} is not in\n{found}");
    }
}

#[test]
fn node_that_has_synced_shows_its_histograms() {
    let nodes = Synced::start();
    let metrics = nodes.metrics();
    nodes.stop();
    for series in [
        "soma_sync_fetch_seconds_count{source=\"peer\"}",
        "soma_verifier_batch_seconds_count",
        "soma_store_write_seconds_count",
        "soma_actor_handler_seconds_count{actor=\"state-sync\"}",
        "soma_actor_handler_seconds_count{actor=\"sync-worker\"}",
        "soma_actor_handler_seconds_count{actor=\"verifier\"}",
        "soma_actor_handler_seconds_count{actor=\"grpc-adapter\"}",
    ] {
        let counts = samples(&metrics).filter_map(|line| line.strip_prefix(series)).map(str::trim);
        assert!(counts.map(|count| count.parse::<u64>().unwrap()).any(|count| count > 0), "{series} in\n{metrics}");
    }
    // The buckets are those that METRICS promises.
    for metric in METRICS {
        let MetricKind::Histogram(bounds) = metric.kind else { continue };
        assert!(bounds.is_sorted_by(|lower, upper| lower < upper), "{}", metric.name);
        let bucket = format!("{}_bucket", metric.name);
        let of_metric = samples(&metrics).filter(|line| line.starts_with(&bucket));
        let shown: BTreeSet<_> =
            of_metric.map(|line| line.split("le=\"").nth(1).unwrap().split('"').next().unwrap()).collect();
        let promised: BTreeSet<_> = bounds.iter().map(f64::to_string).chain(["+Inf".into()]).collect();
        // No commit came after the sync, so none was pushed.
        if metric.name != "soma_push_to_durable_seconds" {
            assert_eq!(shown, promised.iter().map(String::as_str).collect(), "{}", metric.name);
        }
    }
    let first_errors = ["soma_store_write_errors_total 0", "soma_actor_restarts_total{actor=\"discovery\"} 0"];
    for zero in first_errors {
        assert!(samples(&metrics).any(|line| line == zero), "{zero} in\n{metrics}");
    }
}

#[test]
fn every_alert_says_what_to_do_and_has_a_test() {
    let (tests, page) = (document("alerts-test.yaml"), document("watching.md"));
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = &rule.alert;
        assert!(names.insert(name.clone()), "{name} stands there twice");
        assert!(["critical", "warning"].contains(&rule.labels["severity"].as_str()), "{name}");
        for part in ["summary", "description", "action", "runbook"] {
            assert!(rule.annotations.get(part).is_some_and(|text| text.len() > 20), "{name} has no {part}");
        }
        let fires = format!("alertname=\"{name}\"");
        assert!(tests.contains(&fires), "no test lets {name} fire");
        assert!(page.contains(&format!("| `{name}` |")), "docs/operating/watching.md has no row for {name}");
    }
}

#[test]
fn dashboard_has_a_place_a_title_and_a_description_for_every_panel() {
    let dashboard: Value = serde_json::from_str(&document("dashboard.json")).unwrap();
    let (mut ids, mut titles, mut taken) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let (title, place) = (panel["title"].as_str().unwrap(), &panel["gridPos"]);
        assert!(ids.insert(panel["id"].as_u64().unwrap()) && titles.insert(title), "{title} is not unique");
        let side = |name: &str| place[name].as_u64().unwrap();
        for (x, y) in
            (side("x")..side("x") + side("w")).flat_map(|x| (side("y")..side("y") + side("h")).map(move |y| (x, y)))
        {
            assert!(x < 24 && taken.insert((x, y)), "{title} lies on another panel or outside");
        }
        if panel["type"] != "row" {
            assert!(panel["description"].as_str().is_some_and(|text| text.len() > 10), "{title} has no description");
            assert!(panel["fieldConfig"]["defaults"].is_object(), "{title}");
            // Whoever imports it chooses the source.
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}
