//! The program: see `sluice --help`.

fn main() {}
