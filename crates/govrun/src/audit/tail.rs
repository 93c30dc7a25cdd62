//! `govrun audit tail`: the last records, and those to come.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use govrun_audit::read::Follower;
use govrun_verdict::LogId;

use super::show::{Filter, Lines, Printer};
use crate::exit::{Exit, Failure};

/// How often the logs are looked at.
const POLL: Duration = Duration::from_millis(200);
/// Most records from before.
const MAX_LINES: usize = 100_000;

/// Print the last `lines` records that pass the filter, and go on if asked to.
pub(crate) fn run(
    folder: &Path,
    lines: usize,
    follow: bool,
    filter: &Filter,
    format: Lines,
) -> Result<Exit, Failure> {
    let unreadable = |e: &dyn std::fmt::Display| Failure::new(Exit::Dependency, e);
    let mut printer = Printer::new(format);
    let mut logs = Follower::open(folder).map_err(|e| unreadable(&e))?;
    let most = lines.min(MAX_LINES);
    // The last of each log; the last of all are among them.
    let mut last: BTreeMap<LogId, VecDeque<(u64, Vec<u8>)>> = BTreeMap::new();
    logs.each(|record| {
        if let Some(line) = printer.line(record, filter)? {
            let of_log = last.entry(record.log).or_default();
            of_log.push_back((record.head.time, line));
            if of_log.len() > most {
                of_log.pop_front();
            }
        }
        Ok(())
    })
    .map_err(|e| unreadable(&e))?;
    let mut last: Vec<(u64, Vec<u8>)> = last.into_values().flatten().collect();
    last.sort_by_key(|(time, _)| *time);
    let skipped = last.len().saturating_sub(most);
    for (_, line) in last.into_iter().skip(skipped) {
        if !printer.print(&line)? {
            return Ok(Exit::Ok);
        }
    }
    if !follow {
        return Ok(Exit::Ok);
    }
    loop {
        std::thread::sleep(POLL);
        let mut lines = Vec::new();
        logs.each(|record| {
            lines.extend(printer.line(record, filter)?);
            Ok(())
        })
        .map_err(|e| unreadable(&e))?;
        for line in lines {
            if !printer.print(&line)? {
                return Ok(Exit::Ok);
            }
        }
    }
}
