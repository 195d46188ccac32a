//! What a child that always fails costs. A test binary of its own: it measures the whole process.
#![cfg(target_os = "linux")]

mod common;

use common::{Births, Subject, run_threads};
use soma_runtime::Slot;
use soma_runtime::{ChildSpec, Intensity, Strategy, Supervisor};
use std::fs;
use tokio::time::Instant;

/// A tick of the process' CPU time, as Linux counts it for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of this process in seconds, in user mode and in the kernel.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    // The second field is the name in brackets, in which anything may be; the time is in fields 14 and 15.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS_PER_SECOND
}

#[test]
fn child_that_always_fails_escalates_at_under_one_percent_of_a_core() {
    run_threads(|runtime_context| async move {
        let mut root = Supervisor::new("root", Strategy::OneForOne, runtime_context, 1);
        let births = Births::default();
        let born = births.clone();
        root.actor(ChildSpec::<Subject>::new(Slot::new("subject"), 1, move || {
            born.next();
            async { Err("there is nothing to start from".to_owned()) }
        }));
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let supervision = root.start();
        let mut escalation = supervision.escalation();
        let reason = escalation.wait_for(Option::is_some).await.unwrap().clone().unwrap().to_string();
        let (took, cost) = (begun.elapsed(), cpu_seconds() - cpu);
        println!("escalated after {took:.1?} and {} lives, with {cost:.2} s of CPU time: {reason}", births.count());
        assert_eq!(reason, "subject does not stay up: it failed: there is nothing to start from");
        assert_eq!(births.count() as usize, Intensity::default().max_restarts + 1);
        assert!(took < Intensity::default().within, "{took:?}");
        assert!(cost < took.as_secs_f64() / 100.0, "{cost} s of CPU time in {took:?}");
    });
}
