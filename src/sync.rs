//! The locks and atomics that `batcher` and `gate::latch` use. The interleaving tests compile those two files with
//! locks and atomics of their own, which try every schedule.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
