//! A node as a service of systemd: what it tells the manager.

use crate::{DEADLINE, Home, Running};
use std::os::unix::net::UnixDatagram;

/// Receives notices until one has this field; all up to there.
fn until(socket: &UnixDatagram, field: &str) -> Vec<String> {
    let mut notices = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).unwrap();
        notices.push(String::from_utf8(buffer[..count].to_vec()).unwrap());
        if notices.last().unwrap().lines().any(|line| line == field) {
            return notices;
        }
    }
}

#[test]
fn a_node_tells_systemd_that_it_is_ready_alive_and_stopping() {
    let home = Home::new(crate::PROGRAM);
    let socket = UnixDatagram::bind(home.path("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = home.command(["node", "--config", "node.toml"]);
    // The watchdog's limit decides only how often the node sends.
    let node = Running::start(command.env("NOTIFY_SOCKET", home.path("notify")).env("WATCHDOG_USEC", "300000"));

    let first = until(&socket, "READY=1");
    assert_eq!(first.len(), 1, "it sent something before it was ready: {first:?}");
    assert!(first[0].lines().any(|line| line.starts_with("STATUS=") && line.len() > "STATUS=".len()), "{first:?}");
    assert!(node.printed().starts_with("ready: "));
    for _ in 0..2 {
        let alive = until(&socket, "WATCHDOG=1");
        assert!(alive.iter().all(|notice| !notice.contains("READY=1") && !notice.contains("STOPPING=1")), "{alive:?}");
    }

    node.signal("TERM");
    until(&socket, "STOPPING=1");
    node.wait().ok();
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 4096]).is_err(), "it sent something after STOPPING=1");
}

#[test]
fn a_node_without_a_watchdog_sends_no_heartbeat() {
    let home = Home::new(crate::PROGRAM);
    let socket = UnixDatagram::bind(home.path("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut command = home.command(["node", "--config", "node.toml"]);
    let node = Running::start(command.env("NOTIFY_SOCKET", home.path("notify")).env_remove("WATCHDOG_USEC"));
    until(&socket, "READY=1");
    node.signal("TERM");
    let rest = until(&socket, "STOPPING=1");
    assert!(rest.iter().all(|notice| !notice.contains("WATCHDOG=1")), "{rest:?}");
    node.wait().ok();
}

#[test]
fn a_node_without_its_managers_socket_says_so_and_runs() {
    let home = Home::new(crate::PROGRAM);
    let mut command = home.command(["node", "--config", "node.toml"]);
    let node = Running::start(command.env("NOTIFY_SOCKET", home.path("absent")));
    node.until("it has warned", |output| output.stderr.contains("cannot notify the service manager"));
    node.stop("TERM").ok();
}
