//! Getting at files that the tool was not given.

use std::fs;
use std::io::Read;

use wasip2::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};

use crate::outcome::{Attempt, Outcome};
use crate::raw;

pub(crate) const ATTEMPTS: &[Attempt] = &[
    ("path-parent", || beneath_every_preopen(PARENTS)),
    ("path-absolute", || beneath_every_preopen(&["/etc/passwd", "//etc/passwd", "/"])),
    ("path-odd-bytes", || {
        beneath_every_preopen(&["..\\..\\etc\\passwd", "..\0/etc/passwd", "\0", "..%2f..%2fetc"])
    }),
    ("path-etc-passwd", || read("/etc/passwd")),
    ("path-std-parent", || read("/data/../../etc/passwd")),
    ("path-process-environment", process_environment),
    ("path-trailing-slash-open", trailing_slash_open),
    ("path-trailing-slash-create", trailing_slash_create),
    ("path-trailing-slash-rename", trailing_slash_rename),
    ("path-secret-aliases", secret_aliases),
    ("path-planted-link", planted_link),
    ("path-symlink-absolute", || symlink("/etc/passwd", "absolute-link")),
    ("path-symlink-relative", || symlink("../../etc/passwd", "relative-link")),
    ("path-symlink-chain", symlink_chain),
];

const PARENTS: &[&str] = &[
    "..",
    "../",
    "../etc/passwd",
    "../../etc/passwd",
    "x/../../etc/passwd",
    "./../../../../../../etc/passwd",
];

fn beneath_every_preopen(paths: &[&str]) -> Outcome {
    Outcome::any(raw::preopens().iter().flat_map(|(directory, name)| {
        paths.iter().map(move |path| {
            let what = format!("open {path:?} beneath {name}");
            Outcome::must_fail(&what, raw::open(directory, path))
        })
    }))
}

fn read(path: &str) -> Outcome {
    let first = fs::File::open(path).and_then(|mut file| file.read(&mut [0; 64]));
    Outcome::must_fail(&format!("read {path}"), first)
}

fn process_environment() -> Outcome {
    let paths =
        ["proc/self/environ", "/proc/self/environ", "../proc/self/environ", "../../proc/self/environ"];
    Outcome::any([read("/proc/self/environ"), beneath_every_preopen(&paths)])
}

/// A file is not a directory: with a slash behind it there is nothing to open, whoever may read it.
fn trailing_slash_open() -> Outcome {
    let Some(data) = raw::directory("/data") else { return Outcome::held("no /data") };
    Outcome::any(
        ["secret.txt/", "secret.txt//", "secret.txt/.", "public.txt/", "link/"]
            .map(|path| Outcome::must_fail(&format!("open {path}"), raw::open(&data, path))),
    )
}

fn trailing_slash_create() -> Outcome {
    let Some(data) = raw::directory("/data") else { return Outcome::held("no /data") };
    let opened = data.open_at(PathFlags::empty(), "new.txt/", OpenFlags::CREATE, DescriptorFlags::WRITE);
    Outcome::must_not_change("create /data/new.txt/", opened)
}

fn trailing_slash_rename() -> Outcome {
    let (Some(data), Some(scratch)) = (raw::directory("/data"), raw::directory("/scratch")) else {
        return Outcome::held("no /data or no /scratch");
    };
    let _ = fs::write("/scratch/mine.txt", "mine");
    Outcome::any([
        Outcome::must_not_change(
            "rename secret.txt/ out",
            data.rename_at("secret.txt/", &scratch, "loot.txt"),
        ),
        Outcome::must_not_change(
            "rename secret.txt to loot/",
            data.rename_at("secret.txt", &scratch, "loot/"),
        ),
        Outcome::must_not_change("rename mine.txt in", scratch.rename_at("mine.txt", &data, "public.txt/")),
        Outcome::must_not_change("rename within /data", data.rename_at("public.txt/", &data, "moved.txt/")),
    ])
}

/// Another spelling of a refused file. Where `secret.txt` itself can be read there is nothing to get around.
fn secret_aliases() -> Outcome {
    let Some(data) = raw::directory("/data") else { return Outcome::held("no /data") };
    if raw::open(&data, "secret.txt").is_ok() {
        return Outcome::held("secret.txt is not refused here");
    }
    let spellings = [
        "./secret.txt",
        ".//secret.txt",
        "x/../secret.txt",
        "../data/secret.txt",
        "SECRET.TXT",
        "secret.txt\0",
    ];
    Outcome::any(spellings.map(|path| Outcome::must_fail(&format!("open {path:?}"), raw::open(&data, path))))
}

fn planted_link() -> Outcome {
    let Some(data) = raw::directory("/data") else { return Outcome::held("no /data") };
    Outcome::any([
        read("/data/link"),
        Outcome::must_fail("open link", raw::open(&data, "link")),
        Outcome::must_fail("open beneath link", raw::open(&data, "link/passwd")),
        Outcome::must_fail("stat through link", data.stat_at(PathFlags::SYMLINK_FOLLOW, "link")),
    ])
}

/// Making the link is the escape, even if the guest cannot follow it: a program of the host may.
fn symlink(target: &str, name: &str) -> Outcome {
    Outcome::any(raw::preopens().iter().map(|(directory, at)| {
        let made = directory.symlink_at(target, name);
        let followed = raw::open(directory, name).is_ok();
        let what = format!("link {at}/{name} to {target} (followed: {followed})");
        if followed { Outcome::escaped(what) } else { Outcome::must_not_change(&what, made) }
    }))
}

/// Two links that are harmless one by one.
fn symlink_chain() -> Outcome {
    let Some(scratch) = raw::directory("/scratch") else { return Outcome::held("no /scratch") };
    let _ = fs::create_dir_all("/scratch/a/b");
    let first = scratch.symlink_at("..", "a/b/up");
    let second = scratch.symlink_at("a/b/up/../../../etc/passwd", "chain");
    match raw::open(&scratch, "chain") {
        Ok(_) => Outcome::escaped("opened what the chain leads to"),
        Err(error) => Outcome::held(format!("first {first:?}, second {second:?}, open {error:?}")),
    }
}
