//! What every decoder promises for any input, with a fixed number of inputs: what `make fuzz` goes on with.

use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};
use soma_testkit::decoders::{Chain, DECODERS, Decoder};
use std::{collections::BTreeSet, env, fs, path::Path};

/// Inputs for each decoder and property.
const CASES: u32 = 256;

fn chain() -> Chain {
    Chain::build().expect("the spec makes a chain")
}

fn runner() -> TestRunner {
    TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })
}

/// A panic of a decoder has no name in it: this one has.
fn check(decoder: &Decoder, input: &[u8]) -> bool {
    let checked = std::panic::catch_unwind(|| (decoder.check)(input));
    checked.unwrap_or_else(|_| panic!("{} breaks a promise on {} bytes: {input:02x?}", decoder.name, input.len()))
}

/// One change of a byte string.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Set(Index, u8),
    Number(Index, u64, usize),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, Index, usize),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let number = prop_oneof![any::<u64>(), 0..300u64, Just(u64::MAX), Just(1 << 20), Just(u64::from(u32::MAX))];
    let one = prop_oneof![
        4 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        2 => (any::<Index>(), number, 1..9usize).prop_map(|(at, number, width)| Damage::Number(at, number, width)),
        1 => (any::<Index>(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<Index>(), 1..16usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (any::<Index>(), any::<Index>(), 1..64usize).prop_map(|(from, to, length)| Damage::Repeat(from, to, length)),
    ];
    vec(one, 1..5)
}

fn damaged(seed: &[u8], damage: &[Damage]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for change in damage {
        let len = bytes.len();
        if len == 0 {
            bytes.push(0);
            continue;
        }
        match change {
            Damage::Flip(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Damage::Set(at, byte) => bytes[at.index(len)] = *byte,
            Damage::Number(at, number, width) => {
                for (byte, new) in bytes[at.index(len)..].iter_mut().zip(number.to_le_bytes()).take(*width) {
                    *byte = new;
                }
            }
            Damage::Insert(at, inserted) => drop(bytes.splice(at.index(len)..at.index(len), inserted.clone())),
            Damage::Remove(at, length) => {
                let start = at.index(len);
                bytes.drain(start..(start + length).min(len));
            }
            Damage::Repeat(from, to, length) => {
                let start = from.index(len);
                let copied = bytes[start..(start + length).min(len)].to_vec();
                let to = to.index(len);
                bytes.splice(to..to, copied);
            }
        }
    }
    bytes
}

#[test]
fn every_seed_is_of_its_decoders_form() {
    let chain = chain();
    for decoder in DECODERS {
        let seeds = (decoder.seeds)(&chain);
        assert!(!seeds.is_empty(), "{} has no seeds", decoder.name);
        for (number, seed) in seeds.iter().enumerate() {
            // Some decoders try their input as several types, and an address may be of a kind that is not supported.
            let is_of_form = check(decoder, seed);
            assert!(is_of_form || decoder.name == "address" || decoder.name == "hex", "{} {number}", decoder.name);
            assert_eq!(is_of_form, (decoder.decode)(seed), "{} {number}", decoder.name);
        }
    }
}

#[test]
fn arbitrary_bytes_are_refused_or_keep_every_promise() {
    for decoder in DECODERS {
        let inputs = vec(any::<u8>(), 0..300);
        let run = runner().run(&inputs, |input| {
            check(decoder, &input);
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{}: {error}", decoder.name));
    }
}

#[test]
fn damaged_seeds_are_refused_or_keep_every_promise() {
    let chain = chain();
    for decoder in DECODERS {
        let seeds = (decoder.seeds)(&chain);
        let inputs = (any::<Index>(), damage());
        let run = runner().run(&inputs, |(seed, damage)| {
            check(decoder, &damaged(&seeds[seed.index(seeds.len())], &damage));
            Ok(())
        });
        run.unwrap_or_else(|error| panic!("{}: {error}", decoder.name));
    }
}

#[test]
fn seeds_that_are_cut_off_are_refused_or_keep_every_promise() {
    let chain = chain();
    for decoder in DECODERS {
        let mut seeds = (decoder.seeds)(&chain);
        seeds.sort_by_key(Vec::len);
        for seed in seeds.iter().take(3) {
            // The ends of long ones, where it is decided whether all is there, and steps in between.
            let step = (seed.len() / 300).max(1);
            for length in (0..seed.len()).filter(|length| length % step == 0 || length + 100 > seed.len()) {
                let is_of_form = check(decoder, &seed[..length]);
                assert!(
                    !(decoder.refuses_truncated && is_of_form),
                    "{} takes {length} of {} bytes for the whole",
                    decoder.name,
                    seed.len()
                );
            }
        }
    }
}

#[test]
fn every_decoder_has_a_fuzz_target_and_every_fuzz_target_a_decoder() {
    let crates = env::var("CARGO_MANIFEST_DIR").expect("cargo says where the crate is");
    let fuzz = Path::new(&crates).join("../../fuzz");
    let names: BTreeSet<String> = DECODERS.iter().map(|decoder| decoder.name.to_owned()).collect();
    assert_eq!(names.len(), DECODERS.len(), "each has a name of its own");
    let files = fs::read_dir(fuzz.join("fuzz_targets")).expect("the fuzz targets are in the repository");
    let targets: BTreeSet<String> = files
        .map(|file| file.expect("the directory can be listed").path())
        .map(|path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    assert_eq!(names, targets);
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the fuzz targets have a manifest");
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        let source = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).expect("it was listed");
        assert!(source.contains(&format!("target!(\"{name}\")")), "the target {name} is of another decoder");
    }
}
