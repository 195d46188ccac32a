//! What liars change in their answers on the way out.

use crate::{
    flip_bit,
    simulation::{Lie, network::SimNetwork},
};
use bytes::Bytes;
use soma_wire::{Availability, CallError, FetchedCommits, Status};
use std::future::pending;

/// Claims every commit there can be.
const EVERYTHING: u32 = u32::MAX;

pub(super) fn availability(lie: Option<Lie>, said: Availability) -> Availability {
    match lie {
        Some(Lie::ClaimsEverything) => Availability { highest_synced: EVERYTHING, ..said },
        _ => said,
    }
}

/// What a liar says that it has when it tells of a commit.
pub(super) fn pushed(lie: Option<Lie>, index: u32) -> u32 {
    if lie == Some(Lie::ClaimsEverything) { EVERYTHING } else { index }
}

/// Whether the request for commits or blocks is answered at all, or with what is there.
pub(super) async fn before_serving(lie: Option<Lie>) -> Result<(), CallError> {
    match lie {
        Some(Lie::NeverAnswers) => pending().await,
        Some(Lie::ServesNothing) => Err(CallError::new(Status::NotFound, "not here")),
        _ => Ok(()),
    }
}

pub(super) fn commits(lie: Option<Lie>, mut answer: FetchedCommits, network: &SimNetwork) -> FetchedCommits {
    if lie == Some(Lie::FlipsCommits) {
        flip_one(&mut answer.commits, network);
    }
    answer
}

/// One chunk of a stream of blocks, and whether the stream goes on behind it.
pub(super) fn chunk(lie: Option<Lie>, mut blocks: Vec<Bytes>, network: &SimNetwork) -> (Vec<Bytes>, bool) {
    match lie {
        Some(Lie::FlipsBlocks) => flip_one(&mut blocks, network),
        Some(Lie::EndsStreamsEarly) => {
            blocks.truncate(1);
            return (blocks, false);
        }
        _ => {}
    }
    (blocks, true)
}

fn flip_one(values: &mut [Bytes], network: &SimNetwork) {
    let chosen = network.random_below(values.len());
    if let Some(value) = values.get_mut(chosen) {
        *value = flip_bit(value, network.random_below(value.len() * 8));
    }
}
