//! Fifty nodes of one network, each a process of its own, that know one seed.

use crate::{Home, Running, config, node::get, ping::listening};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::TcpListener,
    time::Instant,
};

/// Nodes, the seed among them.
const NODES: usize = 50;

/// Nodes that are killed with the seed, and started again.
const RESTARTED: usize = 25;

/// Links that every node wants (the default of `target_connections`).
const TARGET: usize = 20;

/// Ports that nobody gets by chance while their nodes are down: lower than those that a system gives out by itself
/// (from 32,768 up on Linux). Where they begin is up to the process, so that two runs do not meet.
fn ports() -> Vec<u16> {
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<_> = (first..32_000).filter(free).take(NODES).collect();
    assert_eq!(ports.len(), NODES, "too few free ports from {first} on");
    ports
}

/// A member of the network.
struct Member {
    config: String,
    process: Option<Running>,
    peer: String,
    admin: String,
}

/// What a node says of itself.
struct Word {
    links: BTreeSet<String>,
    known: u64,
}

impl Member {
    /// With a key and a directory of its own, and a port that it keeps when it is started again.
    fn new(home: &Home, number: usize, port: u16, seed: Option<&str>) -> Self {
        home.run(["keygen", "--out", &format!("{number}.key")]).ok();
        let seeds = seed.map(|seed| format!("seed_peers = [\"{seed}\"]\n")).unwrap_or_default();
        let p2p = format!("listen = \"/ip4/127.0.0.1/tcp/{port}\"\n{seeds}[p2p.verifier]\nthreads = 1\n");
        let text = config("", &p2p);
        let text = text.replace("\"data\"", &format!("\"data-{number}\""));
        let config = format!("{number}.toml");
        home.write(&config, &text.replace("\"node.key\"", &format!("\"{number}.key\"")));
        Self { config, process: None, peer: String::new(), admin: String::new() }
    }

    /// Begins to start it.
    fn launch(&mut self, home: &Home) {
        self.process = Some(Running::start(&mut home.command(["node", "--config", &self.config])));
    }

    /// Waits until it is up.
    fn up(&mut self) {
        let process = self.process.as_ref().unwrap();
        process.until("it is ready", |output| output.stdout.contains(", admin http://"));
        (self.peer, _) = listening(process);
        let said = process.printed();
        self.admin = said.trim_end().rsplit_once("http://").unwrap().1.to_owned();
    }

    /// Waits until what it says of itself is such. Asked by a process that asks once a second: fifty nodes that start
    /// on a small machine have better to do than to answer.
    fn until(&self, home: &Home, what: &str, holds: impl Fn(&Word) -> bool) {
        if holds(&self.word()) {
            return;
        }
        let watch = Running::start(&mut home.command(["status", "--config", &self.config, "--json", "--watch"]));
        watch.until(&format!("{what} ({})", self.config), |output| {
            output
                .stdout
                .split_inclusive('\n')
                .next_back()
                .is_some_and(|line| line.ends_with('\n') && holds(&Word::of(&serde_json::from_str(line).unwrap())))
        });
    }

    fn word(&self) -> Word {
        let (code, status) = get(&self.admin, "/status");
        assert_eq!(code, 200, "{status}");
        Word::of(&serde_json::from_str(&status).unwrap())
    }
}

impl Word {
    fn of(status: &Value) -> Self {
        let peers = status["peers"].as_array().unwrap().iter().filter(|peer| peer["outbound"] == true);
        let links = peers.map(|peer| peer["peer_id"].as_str().unwrap().to_owned()).collect();
        Self { links, known: status["discovery"]["known"].as_u64().unwrap_or(0) }
    }
}

/// The links of each, as they are now; and from each node there is a way to every other.
fn links_of_one_network(members: &[Member]) -> BTreeMap<String, BTreeSet<String>> {
    let links: BTreeMap<_, _> = members.iter().map(|member| (member.peer.clone(), member.word().links)).collect();
    let linked = |a: &String, b: &String| links[a].contains(b) || links[b].contains(a);
    let mut reached = BTreeSet::from([members[0].peer.clone()]);
    let mut next: Vec<String> = reached.iter().cloned().collect();
    while let Some(from) = next.pop() {
        for peer in links.keys().filter(|peer| linked(&from, peer)) {
            if reached.insert(peer.clone()) {
                next.push(peer.clone());
            }
        }
    }
    assert_eq!(reached.len(), members.len(), "the network has fallen apart: {links:#?}");
    links
}

#[test]
fn fifty_nodes_join_by_one_seed_and_half_rejoin_after_it_is_dead() {
    let home = Home::empty(crate::PROGRAM);
    home.run(["genesis", "--out", "chain"]).ok();
    let ports = ports();
    let mut seed = Member::new(&home, 0, ports[0], None);
    seed.launch(&home);
    seed.up();
    let address = format!("{}@/ip4/127.0.0.1/tcp/{}", seed.peer, ports[0]);
    let mut members: Vec<_> =
        (1..NODES).map(|number| Member::new(&home, number, ports[number], Some(&address))).collect();
    let begun = Instant::now();
    members.iter_mut().for_each(|member| member.launch(&home));
    members.iter_mut().for_each(Member::up);
    eprintln!("{NODES} processes are up after {:.1} s", begun.elapsed().as_secs_f64());
    for member in &members {
        member.until(&home, "it knows all and has its links", |word| {
            word.known >= NODES as u64 - 2 && word.links.len() >= TARGET
        });
    }
    links_of_one_network(&members);
    eprintln!("and have joined after {:.1} s", begun.elapsed().as_secs_f64());

    let dead = seed.peer.clone();
    drop(seed);
    for member in &mut members[..RESTARTED] {
        // Killed.
        member.process = None;
    }
    let begun = Instant::now();
    members[..RESTARTED].iter_mut().for_each(|member| member.launch(&home));
    members[..RESTARTED].iter_mut().for_each(Member::up);
    eprintln!("{RESTARTED} are up again after {:.1} s", begun.elapsed().as_secs_f64());
    for member in &members {
        member.until(&home, "it has links again", |word| word.links.len() >= TARGET && !word.links.contains(&dead));
    }
    links_of_one_network(&members);
    eprintln!("and all {} are connected after {:.1} s", members.len(), begun.elapsed().as_secs_f64());
}

#[test]
fn a_node_that_knows_nobody_says_so_in_its_log_its_metrics_and_its_status() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let words = "no seed peer is configured and no peer is known";
    node.until("it says what is wrong", |output| {
        output.stderr.lines().any(|line| line.contains("WARN") && line.contains(words))
    });
    let (_, metrics) = get(&crate::node::admin(&home), "/metrics");
    let is_the_case = "soma_network_trouble{trouble=\"nobody-known\"} 1";
    assert!(metrics.lines().any(|line| line == is_the_case), "{metrics}");
    let shown = home.run(["status", "--config", "node.toml"]).ok();
    let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line("network ").contains(words), "{shown}");
    let (_, address) = listening(&node);
    assert!(line("told ").ends_with(&address), "{shown}");
    node.stop("TERM").ok();
}
