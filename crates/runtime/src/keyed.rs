//! Values that a shell holds under numbers that its core knows.

use std::collections::BTreeMap;

/// Replies and jobs of a shell. The core sees only their numbers.
#[derive(Debug)]
pub struct Keyed<T> {
    last_key: u64,
    values: BTreeMap<u64, T>,
}

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self { last_key: 0, values: BTreeMap::new() }
    }
}

impl<T> Keyed<T> {
    /// Holds a value under the next number, counted from 1.
    pub fn insert(&mut self, value: T) -> u64 {
        self.last_key += 1;
        self.values.insert(self.last_key, value);
        self.last_key
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        self.values.remove(&key)
    }
}
