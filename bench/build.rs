//! Tells where the program is that is measured, in the same target folder, built for release by `./bench/run`; and which
//! compiler it was.

fn main() {
    let target = std::env::var("CARGO_TARGET_DIR")
        .unwrap_or_else(|_| format!("{}/../target", std::env::var("CARGO_MANIFEST_DIR").expect("cargo says it")));
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    println!("cargo::rustc-env=CARGO_BIN_EXE_sluice={target}/release/sluice");
    let rustc = std::env::var("RUSTC").expect("cargo says it");
    let version = std::process::Command::new(rustc).arg("--version").output().expect("the compiler runs");
    println!("cargo::rustc-env=BENCH_COMPILER={}", String::from_utf8_lossy(&version.stdout).trim());
}
