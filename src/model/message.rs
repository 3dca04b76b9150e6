//! A message: what travels through the queue.

use serde::{Deserialize, Serialize};

use super::{Claim, Epoch, OrderId, SaleId};

/// What travels through the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Whose.
    pub sale: SaleId,
    /// The life of the gate that admitted it, or that a marker asks about.
    pub epoch: Epoch,
    /// What.
    pub body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Settle this.
    Claim(Claim),
    /// Everything pushed before this is settled now: close every epoch below the message's own.
    Close,
    /// Everything pushed before this is settled now: note this sweep's number.
    Sweep(u64),
}

impl Message {
    /// A claim under the epoch that admitted it.
    pub fn claim(claim: Claim, epoch: Epoch) -> Self {
        Self { sale: claim.sale().clone(), epoch, body: Body::Claim(claim) }
    }

    /// The id of the claim; `None` if it is a marker.
    pub fn claim_id(&self) -> Option<OrderId> {
        match &self.body {
            Body::Claim(claim) => Some(claim.id()),
            Body::Close | Body::Sweep(_) => None,
        }
    }

    /// Whether it is a claim, and no marker.
    pub fn is_claim(&self) -> bool {
        self.claim_id().is_some()
    }
}
