//! What the kernel tells of this program.

use std::fs;

/// Processor time since it began, in seconds; 0 where the system does not tell.
///
/// Linux counts it in hundredths of a second; in `/proc/self/stat` the name stands in parentheses and may hold anything.
pub(super) fn processor_seconds() -> f64 {
    let ticks = || -> Option<f64> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let (user, system): (f64, f64) =
            (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(user + system)
    };
    ticks().unwrap_or_default() / 100.0
}

/// The most memory that it had in RAM, in MiB; 0 where the system does not tell.
pub(super) fn peak_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib: Option<f64> = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.unwrap_or_default() / 1_024.0
}
