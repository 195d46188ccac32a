//! Traces and configuration files.

use super::{decoder::Decoder, seeds::Chain};
use soma_p2p::Config;
use soma_protocol::{
    Core, Now, peer_heights,
    state_sync::{self, StateSync, Tip},
    store_writer::{self, StoreWriter},
};
use soma_replay::{Header, Item, Options, Origin, Record, Recorder, Trace, json, replay};
use soma_types::PeerId;
use std::time::Duration;

fn header() -> Header {
    Header { software: String::new(), run: 1, file: 0 }
}

/// A trace file with this payload as its one record. Its checksum is wrong, which a reader says, and reads it all the
/// same.
fn file_with(payload: &[u8]) -> Vec<u8> {
    let mut file = Trace::write(&header(), []);
    file.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    file.extend_from_slice(&[0; 8]);
    file.extend_from_slice(payload);
    file
}

/// The state of a core is whatever a record says: what it then shows of itself, and what it makes of messages, may be
/// nonsense, but ends.
fn shows(trace: &Trace) {
    for line in json(trace) {
        assert!(line.is_object(), "each item is shown");
    }
    // Without cores: one that is made of a made-up state may panic as a live one may, which replay reports.
    let options = Options { actor: Some("none".into()), until: None };
    let _ = replay(trace, &options, &mut |_| ());
}

fn story(chain: &Chain) -> Vec<u8> {
    let (recorder, mut trace) = Recorder::in_memory(1);
    let at = |ms| Now { monotonic: Duration::from_millis(ms), unix_ms: ms };
    let genesis = chain.genesis.commit().reference();
    let tip = Tip { commit: genesis, timestamp_ms: 0, next_epoch: 0 };
    let mut sync = StateSync::new(state_sync::Config::default(), tip);
    if let Some(mut track) = recorder.track::<StateSync>() {
        let target = state_sync::Input::Target(peer_heights::Target { highest: 200, proven: 0, doubt: None });
        let (cause, effects) = track.handle(&mut sync, at(1), Origin::root("peer-heights"), target);
        let origin = Origin { cause: Some(cause), ..Origin::root("peer-heights") };
        let peer = Ok(PeerId::from(&chain.network_key));
        for effect in effects {
            if let state_sync::Effect::Pick { key, .. } = effect {
                track.handle(&mut sync, at(2), origin.clone(), state_sync::Input::Picked { key, peer });
            }
        }
    }
    if let Some(mut track) = recorder.track::<StoreWriter>() {
        let mut writer = StoreWriter::default();
        track.handle(&mut writer, at(3), Origin::root("state-sync"), store_writer::Input::Submit { job: 1 });
    }
    recorder.ended(StateSync::NAME, at(4), &"stopped");
    trace.bytes().to_vec()
}

pub(crate) const TRACE: Decoder = Decoder {
    name: "trace",
    decode: |bytes| Trace::from_bytes(bytes).is_ok(),
    check: |bytes| {
        let Ok(trace) = Trace::from_bytes(bytes) else { return false };
        shows(&trace);
        let again = Trace::write(&header(), trace.records());
        let again = Trace::from_bytes(&again).expect("what was read can be written and read again");
        assert!(again.records().eq(trace.records()), "records come back");
        true
    },
    seeds: |chain| {
        let story = story(chain);
        let records: Vec<Record> = Trace::from_bytes(&story).iter().flat_map(Trace::records).cloned().collect();
        let mut seeds = vec![story];
        seeds.extend(records.iter().map(|record| Trace::write(&header(), [record])));
        seeds
    },
    // A torn end is read up to it.
    refuses_truncated: false,
};

pub(crate) const TRACE_RECORD: Decoder = Decoder {
    name: "trace_record",
    decode: |payload| {
        let trace = Trace::from_bytes(&file_with(payload));
        trace.is_ok_and(|trace| {
            trace.items.iter().any(|item| matches!(item, Item::Damaged(found) if found.says.is_some()))
        })
    },
    check: |payload| {
        // Longer ones are no records.
        if payload.len() > soma_replay::MAX_RECORD_BYTES {
            return false;
        }
        let trace = Trace::from_bytes(&file_with(payload)).expect("the header is in order");
        shows(&trace);
        let says = trace.items.iter().find_map(|item| match item {
            Item::Damaged(damage) => damage.says.as_ref(),
            _ => None,
        });
        let Some(record) = says else { return false };
        let again = Trace::from_bytes(&Trace::write(&header(), [record])).expect("a record can be written");
        assert!(again.records().eq([record]), "a record comes back");
        // By itself it is in order: its core is made and shown.
        shows(&again);
        true
    },
    seeds: |chain| {
        // The payload of each record, behind the header and its frame.
        let start = Trace::write(&header(), []).len() + 12;
        let records: Vec<Record> = Trace::from_bytes(&story(chain)).iter().flat_map(Trace::records).cloned().collect();
        records.iter().map(|record| Trace::write(&header(), [record])[start..].to_vec()).collect()
    },
    refuses_truncated: true,
};

pub(crate) const CONFIG: Decoder = Decoder {
    name: "config",
    decode: |bytes| std::str::from_utf8(bytes).is_ok_and(|text| toml::from_str::<Config>(text).is_ok()),
    check: |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let Ok(config) = toml::from_str::<Config>(text) else { return false };
        if config.validate().is_ok() {
            let again = toml::to_string(&config).expect("a valid configuration can be written");
            assert_eq!(toml::from_str::<Config>(&again).as_ref(), Ok(&config), "a configuration comes back");
        }
        true
    },
    seeds: |chain| {
        let written = toml::to_string(&Config::default()).expect("the defaults can be written");
        let peer = PeerId::from(&chain.network_key);
        let short = format!(
            "listen = \"/ip4/127.0.0.1/tcp/0\"\nseed_peers = [\"{peer}@/dns/node.example/tcp/9000\"]\nrole = \"validator\"\n\
             [state_sync]\nrequest_timeout = \"250ms\"\n[trace]\ndirectory = \"trace\"\nring_mib = 1\n"
        );
        vec![written.into_bytes(), short.into_bytes()]
    },
    refuses_truncated: false,
};
