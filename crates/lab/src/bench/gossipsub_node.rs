//! `soma-lab bench-gossipsub-node`: a node of libp2p's gossipsub, a process of its own, which does the same work as one
//! of this project.
//!
//! TCP, noise, yamux; messages are signed by their author, and every signature is checked (`ValidationMode::Strict`).
//! All other settings are the defaults of the crate. It speaks with the benchmark as `bench-node` does.

use super::{
    message_load::{GossipsubSetup, Load, Sent, Tally, WARM_UP, now_ns, payload},
    node_io::{Event, tell},
    usage,
};
use futures::{FutureExt, StreamExt};
use libp2p::{
    Multiaddr, Swarm, SwarmBuilder,
    gossipsub::Event as GossipsubEvent,
    gossipsub::{Behaviour, ConfigBuilder, IdentTopic, MessageAuthenticity, PublishError, ValidationMode},
    identity::Keypair,
    multiaddr::Protocol,
    noise,
    swarm::SwarmEvent,
    tcp, yamux,
};
use soma_p2p::{PeerId, SigningKey};
use soma_p2p_cli::CliError;
use std::{
    io::{self, BufRead, Read},
    net::Ipv4Addr,
    process::ExitCode,
    thread,
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};

/// How long the other node may take to subscribe.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// After it has: the mesh is made at the next heartbeat, once a second.
const SETTLE: Duration = Duration::from_secs(2);

/// Messages before anything is measured.
const WARM_UP_MESSAGES: u32 = 200;

/// Time between them.
const WARM_UP_INTERVAL: Duration = Duration::from_millis(2);

/// Messages after which events are looked at.
const LOOK_EVERY: u32 = 64;

/// How long a sender waits when its queue is full.
const QUEUE_FULL: Duration = Duration::from_millis(1);

/// After a load: what is in queues is sent meanwhile.
const BETWEEN_LOADS: Duration = Duration::from_millis(500);

/// Runs a node to its end.
pub(crate) fn run() -> Result<ExitCode, CliError> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(CliError::input)?;
    let setup: GossipsubSetup = serde_json::from_str(&line).map_err(CliError::input)?;
    let (stop, stopped) = oneshot::channel();
    thread::spawn(move || {
        let mut ignored = [0; 256];
        while io::stdin().lock().read(&mut ignored).is_ok_and(|count| count > 0) {}
        let _ = stop.send(());
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CliError::failed)?;
    runtime.block_on(async {
        let mut node = Node::start(&setup).await?;
        let working =
            async { if setup.spread.is_empty() { node.hear().await } else { node.spread(&setup.spread).await } };
        tokio::select! {
            failed = working => failed?,
            _ = stopped => {}
        }
        if setup.spread.is_empty() {
            tell(&Event::Heard { loads: node.tally.sums() })?;
        }
        tell(&Event::Stopped { cpu_s: usage::process_cpu_s(), peak_rss_mib: usage::peak_rss_mib() })
    })?;
    Ok(ExitCode::SUCCESS)
}

struct Node {
    swarm: Swarm<Behaviour>,
    topic: IdentTopic,
    tally: Tally,
}

impl Node {
    /// Listens, and dials the other node if there is one.
    async fn start(setup: &GossipsubSetup) -> Result<Self, CliError> {
        let key = Keypair::ed25519_from_bytes(setup.key).map_err(CliError::input)?;
        let topic = IdentTopic::new("bench");
        let config = ConfigBuilder::default().validation_mode(ValidationMode::Strict).build();
        let config = config.map_err(CliError::failed)?;
        let behaviour = Behaviour::new(MessageAuthenticity::Signed(key.clone()), config).map_err(CliError::failed)?;
        let transport = tcp::Config::new().nodelay(true);
        let swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(transport, noise::Config::new, yamux::Config::default)
            .map_err(CliError::failed)?
            .with_behaviour(|_| behaviour)
            .map_err(CliError::failed)?
            .build();
        let mut node = Self { swarm, topic, tally: Tally::default() };
        node.swarm.behaviour_mut().subscribe(&node.topic).map_err(CliError::failed)?;
        node.swarm.listen_on(loopback(0)).map_err(CliError::failed)?;
        let port = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = node.swarm.select_next_some().await {
                let tcp = |protocol| if let Protocol::Tcp(port) = protocol { Some(port) } else { None };
                break address.iter().find_map(tcp).ok_or_else(|| CliError::failed("no TCP port"))?;
            }
        };
        if let Some(port) = setup.dial {
            node.swarm.dial(loopback(port)).map_err(CliError::failed)?;
        }
        let address = format!("/ip4/127.0.0.1/tcp/{port}").parse().map_err(CliError::failed)?;
        tell(&Event::Ready { peer_id: PeerId::from(&SigningKey::from_bytes(&setup.key)), address })?;
        Ok(node)
    }

    /// Counts what comes.
    async fn hear(&mut self) -> Result<(), CliError> {
        loop {
            if let SwarmEvent::Behaviour(GossipsubEvent::Message { message, .. }) = self.swarm.select_next_some().await
            {
                self.tally.heard(&message.data, now_ns(), usage::process_cpu_s);
            }
        }
    }

    /// Sends all loads, then waits to be stopped.
    async fn spread(&mut self, loads: &[Load]) -> Result<(), CliError> {
        let subscribed = async {
            loop {
                if let SwarmEvent::Behaviour(GossipsubEvent::Subscribed { .. }) = self.swarm.select_next_some().await {
                    break;
                }
            }
        };
        timeout(CONNECT_TIMEOUT, subscribed).await.map_err(|_| CliError::failed("the other node did not subscribe"))?;
        self.pass(SETTLE).await;
        for message in 0..WARM_UP_MESSAGES {
            self.publish(payload(WARM_UP, message, 0, 64)).await?;
            self.pass(WARM_UP_INTERVAL).await;
        }
        for load in loads {
            self.pass(BETWEEN_LOADS).await;
            let (cpu_s, first_ns) = (usage::process_cpu_s(), now_ns());
            self.send(load).await?;
            let last_ns = now_ns();
            self.pass(BETWEEN_LOADS).await;
            let cpu_s = usage::process_cpu_s() - cpu_s;
            let (number, messages) = (load.number, load.messages);
            tell(&Event::Sent(Sent { number, messages, first_ns, last_ns, cpu_s }))?;
        }
        tell(&Event::AllSent)?;
        loop {
            self.swarm.select_next_some().await;
        }
    }

    async fn send(&mut self, load: &Load) -> Result<(), CliError> {
        let started = Instant::now();
        for message in 0..load.messages {
            if let Some(rate) = load.per_second {
                let due = started + Duration::from_secs(1) / rate * message;
                self.pass_until(due).await;
            }
            self.publish(payload(load.number, message, now_ns(), load.payload_bytes)).await?;
            if message % LOOK_EVERY == 0 {
                while self.swarm.select_next_some().now_or_never().is_some() {}
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Publishes a message once there is room for it.
    async fn publish(&mut self, payload: Vec<u8>) -> Result<(), CliError> {
        loop {
            match self.swarm.behaviour_mut().publish(self.topic.clone(), payload.clone()) {
                Ok(_) => return Ok(()),
                Err(PublishError::AllQueuesFull(_)) => self.pass(QUEUE_FULL).await,
                Err(error) => return Err(CliError::failed(error)),
            }
        }
    }

    /// Lets the node work for a while.
    async fn pass(&mut self, time: Duration) {
        let pausing = sleep(time);
        tokio::pin!(pausing);
        loop {
            tokio::select! {
                () = &mut pausing => return,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }

    /// Lets the node work until a time.
    async fn pass_until(&mut self, due: Instant) {
        let pausing = sleep_until(due);
        tokio::pin!(pausing);
        loop {
            tokio::select! {
                () = &mut pausing => return,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }
}

fn loopback(port: u16) -> Multiaddr {
    Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(port))
}
