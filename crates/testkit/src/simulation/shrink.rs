//! Makes a failing scenario smaller while it still fails.

use crate::simulation::{event::Event, scenario::Scenario};

/// What shrinking came to.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest scenario found that still fails.
    pub scenario: Scenario,
    /// Runs that it took.
    pub runs: usize,
}

/// Drops events, settings, nodes and commits one after the other, for as long as `still_fails` says so of what is
/// left, in at most `max_runs` runs. Greedy: what cannot be dropped now may be once something else is gone, so it goes
/// round until nothing can be dropped any more.
pub fn shrink(scenario: &Scenario, max_runs: usize, mut still_fails: impl FnMut(&Scenario) -> bool) -> Shrunk {
    let mut shrunk = Shrunk { scenario: scenario.clone(), runs: 0 };
    loop {
        let before = shrunk.scenario.clone();
        let mut next = 0;
        // Made anew after each success: what can be dropped is counted in what is left.
        while let Some(smaller) = smaller_ones(&shrunk.scenario).into_iter().nth(next) {
            if shrunk.runs == max_runs {
                return shrunk;
            }
            shrunk.runs += 1;
            match still_fails(&smaller) {
                true => shrunk.scenario = smaller,
                false => next += 1,
            }
        }
        if shrunk.scenario == before {
            return shrunk;
        }
    }
}

/// Scenarios that are smaller in one respect, those that save most first.
fn smaller_ones(scenario: &Scenario) -> Vec<Scenario> {
    let mut smaller = Vec::new();
    let mut add = |change: &dyn Fn(&mut Scenario)| {
        let mut changed = scenario.clone();
        change(&mut changed);
        if changed != *scenario {
            smaller.push(changed);
        }
    };
    add(&|smaller| smaller.events.clear());
    add(&|smaller| smaller.settings.clear());
    add(&|smaller| smaller.full_nodes /= 2);
    add(&|smaller| smaller.full_nodes = smaller.full_nodes.saturating_sub(1));
    add(&|smaller| smaller.validators = smaller.validators.div_ceil(2));
    add(&|smaller| smaller.validators = (smaller.validators - 1).max(1));
    add(&|smaller| smaller.live_commits = 0);
    add(&|smaller| cut_chain(smaller, smaller.commits / 2));
    add(&|smaller| cut_chain(smaller, smaller.commits - smaller.commits / 8));
    add(&|smaller| cut_chain(smaller, smaller.commits.saturating_sub(1)));
    add(&|smaller| smaller.loss_percent = 0.0);
    let usual = Scenario::named("");
    add(&|smaller| smaller.latency = usual.latency.clone());
    add(&|smaller| smaller.topology = usual.topology);
    add(&|smaller| smaller.commits_per_epoch = usual.commits_per_epoch);
    for position in 0..scenario.events.len() {
        add(&|smaller| drop(smaller.events.remove(position)));
    }
    for (position, (_, event)) in scenario.events.iter().enumerate() {
        if let Event::ActorFault { .. } = event {
            add(&|smaller| {
                if let Event::ActorFault { nth, .. } = &mut smaller.events[position].1 {
                    *nth = 1;
                }
            });
        }
    }
    for key in scenario.settings.keys() {
        add(&|smaller| drop(smaller.settings.remove(key)));
    }
    smaller
}

fn cut_chain(scenario: &mut Scenario, commits: u32) {
    scenario.commits = commits.max(1);
    scenario.live_commits = scenario.live_commits.min(scenario.commits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::{full, secs, validator};

    fn large() -> Scenario {
        Scenario::named("a large one")
            .validators(7)
            .full_nodes(5)
            .commits(300)
            .loss_percent(2.0)
            .set("state_sync.max_workers", 1)
            .set("connections.max_dials", 1)
            .at(secs(1))
            .crash(full(3))
            .at(secs(2))
            .partition([validator(0)])
            .at(secs(3))
            .heal()
    }

    #[test]
    fn what_a_failure_does_not_need_is_dropped() {
        let fails = |scenario: &Scenario| {
            let heals = scenario.events.iter().any(|(_, event)| *event == Event::Heal);
            heals && scenario.settings.contains_key("connections.max_dials") && scenario.commits >= 10
        };
        let shrunk = shrink(&large(), 1_000, fails);
        let scenario = shrunk.scenario;
        assert_eq!((scenario.validators, scenario.full_nodes, scenario.commits), (1, 0, 10));
        assert_eq!(scenario.events, [(secs(3), Event::Heal)]);
        assert_eq!(scenario.settings.len(), 1);
        assert_eq!(scenario.loss_percent, 0.0);
    }

    #[test]
    fn shrinking_ends_when_its_runs_are_used_up() {
        let shrunk = shrink(&large(), 3, |_| true);
        assert_eq!(shrunk.runs, 3);
    }
}
