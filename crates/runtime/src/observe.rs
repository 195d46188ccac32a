//! Messages that every actor takes.

use crate::reply::Reply;

/// From the handle and the admin endpoint: show yourself.
#[derive(Debug)]
pub struct Observe<S>(pub Reply<S>);

/// From the shutdown sequence: finish the present work, take nothing new, and stop. Answered when done.
#[derive(Debug)]
pub struct Stop(pub Reply<()>);
