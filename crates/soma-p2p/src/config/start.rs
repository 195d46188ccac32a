//! Where a node begins.

use super::schema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use soma_protocol::state_sync;
use soma_types::{CommitDigest, CommitIndex, CommitRef};
use std::{borrow::Cow, path::PathBuf};

/// Where a node with an empty store begins. A store that holds commits goes on where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Setting", into = "Setting")]
pub enum Start {
    /// With commit 1.
    #[default]
    Genesis,
    /// After the last epoch that has ended. Epoch proofs lead there from the genesis, without the commits between.
    LatestEpoch,
    /// After this commit, the last of an epoch. Epoch proofs lead there from the genesis, and must have this digest.
    Commit(CommitRef),
    /// After the epoch of this checkpoint file. The node trusts the file's committee.
    Checkpoint(PathBuf),
}

impl Start {
    /// For the core. A checkpoint is taken before the core starts.
    pub(crate) fn core(&self) -> state_sync::Start {
        match self {
            Self::Genesis | Self::Checkpoint(_) => state_sync::Start::Genesis,
            Self::LatestEpoch => state_sync::Start::LatestEpoch,
            Self::Commit(commit) => state_sync::Start::After(*commit),
        }
    }
}

impl JsonSchema for Start {
    fn schema_name() -> Cow<'static, str> {
        "Start".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Setting::json_schema(generator)
    }
}

/// The forms of the setting.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "start must be \"genesis\", \"latest-epoch\", { commit = INDEX, digest = \"64 HEX DIGITS\" } or \
                 { checkpoint = \"FILE\" }"
)]
enum Setting {
    Named(Named),
    Commit(Commit),
    Checkpoint(Checkpoint),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Named {
    Genesis,
    LatestEpoch,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Commit {
    commit: CommitIndex,
    #[schemars(with = "schema::Hex")]
    digest: CommitDigest,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    checkpoint: PathBuf,
}

impl From<Setting> for Start {
    fn from(setting: Setting) -> Self {
        match setting {
            Setting::Named(Named::Genesis) => Self::Genesis,
            Setting::Named(Named::LatestEpoch) => Self::LatestEpoch,
            Setting::Commit(Commit { commit: index, digest }) => Self::Commit(CommitRef { index, digest }),
            Setting::Checkpoint(Checkpoint { checkpoint }) => Self::Checkpoint(checkpoint),
        }
    }
}

impl From<Start> for Setting {
    fn from(start: Start) -> Self {
        match start {
            Start::Genesis => Self::Named(Named::Genesis),
            Start::LatestEpoch => Self::Named(Named::LatestEpoch),
            Start::Commit(CommitRef { index: commit, digest }) => Self::Commit(Commit { commit, digest }),
            Start::Checkpoint(checkpoint) => Self::Checkpoint(Checkpoint { checkpoint }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn every_start_survives_a_round_trip_through_toml() {
        let commit = CommitRef { index: 7, digest: CommitDigest([7; 32]) };
        let starts = [Start::Genesis, Start::LatestEpoch, Start::Commit(commit), Start::Checkpoint("a.bin".into())];
        for start in starts {
            let config = Config { start: start.clone(), ..Config::default() };
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<Config>(&text).unwrap().start, start, "{text}");
        }
        let written = format!("start = {{ commit = 7, digest = \"{}\" }}\n", commit.digest);
        assert_eq!(toml::from_str::<Config>(&written).unwrap().start, Start::Commit(commit));
    }

    #[test]
    fn start_of_no_known_form_is_an_error_that_lists_the_forms() {
        for wrong in ["\"latest\"", "7", "{ commit = 7 }", "{ checkpoint = \"a\", commit = 7 }"] {
            let error = toml::from_str::<Config>(&format!("start = {wrong}\n")).unwrap_err().to_string();
            assert!(error.contains("\"latest-epoch\"") && error.contains("checkpoint"), "{wrong}: {error}");
        }
    }

    #[test]
    fn genesis_is_no_trusted_commit() {
        let commit = CommitRef { index: 0, digest: CommitDigest([7; 32]) };
        let error = Config { start: Start::Commit(commit), ..Config::default() }.validate().unwrap_err();
        assert_eq!(error.key, "start.commit");
    }

    #[test]
    fn backfill_beside_a_pruning_window_or_without_room_is_an_error() {
        let config = Config { backfill: true, ..Config::default() };
        assert_eq!(config.validate(), Ok(()));
        assert!(toml::from_str::<Config>("backfill = true\n").unwrap().backfill);
        let mut pruned = config.clone();
        pruned.pruning.epochs = Some(3);
        let error = pruned.validate().unwrap_err();
        assert_eq!(error.key, "backfill");
        assert!(error.rule.contains("pruning.epochs"), "{error}");
        let mut small = config;
        small.state_sync.bytes_in_flight = small.state_sync.bytes_per_range;
        assert!(small.validate().unwrap_err().rule.contains("bytes_in_flight"));
    }
}
