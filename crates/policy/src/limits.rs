//! Sandbox profiles, the limits of allow rules, and directories.

use std::num::NonZeroU64;
use std::sync::Arc;

use govrun_verdict::{DbLimits, Egress, FsMode, Mask, Obligations, Preopen, Profile};

use crate::toml_item::{Item, Table};
use crate::units;

/// Largest count of fuel, rows or steps.
const MAX_COUNT: u64 = i64::MAX.cast_unsigned();
pub(crate) const MODES: [(&str, FsMode); 2] = [("ro", FsMode::ReadOnly), ("rw", FsMode::ReadWrite)];
const EGRESS: [(&str, Egress); 2] = [("none", Egress::None), ("by-rule", Egress::ByRule)];

/// `[sandbox.NAME]`: a profile, as the obligations of a sandboxed call.
pub(crate) fn sandbox(name: &str, table: &Table<'_>) -> Obligations {
    table.only(&["fuel", "memory", "deadline", "egress", "fs", "db"]);
    let mut obligations = limits_of(table, Egress::None);
    let fs = table.get("fs").and_then(|item| item.table("`fs`"));
    let (preopens, scratch_bytes) = fs.map_or((None, None), |fs| {
        fs.only(&["preopens", "scratch"]);
        (fs.get("preopens").map(preopens), fs.get("scratch").and_then(|item| size(&item)))
    });
    if let Some(list) = fs_hosts_not_absolute(preopens.as_deref()) {
        table.fail(format!("`{list}`: directories of a sandbox profile have absolute host paths"));
    }
    let profile = Profile { name: name.into(), preopens, scratch_bytes, db_copy: true };
    obligations.sandbox = Some(Arc::new(profile));
    obligations
}

fn fs_hosts_not_absolute(preopens: Option<&[Preopen]>) -> Option<&str> {
    preopens?.iter().map(|p| &*p.host).find(|host| !host.starts_with('/'))
}

/// `limits = {…}` of an allow rule.
pub(crate) fn limits(item: &Item<'_>) -> Option<Obligations> {
    let table = item.table("`limits`")?;
    table.only(&["fuel", "memory", "deadline", "egress", "db"]);
    if table.is_empty() {
        table.fail("empty `limits` limit nothing: leave the key out");
    }
    Some(limits_of(&table, Egress::ByRule))
}

fn limits_of(table: &Table<'_>, egress: Egress) -> Obligations {
    let (db, mask) = table.get("db").and_then(|item| db_limits(&item)).unwrap_or_default();
    Obligations {
        fuel: table.get("fuel").and_then(|item| count(&item)),
        memory_bytes: table.get("memory").and_then(|item| size(&item)),
        deadline_ms: table.get("deadline").and_then(|item| duration(&item)),
        egress: table.get("egress").and_then(|item| item.one_of(&EGRESS)).unwrap_or(egress),
        db,
        mask,
        sandbox: None,
    }
}

fn db_limits(item: &Item<'_>) -> Option<(DbLimits, Mask)> {
    let table = item.table("`db`")?;
    table.only(&["rows", "bytes", "time", "vm_steps", "mask"]);
    let mask = table.get("mask").map(|item| masked(&item)).unwrap_or_default();
    let limits = DbLimits {
        rows: table.get("rows").and_then(|item| count(&item)),
        bytes: table.get("bytes").and_then(|item| size(&item)),
        time_ms: table.get("time").and_then(|item| duration(&item)),
        vm_steps: table.get("vm_steps").and_then(|item| count(&item)),
    };
    Some((limits, mask))
}

/// One or more of `table.column` and `*.column`.
fn masked(item: &Item<'_>) -> Mask {
    let given = item.texts().unwrap_or_default();
    for (item, text) in &given {
        let sound = text.rsplit_once('.').is_some_and(|(table, column)| is_table(table) && is_plain(column));
        if !sound {
            item.fail_with(
                "a masked column is `table.column`, or `*.column` for that of every table",
                "such as `users.email`; a table of another schema is `schema.table.column`",
            );
        }
    }
    Mask::new(given.iter().map(|(_, text)| *text))
}

fn is_table(text: &str) -> bool {
    text == "*" || text.split_once('.').map_or_else(|| is_plain(text), |(s, t)| is_plain(s) && is_plain(t))
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(['.', '*', '"', '`', '[', '\'']) && !name.contains(char::is_control)
}

pub(crate) fn count(item: &Item<'_>) -> Option<NonZeroU64> {
    item.integer(1..=MAX_COUNT).and_then(NonZeroU64::new)
}

pub(crate) fn size(item: &Item<'_>) -> Option<NonZeroU64> {
    item.text().and_then(|text| item.checked(units::size_bytes(text)))
}

pub(crate) fn duration(item: &Item<'_>) -> Option<NonZeroU64> {
    item.text().and_then(|text| item.checked(units::duration_ms(text)))
}

/// A list of `{ host, guest, mode }`; it may be empty, which offers nothing.
pub(crate) fn preopens(item: Item<'_>) -> Vec<Preopen> {
    let mut all: Vec<Preopen> = Vec::new();
    for item in item.any_elements().unwrap_or_default() {
        let Some(preopen) = preopen(&item) else { continue };
        if all.iter().any(|p| p.guest == preopen.guest) {
            item.fail(format!("the guest path `{}` is offered twice", preopen.guest));
        }
        all.push(preopen);
    }
    all
}

fn preopen(item: &Item<'_>) -> Option<Preopen> {
    let table = item.table("a directory")?;
    table.only(&["host", "guest", "mode"]);
    let host = table.need("host").and_then(host_path);
    let guest = table.need("guest").and_then(|item| {
        let text = item.text()?;
        let normal = text.strip_prefix('/').is_some_and(|relative| {
            relative.is_empty() || relative.split('/').all(|s| !matches!(s, "" | "." | ".."))
        });
        if !normal || text.chars().any(char::is_control) {
            item.fail("a guest path is absolute, without `.`, `..`, empty segments or a trailing `/`");
        }
        Some(text)
    });
    let mode = table.need("mode").and_then(|item| item.one_of(&MODES));
    Some(Preopen { host: host?, guest: guest?.into(), mode: mode? })
}

/// A path on the host, absolute or relative to the policy folder.
pub(crate) fn host_path(item: Item<'_>) -> Option<Arc<str>> {
    let text = item.text()?;
    if text.is_empty() || text.chars().any(char::is_control) {
        item.fail("a host path is not empty and has no control characters");
    }
    Some(text.into())
}
