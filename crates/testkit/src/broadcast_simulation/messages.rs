//! All messages that were ever made, and when they were delivered.

use super::event::Time;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use soma_protocol::broadcast::{MessageInfo, MessageVerdict};
use soma_types::{Author, Epoch, MessageId, Topic};
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A message.
pub(super) struct Record {
    pub(super) info: MessageInfo,
    pub(super) topic: Topic,
    /// What every check says.
    pub(super) verdict: MessageVerdict,
    /// The node that published it.
    pub(super) publisher: usize,
    pub(super) at: Time,
    /// Whether its deliveries are measured.
    pub(super) is_measured: bool,
    /// How long each measured delivery took, in microseconds.
    pub(super) delays: Vec<u32>,
    /// Nodes that should have it and do not.
    pub(super) missing: usize,
}

/// Ids are random: eight of their bytes are a hash.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 << 8) | u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// All messages, by their numbers. The index is never iterated.
#[derive(Default)]
pub(super) struct Messages {
    records: Vec<Record>,
    by_id: HashMap<u64, u32, BuildHasherDefault<IdHasher>>,
}

fn short(id: MessageId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What a message is made of.
#[derive(Clone, Copy)]
pub(super) struct New {
    pub(super) topic: Topic,
    pub(super) author: Author,
    pub(super) epoch: Epoch,
    pub(super) bytes: u32,
    pub(super) verdict: MessageVerdict,
    pub(super) publisher: usize,
    pub(super) is_measured: bool,
}

impl Messages {
    pub(super) fn add(&mut self, new: New, at: Time, rng: &mut ChaCha8Rng) -> u32 {
        let New { topic, author, epoch, bytes, verdict, publisher, is_measured } = new;
        let info = MessageInfo { id: MessageId(rng.random()), author, epoch, bytes };
        let number = self.records.len() as u32;
        self.by_id.insert(short(info.id), number);
        let record = Record { info, topic, verdict, publisher, at, is_measured, delays: Vec::new(), missing: 0 };
        self.records.push(record);
        number
    }

    pub(super) fn number(&self, id: MessageId) -> Option<u32> {
        self.by_id.get(&short(id)).copied()
    }

    pub(super) fn get(&self, number: u32) -> &Record {
        &self.records[number as usize]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Record {
        &mut self.records[number as usize]
    }

    pub(super) fn all(&self) -> &[Record] {
        &self.records
    }

    pub(super) fn payloads(&self, numbers: &[u32]) -> u64 {
        numbers.iter().map(|number| u64::from(self.get(*number).info.bytes)).sum()
    }
}
