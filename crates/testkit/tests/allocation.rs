//! Decoding takes memory in proportion to the input, whatever lengths it claims.
//!
//! One binary with one test: an allocator that counts what this thread holds stands in for the system's.

// A global allocator is an unsafe trait. This one passes everything on to the system's, and counts.
#![allow(unsafe_code)]

use soma_testkit::decoders::{Chain, DECODERS, Decoder};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// Bytes held for each byte of input. The most that is needed is for lists of short entries, which have a header of a
/// few words each in memory, in a vector that has just been made twice as long.
const FACTOR: usize = 48;

/// The same for what the operator writes: a tree of TOML has a word or two more for each of its values.
const CONFIG_FACTOR: usize = 96;

/// Bytes held whatever the input is: what lists begin with, before their first element has been read.
const CONSTANT: usize = 16 << 10;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

// `realloc` and `alloc_zeroed` are the trait's own, by these two: while a vector grows, both of its places are held.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // While the thread ends there is nothing left to count with, and nothing to measure.
        let _ = HELD.try_with(|held| {
            held.set(held.get().wrapping_add(layout.size()));
            MOST.with(|most| most.set(most.get().max(held.get())));
        });
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get().wrapping_sub(layout.size())));
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most that was held at any time while `decoder` decoded `input`.
fn held_for(decoder: &Decoder, input: &[u8]) -> usize {
    // From a middle, since what others made may be freed in between.
    const START: usize = usize::MAX / 2;
    HELD.set(START);
    MOST.set(START);
    (decoder.decode)(input);
    MOST.get() - START
}

/// Lengths that claim a lot, in the ways in which they are written: fixed or varying, from either end, and just below
/// the limits at which they would be refused.
fn claims() -> Vec<Vec<u8>> {
    let mut claims = Vec::new();
    for claim in [100_000u64, 500_000, 1 << 20, 3 << 20, (4 << 20) - 200, 15 << 20, 1 << 30, 1 << 40, u64::MAX] {
        claims.push(claim.to_le_bytes().to_vec());
        claims.push(claim.to_be_bytes().to_vec());
        // bincode's varying width: a mark, then as many bytes.
        claims.push([&[253][..], &claim.to_le_bytes()].concat());
        if let Ok(claim) = u32::try_from(claim) {
            claims.push(claim.to_le_bytes().to_vec());
            claims.push(claim.to_be_bytes().to_vec());
            claims.push([&[252][..], &claim.to_le_bytes()].concat());
        }
        // Protobuf's: seven bits in each byte.
        let mut rest = claim;
        let mut varint = Vec::new();
        while rest >= 0x80 {
            varint.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        varint.push(rest as u8);
        claims.push(varint);
        // ASN.1's: a mark with the number of bytes.
        if let Ok(claim) = u32::try_from(claim) {
            claims.push([&[0x84][..], &claim.to_be_bytes()].concat());
        }
    }
    claims
}

/// `input` with each claim written over what is at `position`, and put in there.
fn claiming(input: &[u8], position: usize, claims: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (before, behind) = input.split_at(position);
    let over = claims.iter().map(|claim| [before, claim, behind.get(claim.len()..).unwrap_or_default()].concat());
    let inserted = claims.iter().map(|claim| [before, claim, behind].concat());
    over.chain(inserted).collect()
}

/// Long inputs of the shortest entries, on their own and behind a seed.
fn dense(seed: &[u8]) -> Vec<Vec<u8>> {
    const BYTES: usize = 256 << 10;
    let entries: [&[u8]; 14] = [
        &[0],
        &[0xff],
        &[0x0a, 0],
        &[0x12, 0],
        &[0x1a, 0],
        &[0x30, 0],
        &[0x30, 0x80],
        &[1, 0, 0, 0, 0, 0, 0, 0],
        b"[",
        b"[[a]]\n",
        b"{a=",
        b"a.",
        b"\n",
        b"/ip4/1.1.1.1",
    ];
    let repeated = |entry: &[u8]| entry.repeat(BYTES / entry.len());
    entries.iter().flat_map(|entry| [repeated(entry), [seed, &repeated(entry)].concat()]).collect()
}

/// A list of as many empty entries as fit into `bytes`, where the length of a list is at `at` of `head`.
fn full_of_empty(head: &[u8], at: usize, entry: usize, bytes: usize) -> Vec<u8> {
    let count = (bytes - head.len()) / entry;
    let mut input = [head, &vec![0; count * entry]].concat();
    input[at..at + 8].copy_from_slice(&(count as u64).to_le_bytes());
    input
}

#[test]
fn decoder_memory_is_proportional_to_input_not_to_claimed_lengths() {
    let chain = Chain::build().expect("the spec makes a chain");
    let claims = claims();
    let mut broken = Vec::new();
    for decoder in DECODERS {
        let mut seeds = (decoder.seeds)(&chain);
        seeds.sort_by_key(Vec::len);
        seeds.dedup_by_key(|seed| seed.len());
        let factor = if decoder.name == "config" { CONFIG_FACTOR } else { FACTOR };
        let mut worst = (0, 0, 0);
        let mut try_all = |inputs: Vec<Vec<u8>>| {
            for input in inputs {
                let held = held_for(decoder, &input);
                let over = held.saturating_sub(factor * input.len());
                worst = worst.max((over, held, input.len()));
            }
        };
        for seed in seeds.iter().take(4) {
            try_all(vec![seed.clone()]);
            // Every position of the first, where the heads of lists are, and steps behind.
            let step = (seed.len() / 60).max(1);
            for position in (0..seed.len()).filter(|position| *position < 100 || position % step == 0) {
                try_all(claiming(seed, position, &claims));
            }
        }
        if let Some(seed) = seeds.first() {
            try_all(dense(seed));
        }
        match decoder.name {
            // A block of transactions without a byte: 8 bytes each on the wire, in a body of 24 bytes and empty lists.
            "block" => {
                let body = full_of_empty(&[0; 24 + 8 + 8], 24 + 8, 8, (1 << 20) - 9 - 64);
                try_all(vec![[&body[..], &[0; 9 + 64]].concat()]);
            }
            // An answer that is as long as one may be.
            "message" => try_all(vec![[0x0a, 0].repeat(6 << 20), [0x12, 0].repeat(6 << 20)]),
            _ => {}
        }
        let (over, held, bytes) = worst;
        println!("{}: {over} bytes over {factor} times the input at most ({held} for {bytes})", decoder.name);
        if over > CONSTANT {
            broken.push(format!("{} holds {held} bytes for an input of {bytes}", decoder.name));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
