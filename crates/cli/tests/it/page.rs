//! The status page, as far as it can be seen without a browser. `make test-browser` looks at it in one.

use crate::{
    Home,
    node::{admin, get},
};
use std::{
    io::{BufRead, BufReader},
    thread,
    time::Instant,
};

/// The data of the next event of a stream.
fn next_event(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> serde_json::Value {
    let data = lines.find_map(|line| line.unwrap().strip_prefix("data: ").map(str::to_owned)).unwrap();
    serde_json::from_str(&data).unwrap()
}

fn events(admin: &str) -> Result<impl Iterator<Item = std::io::Result<String>> + use<>, ureq::Error> {
    let response = ureq::get(format!("http://{admin}/events")).call()?;
    Ok(BufReader::new(response.into_body().into_reader()).lines())
}

#[test]
fn page_and_all_that_it_loads_are_in_the_program() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let admin = admin(&home);
    let (code, page) = get(&admin, "/");
    assert_eq!(code, 200);
    let values = ["href=\"", "src=\""].into_iter().flat_map(|attribute| page.split(attribute).skip(1));
    let links = values.filter_map(|rest| rest.split('"').next()).filter(|link| !link.starts_with('#'));
    let mut seen = 0;
    for link in links {
        assert!(link.starts_with('/'), "{link} is elsewhere");
        assert_eq!(get(&admin, link).0, 200, "{link}");
        seen += 1;
    }
    assert!(seen >= 6, "{page}");
    node.stop("TERM").ok();
}

#[test]
fn events_begin_with_the_history_and_go_on_with_what_is_new() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let mut lines = events(&admin(&home)).unwrap();
    let first = next_event(&mut lines);
    assert_eq!(first["status"]["height"], 0);
    assert!(first["resources"]["memory_bytes"].as_u64().unwrap() > 1 << 20, "{first}");
    let second = next_event(&mut lines);
    let times = |event: &serde_json::Value| -> Vec<u64> {
        event["samples"].as_array().unwrap().iter().map(|sample| sample["at_ms"].as_u64().unwrap()).collect()
    };
    let (old, new) = (times(&first), times(&second));
    assert!(!old.is_empty() && !new.is_empty() && old.iter().max() < new.iter().min(), "{old:?} {new:?}");
    // It takes a moment until the node says why it waits.
    let waits = std::iter::repeat_with(|| next_event(&mut lines)).find(|event| event["verdict"] == "needs-attention");
    let advice = waits.unwrap()["advice"].as_str().unwrap().to_owned();
    assert!(advice.contains("seed"), "{advice}");
    // A page that is open does not keep a node from stopping.
    node.stop("TERM").ok();
}

#[test]
fn more_pages_than_may_be_open_are_refused_and_room_returns() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let admin = admin(&home);
    let mut open: Vec<_> = (0..16).map(|_| events(&admin).unwrap()).collect();
    open.iter_mut().for_each(|lines| drop(next_event(lines)));
    let (code, reason) = get(&admin, "/events");
    assert_eq!(code, 503, "{reason}");
    assert!(reason.contains("16 pages"), "{reason}");
    open.clear();
    // The node notices at its next event that a page is gone.
    let again = std::iter::repeat_with(|| {
        thread::yield_now();
        events(&admin)
    });
    let deadline = Instant::now() + crate::DEADLINE;
    let mut again = again.take_while(|_| Instant::now() < deadline).find_map(Result::ok).expect("room");
    next_event(&mut again);
    node.stop("TERM").ok();
}
