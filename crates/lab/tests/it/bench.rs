//! `bench`: a small run of every kind, and what it promises to write. No time is judged.

use crate::{Home, Running};
use serde_json::Value;
use std::{fs, path::PathBuf};
#[cfg(target_os = "linux")]
use {
    crate::DEADLINE,
    std::{
        thread,
        time::{Duration, Instant},
    },
};

/// What every line of a sync holds, and what it must be.
fn check_sync(line: &Value) {
    let number = |field: &str| {
        let number = line[field].as_f64().unwrap_or_else(|| panic!("{field} is missing in {line}"));
        assert!(number.is_finite() && number >= 0.0, "{field} in {line}");
        number
    };
    for field in ["wall_s", "limit_s", "limit_ratio", "client_cpu_s", "server_cpu_s", "blocks_per_s", "bytes"] {
        assert!(number(field) > 0.0, "{field} in {line}");
    }
    for field in ["verify_us_per_signature", "tls_us_per_kb", "append_mb_per_s", "cores", "unix_time"] {
        assert!(number(field) > 0.0, "{field} in {line}");
    }
    let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-6, "{found} in {line}");
    near(number("limit_ratio"), number("wall_s") / number("limit_s"));
    near(number("blocks_per_s"), number("blocks") / number("wall_s"));
    let runs: Vec<f64> = line["runs_s"].as_array().unwrap().iter().map(|run| run.as_f64().unwrap()).collect();
    assert!(runs.len() == 3 && runs.is_sorted(), "{line}");
    near(number("wall_s"), runs[1]);
    let cpu = number("limit_verify_cpu_s") + number("limit_tls_cpu_s") + number("limit_append_cpu_s");
    let slowest = number("limit_tls_wall_s").max(number("limit_append_wall_s"));
    near(number("cpu_ratio"), (number("client_cpu_s") + number("server_cpu_s")) / cpu);
    near(number("limit_s"), (cpu / number("cores")).max(slowest));
    let signatures = if line["kind"] == "C" { 5.0 } else { 1.0 };
    near(number("limit_verify_cpu_s"), number("verify_us_per_signature") / 1e6 * signatures * number("blocks"));
    assert!(line["limit_sampled"].is_boolean(), "{line}");
    if cfg!(target_os = "linux") {
        assert!(number("peak_rss_mib") > 1.0, "{line}");
        number("other_cpu_s");
    }
}

#[test]
fn small_run_writes_one_line_and_one_plot_per_case_only() {
    let home = Home::empty(crate::PROGRAM);
    let finished = home.run(["bench", "--out", "out", "--blocks", "400", "--quick", "sync/S/", "full", "--list"]);
    let cases = finished.ok();
    assert!(cases.lines().any(|case| case == "sync/C/40-per-commit/1-peers/full"), "{cases}");
    assert!(!home.path("out").exists(), "a list is only a list");

    let args = ["bench", "--out", "out", "--blocks", "400", "--quick", "sync/S/", "sync/L/", "/certified"];
    let output = home.run(args).ok();
    assert!(output.contains("dalek verify_batch") && output.contains("ratio"), "{output}");
    let mut files: Vec<_> = fs::read_dir(home.path("out")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let with = |extension: &str| -> Vec<&PathBuf> {
        files.iter().filter(|file| file.extension().is_some_and(|found| found == extension)).collect()
    };
    assert_eq!((with("jsonl").len(), with("svg").len(), files.len()), (1, 3, 4), "{files:?}");
    assert!(output.trim_end().ends_with(".jsonl"), "it says where the lines are: {output}");

    let lines = fs::read_to_string(with("jsonl")[0]).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines.iter().map(|line| [&line["kind"], &line["verification"]].map(Value::to_string)).collect();
    let expected = [["\"S\"", "\"full\""], ["\"L\"", "\"full\""], ["\"C\"", "\"certified\""]];
    assert_eq!(told, expected.map(|pair| pair.map(String::from)));
    lines.iter().for_each(check_sync);
    for line in &lines {
        assert!(line["blocks"].as_u64().is_some_and(|blocks| (370..=400).contains(&blocks)), "{line}");
        let per_block = line["bytes"].as_f64().unwrap() / line["blocks"].as_f64().unwrap();
        let nominal = match line["kind"].as_str() {
            Some("S") => 600.0,
            Some("L") => 4_096.0,
            _ => 1_500.0,
        };
        assert!((per_block / nominal - 1.0).abs() < 0.02, "{line}");
    }
    assert_eq!(lines.iter().map(|line| line["peers"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 4, 1]);
    for plot in with("svg") {
        let text = fs::read_to_string(plot).unwrap();
        assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"), "{}", plot.display());
        assert!(text.contains("polyline") && text.contains("blocks/s"), "{}", plot.display());
    }
}

/// Starts three syncs of each of two short chains, one after the other, and waits for those of the first to end.
fn in_the_middle(home: &Home) -> Running {
    let bench = Running::start(&mut home.command(["bench", "--out", "out", "--quick", "growth/"]));
    bench.until("one chain is done with", |output| output.stderr.contains("growth/500-commits: "));
    bench
}

fn working_directories(home: &Home) -> usize {
    let names = fs::read_dir(home.path("out")).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("work-")).count()
}

#[test]
fn ctrl_c_stops_the_nodes_and_removes_their_stores() {
    let home = Home::empty(crate::PROGRAM);
    let finished = in_the_middle(&home).stop("INT");
    assert_eq!(finished.code(), 130, "{finished:?}");
    assert!(finished.stderr.lines().last().is_some_and(|last| last.starts_with("interrupted; ")), "{finished:?}");
    assert_eq!(working_directories(&home), 0);
    #[cfg(target_os = "linux")]
    assert_eq!(processes_in(&home), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn killed_benchmark_leaves_no_node_and_next_run_removes_its_stores() {
    let home = Home::empty(crate::PROGRAM);
    let killed = in_the_middle(&home).stop("KILL");
    assert_eq!(killed.status.code(), None, "{killed:?}");
    let deadline = Instant::now() + DEADLINE;
    while processes_in(&home) > 0 {
        assert!(Instant::now() < deadline, "a node outlives its benchmark");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(working_directories(&home), 1);
    home.run(["bench", "--out", "out", "--quick", "--blocks", "40", "sync/S/"]).ok();
    assert_eq!(working_directories(&home), 0);
}

/// Processes that run in the directory, as nodes of a benchmark do that was started there.
#[cfg(target_os = "linux")]
fn processes_in(home: &Home) -> usize {
    let dir = home.path(".").canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == dir)).count()
}

#[test]
fn bench_refuses_what_it_cannot_do() {
    let home = Home::empty(crate::PROGRAM);
    home.refuses(&["bench", "sync/X"], &["no case has a name with sync/X in it", "--list"]);
    home.write("a-file", "");
    home.refuses(&["bench", "--out", "a-file"], &["--out a-file: "]);
    let refused = home.run(["bench", "--blocks", "0"]);
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains("--blocks"), "{refused:?}");
}

#[test]
fn a_node_of_a_benchmark_ends_with_its_standard_input() {
    let home = Home::empty(crate::PROGRAM);
    // Without a setup it has nothing to do: it says so, and does not wait.
    home.run(["bench-node"]).refused(&["EOF"]);
}
