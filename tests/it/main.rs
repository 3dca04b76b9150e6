//! The tests that need more than one module: contracts, the simulation, the HTTP API, the real binary.

mod contracts;
mod data_folder;
mod embedded;
mod model_ledger;
mod model_queue;
mod order_life;
mod simulation;
mod support;
mod words;
