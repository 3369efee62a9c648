//! Which process a run is, so that it is known later whether it is still under way.

use rustix::{io::Errno, process::Pid};

/// Ticks after the machine's start at which a process began (proc_pid_stat(5), field 22): its number may be
/// used again. 0: that cannot be known here.
pub(super) fn born(process: u32) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is a name in parentheses, and may hold anything.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or_default()
}

/// Whether a process is still there.
pub(super) fn is_alive(process: u32, since: i64) -> bool {
    let number = i32::try_from(process).ok().and_then(Pid::from_raw);
    // Only a process that is not there is dead; one of somebody else's may not be asked.
    let there = number.is_some_and(|number| rustix::process::test_kill_process(number) != Err(Errno::SRCH));
    there && (since == 0 || [since, 0].contains(&born(process)))
}
