//! The tests that need more than one module: contracts, the simulation, the HTTP API, the real binary.

mod data_folder;
mod embedded;
mod support;
