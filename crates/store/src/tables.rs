//! Tables of bytes: all that the store needs from a database.

use crate::{Place, StoreError, layout::Table, segments::Segment};
use bytes::Bytes;
use soma_types::CommitIndex;

/// One change of one table.
pub(crate) struct Write {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    /// The new value; `None` removes the key. It has its own allocation of exactly its length: the database may keep it
    /// for a while, and counts only its length.
    pub(crate) value: Option<Bytes>,
}

impl Write {
    pub(crate) fn remove(table: Table, key: impl Into<Vec<u8>>) -> Self {
        Self { table, key: key.into(), value: None }
    }

    pub(crate) fn put(table: Table, key: impl Into<Vec<u8>>, value: impl Into<Box<[u8]>>) -> Self {
        Self { table, key: key.into(), value: Some(value.into().into()) }
    }
}

/// Sorted maps of bytes with atomic batches.
pub(crate) trait Tables: Send + Sync + 'static {
    /// The value at `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// All entries with this key prefix, in order.
    fn scan(&self, table: Table, prefix: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// Visits the entries from key `first` to key `last` (included), in order, until `visit` returns `false`.
    fn walk(
        &self,
        table: Table,
        first: &[u8],
        last: &[u8],
        visit: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), StoreError>;
    /// The keys from `first` to `last` (included), in order. Reads no values.
    fn keys(&self, table: Table, first: &[u8], last: &[u8]) -> Result<Vec<Bytes>, StoreError>;
    /// The last key from `first` to `last` (included).
    fn last_key_within(&self, table: Table, first: &[u8], last: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// The last key of the table.
    fn last_key(&self, table: Table) -> Result<Option<Bytes>, StoreError>;
    /// Applies all `writes` or none, `segments` first. No key may occur twice. The batch is durable on return. A reader
    /// that sees one of the writes sees all earlier ones.
    fn write(&self, segments: &[Segment<'_>], writes: Vec<Write>) -> Result<(), StoreError>;
    /// Like [`write`](Self::write), for a batch whose commits are below all others.
    fn write_below(&self, segments: &[Segment<'_>], writes: Vec<Write>) -> Result<(), StoreError>;
    /// Applies all `writes` or none. They are durable no later than the next durable batch; a crash before it may undo
    /// them all.
    fn write_later(&self, writes: Vec<Write>) -> Result<(), StoreError>;
    /// Frees the space of removed segments, once their removal is durable: all below batch `kept_from`, except the
    /// batches `pinned`.
    fn reclaim(&self, kept_from: CommitIndex, pinned: &[CommitIndex]) -> Result<(), StoreError>;
    /// Makes all writes durable.
    fn flush(&self) -> Result<(), StoreError>;
    /// The location of the tables.
    fn place(&self) -> Place;
}
