//! The tests that need more than one module: contracts, the simulation, the HTTP API, the real binary.

mod architecture;
mod buyers;
mod cluster;
mod contracts;
mod crashes;
mod data_folder;
mod deploy;
mod distributed;
mod embedded;
mod http;
mod k6;
mod load;
mod model_ledger;
mod model_queue;
mod order_life;
mod postgres;
mod process;
mod program;
mod promises;
mod rabbit_queue;
mod redis_gate;
mod servers;
mod simulation;
mod support;
mod wiped_broker;
mod words;
