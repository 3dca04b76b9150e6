//! The tests that need more than one module: contracts, the simulation, the HTTP API, the real binary.

mod architecture;
mod data_folder;
mod embedded;
mod http;
mod program;
mod support;
