//! `lock write TOOLCHAIN` describes the components in `prebuilt/` in `prebuilt/lock.toml`; `lock check` compares them
//! with the sources as they are now. The construction of the digests is at the top of the file it writes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["write", toolchain] => write(&root, toolchain),
        ["check"] => check(&root),
        _ => Err(io::Error::other("usage: lock write TOOLCHAIN | lock check")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lock: {error}");
            ExitCode::FAILURE
        }
    }
}

const HEADER: &str = "\
# Written by `guest-examples/build.sh --update`; do not edit. A component whose digests differ is stale or was swapped.
#
# blake3   BLAKE3-256 of the bytes of `file`, in hex.
# sources  BLAKE3-256, in hex, over every regular file among
#            Cargo.toml  Cargo.lock  ../wit/govrun.wit  NAME/Cargo.toml  NAME/src/**  NAME/wit/**
#          where paths are relative to guest-examples/, written with `/`, and sorted as bytes. The hashed bytes are
#            \"govrun guest sources v1\\n\"
#          and then for each file
#            u64 little endian: length of the path in bytes, the path,
#            u64 little endian: length of the content in bytes, the content.
# toolchain is text for people; it is in no digest.
";

const DOMAIN: &[u8] = b"govrun guest sources v1\n";

fn write(root: &Path, toolchain: &str) -> io::Result<()> {
    let mut text = HEADER.to_owned();
    for guest in guests(root)? {
        let digests = digests(root, &guest)?;
        text.push_str(&format!("\n[[component]]\nname = \"{guest}\"\n{digests}toolchain = {toolchain:?}\n"));
    }
    fs::write(root.join("prebuilt/lock.toml"), text)
}

/// The lock has each guest's lines word for word, and nothing else lies beside the components.
fn check(root: &Path) -> io::Result<()> {
    let lock = read(&root.join("prebuilt/lock.toml"))?;
    let lock = String::from_utf8_lossy(&lock);
    let guests = guests(root)?;
    for guest in &guests {
        let expected = format!("name = \"{guest}\"\n{}", digests(root, guest)?);
        if !lock.contains(&expected) {
            let stale = format!("prebuilt/{guest}.wasm is stale: run guest-examples/build.sh --update");
            return Err(io::Error::other(stale));
        }
    }
    for entry in fs::read_dir(root.join("prebuilt"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let guest = name.strip_suffix(".wasm").map(str::to_owned);
        if name != "lock.toml" && !guest.is_some_and(|guest| guests.contains(&guest)) {
            return Err(io::Error::other(format!("prebuilt/{name} belongs to no guest")));
        }
    }
    println!("{} components are as their sources say", guests.len());
    Ok(())
}

/// Every package of the workspace but this one.
fn guests(root: &Path) -> io::Result<Vec<String>> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "lock" && entry.path().join("Cargo.toml").is_file() {
            guests.push(name);
        }
    }
    guests.sort();
    Ok(guests)
}

/// The three lines of a component that depend on files.
fn digests(root: &Path, guest: &str) -> io::Result<String> {
    let file = format!("{guest}.wasm");
    let wasm = blake3::hash(&read(&root.join("prebuilt").join(&file))?);
    let sources = sources(root, guest)?;
    Ok(format!("file = \"{file}\"\nblake3 = \"{wasm}\"\nsources = \"{sources}\"\n"))
}

fn sources(root: &Path, guest: &str) -> io::Result<blake3::Hash> {
    let mut paths: Vec<String> =
        ["Cargo.toml", "Cargo.lock", "../wit/govrun.wit"].iter().map(|path| (*path).to_owned()).collect();
    paths.push(format!("{guest}/Cargo.toml"));
    for folder in ["src", "wit"] {
        collect(root, &format!("{guest}/{folder}"), &mut paths)?;
    }
    paths.sort();
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    for path in paths {
        let content = read(&root.join(&path))?;
        for part in [path.as_bytes(), &content] {
            hasher.update(&u64::try_from(part.len()).map_err(io::Error::other)?.to_le_bytes());
            hasher.update(part);
        }
    }
    Ok(hasher.finalize())
}

fn collect(root: &Path, folder: &str, paths: &mut Vec<String>) -> io::Result<()> {
    let path: PathBuf = root.join(folder);
    if !path.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(root, &name, paths)?;
        } else {
            paths.push(name);
        }
    }
    Ok(())
}

/// An error that names the file.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}
