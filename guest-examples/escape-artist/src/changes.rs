//! Changing files that may only be read.

use std::fs::{self, FileTimes, OpenOptions};
use std::io::Write;
use std::time::SystemTime;

use wasip2::clocks::wall_clock::Datetime;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, NewTimestamp, OpenFlags, PathFlags};

use crate::outcome::{Attempt, Outcome};
use crate::raw;

pub(crate) const ATTEMPTS: &[Attempt] = &[
    ("change-create", || Outcome::must_not_change("write /data/x", fs::write("/data/x", "mine"))),
    ("change-make-directory", || Outcome::must_not_change("mkdir /data/d", fs::create_dir("/data/d"))),
    ("change-overwrite", || Outcome::must_not_change("write", fs::write(PUBLIC, "mine"))),
    ("change-append", append),
    ("change-truncate", truncate),
    ("change-truncate-while-reading", truncate_while_reading),
    ("change-set-size", set_size),
    ("change-set-times", set_times),
    ("change-set-times-overflow", set_times_overflow),
    ("change-delete", || Outcome::must_not_change("delete", fs::remove_file(PUBLIC))),
    ("change-hard-link", hard_link),
    ("change-rename-out", rename_out),
    ("change-rename-in", rename_in),
    ("change-write-descriptor", write_descriptor),
];

const PUBLIC: &str = "/data/public.txt";

fn append() -> Outcome {
    let appended = OpenOptions::new().append(true).open(PUBLIC).and_then(|mut file| file.write_all(b"mine"));
    Outcome::must_not_change("append", appended)
}

fn truncate() -> Outcome {
    Outcome::must_not_change("truncate", OpenOptions::new().write(true).truncate(true).open(PUBLIC))
}

/// TRUNCATE asked for together with read access only.
fn truncate_while_reading() -> Outcome {
    resized(|data| {
        data.open_at(PathFlags::empty(), "public.txt", OpenFlags::TRUNCATE, DescriptorFlags::READ).map(drop)
    })
}

fn set_size() -> Outcome {
    resized(|data| raw::open(data, "public.txt")?.set_size(0))
}

/// A call may be answered with success and do nothing: what counts is the size afterwards.
fn resized<E: std::fmt::Debug>(act: impl FnOnce(&Descriptor) -> Result<(), E>) -> Outcome {
    let Some(data) = raw::directory("/data") else { return Outcome::held("no /data") };
    let before = raw::size(&data, "public.txt");
    let result = act(&data);
    let after = raw::size(&data, "public.txt");
    let detail = format!("{result:?}, size {before:?} then {after:?}");
    if before == after { Outcome::held(detail) } else { Outcome::changed(detail) }
}

fn set_times() -> Outcome {
    let times = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    let through_file = fs::File::open(PUBLIC).and_then(|file| file.set_times(times));
    Outcome::any([
        Outcome::must_not_change("set times of an open file", through_file),
        set_times_to(Datetime { seconds: 1, nanoseconds: 0 }),
    ])
}

/// A time that does not fit into the host's own type.
fn set_times_overflow() -> Outcome {
    Outcome::any([
        set_times_to(Datetime { seconds: u64::MAX, nanoseconds: 999_999_999 }),
        set_times_to(Datetime { seconds: u64::MAX, nanoseconds: u32::MAX }),
    ])
}

fn set_times_to(time: Datetime) -> Outcome {
    let Some(data) = raw::directory("/data") else { return Outcome::held("no /data") };
    let stamp = NewTimestamp::Timestamp(time);
    Outcome::must_not_change("set times", data.set_times_at(PathFlags::empty(), "public.txt", stamp, stamp))
}

/// A second name for a read-only file in a place that may be written.
fn hard_link() -> Outcome {
    let linked = fs::hard_link(PUBLIC, "/scratch/alias.txt");
    if linked.is_ok() {
        let written = fs::write("/scratch/alias.txt", "mine");
        return Outcome::changed(format!("linked; writing through the link: {written:?}"));
    }
    Outcome::must_not_change("link", linked)
}

fn rename_out() -> Outcome {
    Outcome::any([
        Outcome::must_not_change("rename public.txt out", fs::rename(PUBLIC, "/scratch/loot.txt")),
        Outcome::must_not_change(
            "rename secret.txt out",
            fs::rename("/data/secret.txt", "/scratch/loot.txt"),
        ),
    ])
}

fn rename_in() -> Outcome {
    let _ = fs::write("/scratch/mine.txt", "mine");
    Outcome::must_not_change("rename over public.txt", fs::rename("/scratch/mine.txt", PUBLIC))
}

/// Writing through a descriptor that was opened for reading.
fn write_descriptor() -> Outcome {
    let Some(data) = raw::directory("/data") else { return Outcome::held("no /data") };
    match raw::open(&data, "public.txt") {
        Ok(file) => Outcome::any([
            Outcome::must_not_change("write", file.write(b"mine", 0)),
            Outcome::must_not_change("append stream", append_to(&file)),
        ]),
        Err(error) => Outcome::held(format!("open: {error}")),
    }
}

fn append_to(file: &Descriptor) -> Result<(), String> {
    let stream = file.append_via_stream().map_err(|error| error.to_string())?;
    stream.blocking_write_and_flush(b"mine").map_err(|error| error.to_string())
}
