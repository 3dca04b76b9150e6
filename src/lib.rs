//! Sluice sells exactly the stock there is, to a crowd that is a thousand times larger.
//!
//! Read it in this order: [`model`] for the words; the promises of [`gate`], [`queue`] and [`ledger`]; [`shop`], which
//! puts them together; [`checkout`], [`settlement`] and [`reconcile`], the way of an order; [`audit`], which recounts;
//! [`deployment`], which chooses the backends.
//!
//! The rest serves these: [`http`] and [`cli`] are the way in, [`sqlite`], [`postgres`], [`remote`] and [`batcher`] carry the
//! backends, [`load`], [`race`] and [`demo`] play the crowd, [`fault`] and [`clock`] let tests strike and repeat,
//! [`way`] shows where an order was when.

pub mod adjustment;
pub mod audit;
pub mod batcher;
pub mod checkout;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod deployment;
pub mod fault;
pub mod gate;
pub mod http;
pub mod ledger;
pub mod load;
pub mod model;
pub mod postgres;
pub mod queue;
pub mod race;
pub mod reconcile;
pub mod remote;
pub mod settlement;
pub mod shop;
pub mod sqlite;
mod sync;
pub mod way;
