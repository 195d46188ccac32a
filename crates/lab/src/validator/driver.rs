//! Feeds the machine, and does what it asks for.

use super::{Work, progress::Progress, start};
use crate::consensus::{BlockLog, Config, Input, Machine, Output};
use bytes::Bytes;
use soma_p2p::{
    Author, CertifiedCommit, CommittedSubDag, FjallStore, Handle, MessageEvent, PublishError, SigningKey, Topic,
    types::{AuthorityIndex, Epoch},
};
use soma_p2p_cli::feed;
use soma_testkit::Users;
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, stdin},
    sync::mpsc,
};

/// Commits that wait for the node: the machine makes no more before they are durable.
const MAX_COMMITS: usize = 64;

/// Messages that wait to be published. Further ones are lost, as on the network; the machine sends again what matters.
const MAX_MESSAGES: usize = 256;

/// How often a message is signed again until Broadcast knows the epoch, and the pause between. It learns of an epoch a
/// moment after the machine.
const SIGN_ATTEMPTS: u32 = 400;
const SIGN_PAUSE: Duration = Duration::from_millis(5);

/// Time between two writes of the progress.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);

/// One validator.
pub(super) struct Validator {
    pub(super) own: AuthorityIndex,
    pub(super) key: SigningKey,
    pub(super) work: Work,
    pub(super) users: Users,
    pub(super) store: Arc<FjallStore>,
    pub(super) data_dir: PathBuf,
}

impl Validator {
    /// Takes part until standard input ends.
    pub(super) async fn run(self, handle: Handle) -> Result<(), String> {
        if self.work.rate == 0 {
            return feed::until_end().await;
        }
        let log_dir = self.data_dir.join("consensus");
        let (start, log) =
            tokio::task::block_in_place(|| start::load(&self.store, &log_dir)).map_err(|e| e.to_string())?;
        drop(self.store);
        let next = start.tip.index.saturating_add(1);
        let config = Config {
            own: self.own,
            key: self.key,
            commits_per_epoch: self.work.commits_per_epoch,
            pace_ms: (1_000 / u64::from(self.work.rate)).max(1),
        };
        let (mut users, count) = (self.users, self.work.transactions);
        let transactions = move |epoch| (0..count).map(|_| users.transaction(epoch)).collect();
        let machine = Machine::new(config, start, Box::new(transactions));
        tracing::info!(validator = self.own, epoch = machine.epoch(), round = machine.round(), "takes part from here");

        let (publish, payloads) = mpsc::channel(MAX_MESSAGES);
        let (commit, commits) = mpsc::channel(MAX_COMMITS);
        tokio::spawn(publish_each(handle.clone(), payloads));
        let mut committer = tokio::spawn(commit_each(handle.clone(), commits));
        let progress = Progress { pid: std::process::id(), ..Progress::default() };
        let mut driver = Driver {
            machine,
            log,
            publish,
            commit,
            own: self.own,
            started_ms: now_ms(),
            progress,
            written: None,
            data_dir: self.data_dir,
        };
        tokio::select! {
            ended = driver.run(&handle, next) => ended,
            failed = &mut committer => failed.unwrap_or_else(|panic| Err(panic.to_string())),
        }
    }
}

struct Driver {
    machine: Machine,
    log: BlockLog,
    publish: mpsc::Sender<(Epoch, Bytes)>,
    commit: mpsc::Sender<CertifiedCommit>,
    own: AuthorityIndex,
    started_ms: u64,
    progress: Progress,
    written: Option<Instant>,
    data_dir: PathBuf,
}

impl Driver {
    async fn run(&mut self, handle: &Handle, next: u32) -> Result<(), String> {
        let mut messages = handle.messages(Topic::Consensus);
        let mut commits = handle.observe_commits(next);
        let mut lines = BufReader::new(stdin()).lines();
        let mut has_stopped = false;
        loop {
            let pause = Duration::from_millis(self.machine.next_wake().saturating_sub(now_ms()));
            let input = tokio::select! {
                line = lines.next_line() => match line {
                    Ok(Some(_)) => {
                        has_stopped = true;
                        continue;
                    }
                    _ => return Ok(()),
                },
                commit = commits.next() => match commit {
                    Some(commit) => {
                        let commit = commit.map_err(|error| error.to_string())?;
                        self.note(&commit)?;
                        Input::Committed((*commit).clone())
                    }
                    None => return Ok(()),
                },
                event = messages.next() => match event {
                    Some(event) => match input_of(event) {
                        Some(input) => input,
                        None => continue,
                    },
                    None => return Ok(()),
                },
                () = tokio::time::sleep(pause), if !has_stopped => Input::Wake,
            };
            if !has_stopped {
                self.feed(input)?;
            }
        }
    }

    fn feed(&mut self, input: Input) -> Result<(), String> {
        for output in self.machine.handle(now_ms(), input) {
            match output {
                Output::Persist(blocks) => {
                    let persisted = tokio::task::block_in_place(|| self.log.append(&blocks));
                    persisted.map_err(|error| format!("blocks cannot be made durable: {error}"))?;
                }
                Output::Publish(payload) => {
                    if self.publish.try_send((self.machine.epoch(), payload)).is_err() {
                        tracing::warn!("a consensus message is lost: too many wait for the network");
                    }
                }
                Output::Commit(commit) => {
                    // The machine makes no more than have room. Peers have whatever is lost all the same.
                    let _ = self.commit.try_send(*commit);
                }
                Output::Failed(reason) => return Err(reason),
            }
        }
        Ok(())
    }

    /// Counts the blocks of this process in a durable commit.
    fn note(&mut self, commit: &CommittedSubDag) -> Result<(), String> {
        let own =
            commit.blocks.iter().filter(|block| block.author == self.own && block.timestamp_ms >= self.started_ms);
        self.progress.committed_blocks += own.count() as u64;
        self.progress.epoch = self.machine.epoch();
        self.progress.round = self.machine.round();
        if self.written.is_none_or(|written| written.elapsed() >= WRITE_INTERVAL) {
            self.written = Some(Instant::now());
            self.progress.write(&self.data_dir).map_err(|error| format!("the progress cannot be written: {error}"))?;
        }
        Ok(())
    }
}

fn input_of(event: MessageEvent) -> Option<Input> {
    match event {
        MessageEvent::Message(message) => {
            let message = message.message();
            let Author::Authority(author) = message.author else { return None };
            Some(Input::Message { author, payload: message.payload.clone() })
        }
        MessageEvent::Equivocation { second, .. } => {
            tracing::warn!(author = %second.message().author, "equivocates: two proposals of one round");
            None
        }
        MessageEvent::Gap { missed } => {
            tracing::warn!(missed, "consensus messages are missing; what they brought will be requested");
            None
        }
    }
}

/// Publishes messages in the epoch of the machine that made them.
async fn publish_each(handle: Handle, mut payloads: mpsc::Receiver<(Epoch, Bytes)>) {
    while let Some((epoch, payload)) = payloads.recv().await {
        let published = match sign_in(&handle, epoch, payload).await {
            Ok(Some(message)) => handle.publish_signed(vec![message]).await,
            // The epoch has ended meanwhile.
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = published {
            tracing::warn!(%error, "a consensus message is lost");
        }
    }
}

async fn sign_in(
    handle: &Handle,
    epoch: Epoch,
    payload: Bytes,
) -> Result<Option<soma_p2p::SignedMessage>, PublishError> {
    let mut attempts = 1;
    loop {
        let signed = handle.sign(Topic::Consensus, payload.clone());
        match signed {
            Ok(message) if message.message().epoch == epoch => return Ok(Some(message)),
            Ok(message) if message.message().epoch > epoch => return Ok(None),
            Ok(_) | Err(PublishError::Unavailable | PublishError::NotValidator { .. }) if attempts < SIGN_ATTEMPTS => {
                attempts += 1;
            }
            Ok(_) => return Ok(None),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(SIGN_PAUSE).await;
    }
}

/// Hands commits to the node, in order.
async fn commit_each(handle: Handle, mut commits: mpsc::Receiver<CertifiedCommit>) -> Result<(), String> {
    while let Some(commit) = commits.recv().await {
        let index = commit.commit.index;
        feed::offer(&handle, commit).await.map_err(|error| format!("the node refuses commit {index}: {error}"))?;
    }
    Ok(())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
