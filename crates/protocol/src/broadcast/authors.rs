//! The tree of each author: from which link its messages come, and over which links they go on.
//!
//! ```text
//!   first message of an author --> pushed over a few links (`eager`)
//!   a copy comes again         --> `prune` goes back: one link remains that pushes (`source`)
//!   `prune` comes in           --> that link is no longer eager
//!   `graft` comes in           --> it is
//! ```
//!
//! What remains is a tree of the fastest paths for each author. A node that gets a message only because it asked for it
//! grafts the link over which it came.

use super::{
    hashing::{HashKey, KeyedMap},
    link_set::{LinkSet, Slot},
};
use rand::{RngExt, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use soma_types::Author;
use std::{collections::BTreeSet, time::Duration};

/// Authors of one topic whose trees are known. One that has not been heard of for long makes room for a new one. Each
/// takes about 300 bytes.
const MAX_AUTHORS: usize = 2_048;

/// Links over which one author's messages are pushed. A tree rarely needs more, and peers that surround this node get
/// no more of its bandwidth.
const MAX_EAGER: usize = 32;

/// Eager links that an author keeps for its own messages.
const MIN_OWN_EAGER: usize = 4;

/// Copies that come this long after the first `prune` are on purpose.
const PRUNE_GRACE: Duration = Duration::from_secs(2);

/// Time between two repetitions of `prune` for an author: the peer may have forgotten the first.
const PRUNE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Messages of an author after which another link is tried: it becomes the source if it is faster. Costs one copy.
const TRY_AFTER: u32 = 64;

/// Time between two attempts to replace the source of an author by a faster link.
const REPLACE_AFTER: Duration = Duration::from_secs(1);

/// An author is active for this long after a message.
const ACTIVE_FOR: Duration = Duration::from_secs(10);

/// The tree of a new author takes shape for this long.
const SETTLES_IN: Duration = Duration::from_secs(2);

/// The number of an author in the table.
pub(super) type AuthorKey = u32;

/// What this node knows of one author's tree.
#[derive(Serialize, Deserialize)]
pub(super) struct Tree {
    author: Author,
    /// Links over which its messages are pushed.
    pub(super) eager: LinkSet,
    /// The link that pushes its messages to this node.
    source: Option<Slot>,
    /// Links that were asked not to push.
    pruned: LinkSet,
    /// Links that asked this node not to push.
    refused: LinkSet,
    /// Whether this node has published for it.
    is_own: bool,
    /// Whether its messages have been pushed over the links of a new author.
    was_pushed: bool,
    /// Of the clock that selects the author to forget.
    is_recent: bool,
    last_prune: Duration,
    next_prune: Duration,
    next_replacement: Duration,
    untried: u32,
    settled_at: Duration,
    active_until: Duration,
}

/// The trees of the authors of one topic.
#[derive(Serialize, Deserialize)]
pub(super) struct Authors {
    index: KeyedMap<Author, AuthorKey>,
    trees: Vec<Tree>,
    hand: usize,
    /// Authors for which this node has published.
    own: BTreeSet<AuthorKey>,
}

/// What to do about a link that sent a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// Nothing: it is the source.
    Expected,
    /// It is still on its way.
    Late,
    /// Ask it not to push.
    Prune,
    /// It was asked long ago. Ask again if `again`.
    Useless { again: bool },
}

impl Authors {
    pub(super) fn new(rng: &mut ChaCha8Rng) -> Self {
        Self { index: KeyedMap::new(HashKey::new(rng)), trees: Vec::new(), hand: 0, own: BTreeSet::new() }
    }

    pub(super) fn find(&self, author: &Author) -> Option<AuthorKey> {
        self.index.get(author)
    }

    pub(super) fn tree(&mut self, key: AuthorKey) -> Option<&mut Tree> {
        self.trees.get_mut(key as usize)
    }

    /// The author's tree, and whether it is new. A new one pushes over `eager`.
    pub(super) fn touch(&mut self, now: Duration, author: Author, eager: &LinkSet) -> (&mut Tree, bool) {
        let known = self.index.get(&author);
        let key = known.unwrap_or_else(|| self.insert(now, author, eager)) as usize;
        let tree = &mut self.trees[key];
        // Authors of one message only make room first.
        tree.is_recent |= known.is_some() && tree.active_until < now + ACTIVE_FOR;
        tree.active_until = now + ACTIVE_FOR;
        (tree, known.is_none())
    }

    fn insert(&mut self, now: Duration, author: Author, eager: &LinkSet) -> AuthorKey {
        let tree = Tree::new(now, author, *eager);
        if self.trees.len() < MAX_AUTHORS {
            self.trees.push(tree);
            let key = (self.trees.len() - 1) as AuthorKey;
            self.index.insert(author, key);
            return key;
        }
        // Second chance: an author with a message since the hand passed last stays for another round.
        while std::mem::take(&mut self.trees[self.hand].is_recent) {
            self.hand = (self.hand + 1) % MAX_AUTHORS;
        }
        let key = self.hand;
        self.index.remove(&self.trees[key].author);
        self.trees[key] = tree;
        self.index.insert(author, key as AuthorKey);
        self.hand = (self.hand + 1) % MAX_AUTHORS;
        key as AuthorKey
    }

    /// The number stands for another validator now.
    pub(super) fn reset(&mut self, now: Duration, author: &Author, eager: &LinkSet) {
        if let Some(key) = self.index.get(author) {
            self.trees[key as usize] = Tree::new(now, *author, *eager);
        }
    }

    /// Removes a link from all trees. Returns active authors that have no source now, with links to graft instead.
    pub(super) fn link_closed(
        &mut self,
        now: Duration,
        slot: Slot,
        usable: &LinkSet,
        rng: &mut ChaCha8Rng,
    ) -> Vec<(Author, Slot)> {
        let mut grafts = Vec::new();
        for tree in &mut self.trees {
            tree.eager.remove(slot);
            tree.pruned.remove(slot);
            tree.refused.remove(slot);
            if tree.source != Some(slot) {
                continue;
            }
            tree.source = None;
            if now >= tree.active_until || tree.is_own {
                continue;
            }
            // A link that was pruned had the messages, too. One that this node pushes over may have them from here.
            let candidates = usable.without(&tree.eager);
            let pushed_before = candidates.and(&tree.pruned);
            let candidates = if pushed_before.is_empty() { candidates } else { pushed_before };
            if let Some(link) = candidates.iter().choose(rng) {
                tree.graft(link);
                grafts.push((tree.author, link));
            }
        }
        grafts
    }

    /// This node publishes for the author.
    pub(super) fn set_own(&mut self, author: &Author) {
        if let Some(key) = self.index.get(author) {
            self.trees[key as usize].is_own = true;
            self.own.insert(key);
        }
    }

    /// Gives this node's own authors enough eager links.
    pub(super) fn top_up(&mut self, now: Duration, usable: &LinkSet, rng: &mut ChaCha8Rng) {
        let trees = &mut self.trees;
        self.own.retain(|key| trees.get(*key as usize).is_some_and(|tree| tree.is_own));
        for key in &self.own {
            let Some(tree) = trees.get_mut(*key as usize) else { continue };
            if tree.eager.len() >= MIN_OWN_EAGER || now < tree.settled_at || now >= tree.active_until {
                continue;
            }
            let others = usable.without(&tree.eager);
            let willing = others.without(&tree.refused);
            if willing.is_empty() {
                tree.refused = LinkSet::default();
            }
            if let Some(link) = willing.iter().choose(rng) {
                tree.eager.insert(link);
            }
        }
    }

    /// Links that are the source of at least one active author.
    pub(super) fn sources(&self, now: Duration) -> LinkSet {
        LinkSet::of(self.trees.iter().filter(|tree| now < tree.active_until).filter_map(|tree| tree.source))
    }
}

impl Tree {
    fn new(now: Duration, author: Author, eager: LinkSet) -> Self {
        Self {
            author,
            eager,
            source: None,
            pruned: LinkSet::default(),
            refused: LinkSet::default(),
            is_own: false,
            was_pushed: !eager.is_empty(),
            is_recent: false,
            last_prune: Duration::ZERO,
            next_prune: Duration::ZERO,
            next_replacement: Duration::ZERO,
            untried: 0,
            settled_at: now + SETTLES_IN,
            active_until: now + ACTIVE_FOR,
        }
    }

    /// Whether the tree still takes shape.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        now < self.settled_at
    }

    /// Pushes over these links, like the messages of a new author, if none was pushed before.
    pub(super) fn push_first(&mut self, eager: &LinkSet) {
        if !self.was_pushed {
            self.eager = self.eager.union(eager);
            self.was_pushed = true;
        }
    }

    pub(super) fn source(&self) -> Option<Slot> {
        self.source
    }

    /// A first copy came without having been asked for. Whether its link is the source now.
    pub(super) fn pushed(&mut self, slot: Slot) -> bool {
        if self.source != Some(slot) && !self.pruned.contains(slot) {
            self.source = Some(slot);
            self.eager.remove(slot);
        }
        self.source == Some(slot)
    }

    /// The link is asked to push from now on.
    pub(super) fn graft(&mut self, slot: Slot) {
        self.pruned.remove(slot);
        if self.source.is_none() {
            self.source = Some(slot);
        }
    }

    /// The source did not push a message in time, and this link had it. Whether it is to be grafted.
    pub(super) fn pulled(&mut self, slot: Slot) -> bool {
        if self.source == Some(slot) {
            return false;
        }
        self.graft(slot);
        self.source = Some(slot);
        self.eager.remove(slot);
        true
    }

    /// A further copy came without having been asked for.
    pub(super) fn copied(&mut self, now: Duration, slot: Slot) -> Copy {
        if self.source == Some(slot) {
            return Copy::Expected;
        }
        if !self.pruned.contains(slot) {
            self.pruned.insert(slot);
            self.last_prune = now;
            self.next_prune = now + PRUNE_AGAIN_AFTER;
            return Copy::Prune;
        }
        if now < self.last_prune + PRUNE_GRACE {
            return Copy::Late;
        }
        let again = now >= self.next_prune;
        if again {
            self.next_prune = now + PRUNE_AGAIN_AFTER;
        }
        Copy::Useless { again }
    }

    /// A link to try as the source: one that was faster, or a random one now and then.
    pub(super) fn try_link(
        &mut self,
        now: Duration,
        faster: Option<Slot>,
        usable: &LinkSet,
        rng: &mut ChaCha8Rng,
    ) -> Option<Slot> {
        self.untried += 1;
        if now < self.next_replacement || (faster.is_none() && self.untried < TRY_AFTER) {
            return None;
        }
        let mut candidates = usable.without(&self.eager);
        if let Some(source) = self.source {
            candidates.remove(source);
        }
        let faster = faster.filter(|faster| candidates.contains(*faster));
        let link = if self.untried < TRY_AFTER { faster? } else { faster.or_else(|| candidates.iter().choose(rng))? };
        (self.untried, self.next_replacement) = (rng.random_range(0..TRY_AFTER / 4), now + REPLACE_AFTER);
        self.graft(link);
        Some(link)
    }

    /// The peer asks for the author's messages. Whether that is new.
    pub(super) fn grafted(&mut self, slot: Slot) -> bool {
        self.refused.remove(slot);
        let is_new = !self.eager.contains(slot) && self.eager.len() < MAX_EAGER;
        if is_new {
            self.eager.insert(slot);
        }
        is_new
    }

    /// The peer does not want the author's messages. Whether that is new.
    pub(super) fn refused(&mut self, slot: Slot) -> bool {
        let is_new = self.eager.contains(slot);
        self.eager.remove(slot);
        self.refused.insert(slot);
        is_new
    }
}
