//! What the kernel tells of processes and of the machine.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

/// The kernel counts processor time in hundredths of a second, on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// One line of `/proc/<pid>/stat`.
struct Stat {
    parent: u32,
    own: u64,
    /// Of children that have ended.
    ended: u64,
}

/// In `/proc/<pid>/stat` the name stands in parentheses and may hold anything; state and parent follow it.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<u64> = fields
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let at = |index: usize| fields.get(index).copied().unwrap_or(0);
    Some(Stat {
        parent: u32::try_from(at(0)).ok()?,
        own: at(10) + at(11),
        ended: at(12) + at(13),
    })
}

/// Every process there is.
fn processes() -> BTreeMap<u32, Stat> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, stat(pid)?)))
        .collect()
}

/// A process and all its descendants that live.
fn tree(root: u32, all: &BTreeMap<u32, Stat>) -> Vec<u32> {
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(pid) = tree.get(next).copied() {
        next += 1;
        tree.extend(
            all.iter()
                .filter(|(_, child)| child.parent == pid)
                .map(|(child, _)| *child),
        );
    }
    tree
}

/// The processor time that each of these processes has used, in seconds, with all its descendants: those that live, and
/// those that have ended.
pub(crate) fn processor_seconds(roots: &[(String, u32)]) -> BTreeMap<String, f64> {
    let all = processes();
    let mut sums = BTreeMap::new();
    for (name, root) in roots {
        let ticks: u64 = tree(*root, &all)
            .iter()
            .filter_map(|pid| all.get(pid))
            .map(|stat| stat.own + stat.ended)
            .sum();
        *sums.entry(name.clone()).or_default() += ticks as f64 / TICKS_PER_SECOND;
    }
    sums
}

/// The memory that each of these processes and all its descendants have in RAM together, in MiB; what several of them share
/// counts once.
pub(crate) fn held_mib(roots: &[(String, u32)]) -> BTreeMap<String, f64> {
    let all = processes();
    let held = |root: u32| {
        let each = tree(root, &all);
        each.into_iter()
            .map(|pid| memory_mib(pid, "smaps_rollup", "Pss:"))
            .sum()
    };
    roots
        .iter()
        .map(|(name, root)| (name.clone(), held(*root)))
        .collect()
}

/// The most memory that a process had in RAM, in MiB.
pub(crate) fn peak_mib(pid: u32) -> f64 {
    memory_mib(pid, "status", "VmHWM:")
}

/// The memory that a process has in RAM, in MiB.
pub(crate) fn resident_mib(pid: u32) -> f64 {
    memory_mib(pid, "status", "VmRSS:")
}

fn memory_mib(pid: u32, file: &str, field: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let kib: Option<f64> = text
        .lines()
        .find(|line| line.starts_with(field))
        .and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    kib.unwrap_or_default() / 1_024.0
}

/// What it is.
pub(crate) fn description() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().unwrap_or_default();
    json!({
        "processor": model,
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "memory": memory.trim_start_matches("MemTotal:").trim(),
    })
}

/// How many processes want a processor, on average of the last minute: more than ours is a machine that is not quiet.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_process_holds_that_of_its_ended_children() {
        let own = std::process::id();
        let used = || processor_seconds(&[("own".to_owned(), own)])["own"];
        let before = used();
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let status = std::process::Command::new("sh").args(["-c", work]).status();
        assert!(status.is_ok_and(|status| status.success()));
        assert!(used() > before + 0.02);
        // In this order: other tests take memory meanwhile.
        let resident = resident_mib(own);
        assert!(resident > 0.0 && peak_mib(own) >= resident);
    }

    #[test]
    fn memory_of_a_tree_holds_that_of_the_children() {
        let own = [("own".to_owned(), std::process::id())];
        let mut child = std::process::Command::new("sh")
            .args(["-c", "echo ready; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a child");
        let mut ready = [0; 6];
        let stdout = child.stdout.as_mut().expect("its output");
        std::io::Read::read_exact(stdout, &mut ready).expect("its word");
        let (of_child, of_both) = (
            held_mib(&[("child".to_owned(), child.id())])["child"],
            held_mib(&own)["own"],
        );
        assert!(of_child > 0.0 && of_both > of_child, "{of_child} {of_both}");
        drop(child.stdin.take());
        assert!(child.wait().is_ok());
    }
}
