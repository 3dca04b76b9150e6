//! What the kernel counts: processor time and memory of processes, and what machine this is.

use std::fs;
use std::process::Command;

use anyhow::Context;

/// The kernel counts processor time in hundredths of a second for whoever reads /proc, on every architecture.
const TICK_US: f64 = 10_000.0;

/// Processor time of these processes so far, in microseconds.
pub(crate) fn cpu_us(pids: &[u32]) -> anyhow::Result<f64> {
    let mut total = 0.0;
    for pid in pids {
        let fields = stat(&pid.to_string())?;
        total += fields[11] + fields[12];
    }
    Ok(total * TICK_US)
}

/// Processor time of all children of this process that have ended and were waited for, in microseconds.
pub(crate) fn children_cpu_us() -> anyhow::Result<f64> {
    let fields = stat("self")?;
    Ok((fields[13] + fields[14]) * TICK_US)
}

/// Time that all processors of the machine were busy, whoever made them so, in microseconds.
pub(crate) fn busy_us() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<f64> = first.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq; what a hypervisor stole is not our work.
    let busy = [0, 1, 2, 5, 6].iter().map(|&at: &usize| fields.get(at).copied().unwrap_or(0.0));
    Ok(busy.sum::<f64>() * TICK_US)
}

/// Processor time from a moment on, of some processes and of the whole machine.
pub(crate) struct Meter<'a> {
    pids: &'a [u32],
    server_us: f64,
    machine_us: f64,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(pids: &'a [u32]) -> anyhow::Result<Self> {
        Ok(Self { pids, server_us: cpu_us(pids)?, machine_us: busy_us()? })
    }

    /// So far and for each of so many orders, in microseconds: of the processes, and of the machine.
    pub(crate) fn per_order(&self, orders: u64) -> anyhow::Result<(f64, f64)> {
        let (server_us, machine_us) = (cpu_us(self.pids)? - self.server_us, busy_us()? - self.machine_us);
        Ok((server_us / orders as f64, machine_us / orders as f64))
    }
}

/// The numbers of /proc/PID/stat behind the name, from the state on; what is no number counts as 0.
fn stat(pid: &str) -> anyhow::Result<Vec<f64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    let (_, rest) = stat.rsplit_once(") ").context("/proc/PID/stat has no name")?;
    Ok(rest.split(' ').map(|field| field.trim().parse().unwrap_or(0.0)).collect())
}

/// The most memory that a process had resident at once, in megabytes.
pub(crate) fn peak_mb(pid: u32) -> anyhow::Result<f64> {
    memory_mb(pid, "VmHWM:")
}

/// The memory that a process has resident now, in megabytes.
pub(crate) fn resident_mb(pid: u32) -> anyhow::Result<f64> {
    memory_mb(pid, "VmRSS:")
}

fn memory_mb(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// The machine in words, as far as the kernel tells.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let cores = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let kib: f64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0.0);
    let release = read("/proc/sys/kernel/osrelease");
    // What follows is whoever built it.
    let kernel = release.trim().split('-').next().unwrap_or_default();
    let model = model.trim_start_matches([':', '\t', ' ']);
    format!("{cores} x {model}, {:.0} GB, Linux {kernel}", kib * 1024.0 / 1e9)
}

/// The first line that a program says about its version.
pub(crate) fn version(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let said = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "work is measured against real time")]
    fn work_is_counted_for_the_one_who_does_it() {
        let (own, started) = ([std::process::id()], std::time::Instant::now());
        let before = cpu_us(&own).unwrap();
        while started.elapsed().as_millis() < 300 {
            std::hint::black_box(started.elapsed());
        }
        let worked = cpu_us(&own).unwrap() - before;
        assert!((100_000.0..2_000_000.0).contains(&worked), "{worked}");
        assert!(busy_us().unwrap() >= worked);
        assert!(peak_mb(own[0]).unwrap() >= resident_mb(own[0]).unwrap());
    }
}
