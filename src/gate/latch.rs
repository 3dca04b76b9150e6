//! The sold-out latch: what a process may refuse without asking the gate, and so without a lock or a network.
//!
//! It must never refuse the retry of an admitted order. So an id is known before the latch shuts, and whoever finds it
//! shut looks for the id after that: release and acquire on the SKU's word carry one to the other.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash};

use crate::model::ByItself;
use crate::sync::{AtomicU8, Mutex, Ordering};

/// Ids are spread over so many locks.
const SHARDS: usize = 16;
/// Where the share of each shard but the first begins, in 256ths: `256 (2^(i/16) - 1)`. A table doubles when it is full, and
/// with equal shares all would double at the same moment: a million ids would take twice the memory, and wait for it.
const SHARES: [u8; SHARDS - 1] = [11, 23, 36, 48, 62, 76, 91, 106, 122, 139, 156, 175, 194, 214, 234];

const OPEN: u8 = 0;
const SHUT: u8 = 1;
const SHUT_MAY_RETURN: u8 = 2;

/// One sale's latch: a word per SKU, and the ids of all orders admitted. `Id` is the order's id.
pub struct Latch<Id> {
    skus: Box<[AtomicU8]>,
    known: Box<[Mutex<HashSet<Id, ByItself>>]>,
}

/// What is to be said of a SKU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Ask the gate.
    Open,
    /// Nothing is available.
    SoldOut {
        /// Whether units are held or on their way.
        may_return: bool,
    },
}

impl<Id: Copy + Eq + Hash> Latch<Id> {
    /// An open latch for so many SKUs, with room for so many orders.
    pub fn new(skus: usize, ids: usize) -> Self {
        let begins = [0].into_iter().chain(SHARES).map(usize::from);
        let ends = SHARES.into_iter().map(usize::from).chain([256]);
        let room = |(begins, ends): (usize, usize)| ids * (ends - begins) / 256;
        let table = |share| Mutex::new(HashSet::with_capacity_and_hasher(room(share), ByItself::default()));
        Self { skus: (0..skus).map(|_| AtomicU8::new(OPEN)).collect(), known: begins.zip(ends).map(table).collect() }
    }

    /// The first of these SKUs that is sold out, unless the order is known.
    pub fn refuses(&self, id: Id, skus: impl IntoIterator<Item = usize>) -> Option<(usize, bool)> {
        for sku in skus {
            let may_return = match self.skus[sku].load(Ordering::Acquire) {
                OPEN => continue,
                word => word == SHUT_MAY_RETURN,
            };
            return (!self.knows(id)).then_some((sku, may_return));
        }
        None
    }

    /// Says this of a SKU from now on. Ids admitted so far must be known before.
    pub fn say(&self, sku: usize, word: Word) {
        let word = match word {
            Word::Open => OPEN,
            Word::SoldOut { may_return: false } => SHUT,
            Word::SoldOut { may_return: true } => SHUT_MAY_RETURN,
        };
        self.skus[sku].store(word, Ordering::Release);
    }

    /// Notes an admitted order; false if it was known before.
    pub fn know(&self, id: Id) -> bool {
        self.shard(id).lock().expect("no holder panics").insert(id)
    }

    /// Whether the order was admitted.
    pub fn knows(&self, id: Id) -> bool {
        self.shard(id).lock().expect("no holder panics").contains(&id)
    }

    fn shard(&self, id: Id) -> &Mutex<HashSet<Id, ByItself>> {
        // A table finds its places by the first bytes and the last one.
        let [.., share, _, _, _] = ByItself::default().hash_one(id).to_le_bytes();
        &self.known[SHARES.partition_point(|begins| *begins <= share)]
    }
}
