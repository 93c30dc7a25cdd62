//! One operation of the standard library per run: `probe read /data/a.txt`. The result goes to stdout; a failure goes
//! to stderr as `error: <ErrorKind> <message>`, with exit code 1.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, Error, ErrorKind, Read, Seek, SeekFrom, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use wasip2::filesystem::preopens;
use wasip2::filesystem::types::{Descriptor, PathFlags};
use wasip2::random::random::get_random_bytes;

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words).and_then(|result| io::stdout().write_all(result.as_bytes())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {:?} {error}", error.kind());
            ExitCode::FAILURE
        }
    }
}

/// Each word is an operation with its own words, all in one run: `probe script 'mkdir /data/d' 'ls /data'`. A failure is
/// an answer like any other, so that what comes after it is seen too.
fn script(operations: &[&str]) -> String {
    let mut held = BTreeMap::new();
    let answers = operations.iter().map(|operation| {
        let words: Vec<&str> = operation.split(' ').collect();
        let answer = match words.as_slice() {
            ["hold", name, path] => hold(&mut held, name, path),
            ["held", name] => read_held(&mut held, name),
            words => file(words),
        };
        let answer = answer.unwrap_or_else(|error| format!("error: {:?}", error.kind()));
        format!("{operation} => {}", answer.trim_end().replace('\n', " "))
    });
    lines(answers)
}

/// The same operation over and over; nanoseconds for each, as the guest sees it.
fn repeat(times: u64, operation: &[&str]) -> io::Result<String> {
    let start = Instant::now();
    for _ in 0..times {
        file(operation)?;
    }
    Ok((start.elapsed().as_nanos() / u128::from(times.max(1))).to_string())
}

/// Read an open file from its beginning, over and over.
fn repeat_held(times: u64, path: &str) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    let start = Instant::now();
    for _ in 0..times {
        bytes.clear();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
    }
    Ok((start.elapsed().as_nanos() / u128::from(times.max(1))).to_string())
}

/// Keep a file open for reading under a name.
fn hold(held: &mut BTreeMap<String, File>, name: &str, path: &str) -> io::Result<String> {
    held.insert(name.to_owned(), File::open(path)?);
    Ok("ok".to_owned())
}

/// What an open file holds now, from its beginning.
fn read_held(held: &mut BTreeMap<String, File>, name: &str) -> io::Result<String> {
    let file = held.get_mut(name).ok_or(ErrorKind::NotFound)?;
    file.seek(SeekFrom::Start(0))?;
    io::read_to_string(file)
}

const USAGE: &str = "usage: probe args … | env | read P | write P TEXT | append P TEXT | truncate P N | ls P | stat P | \
                     hash P | modified P | times P SECONDS | rm P | rmdir P | rmall P | mkdir P | mkdirs P | rename A B \
                     | copy A B | tree P | create-new P | overwrite P TEXT | link A B | symlink TARGET P | clock \
                     | sleep MS | random N | stdin | exit N | panic | spin | script OP …, also with hold NAME P, held NAME \
                     | repeat N OP | repeat N held P";

fn run(words: &[&str]) -> io::Result<String> {
    match words {
        ["args", rest @ ..] => Ok(lines(rest.iter().map(|word| (*word).to_owned()))),
        ["env"] => Ok(lines(env::vars().map(|(name, value)| format!("{name}={value}")))),
        ["clock"] => clock(),
        ["sleep", milliseconds] => sleep(number(milliseconds)?),
        ["random", count] => Ok(random(number(count)?)),
        ["stdin"] => io::read_to_string(io::stdin()),
        ["repeat", times, "held", path] => repeat_held(number(times)?, path),
        ["repeat", times, operation @ ..] => repeat(number(times)?, operation),
        ["script", operations @ ..] => Ok(script(operations)),
        ["exit", code] => std::process::exit(number(code)? as i32),
        ["panic"] => panic!("probe was told to panic"),
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        words => file(words),
    }
}

fn file(words: &[&str]) -> io::Result<String> {
    match words {
        ["read", path] => return read(path),
        ["ls", path] => return list(path),
        ["stat", path] => return stat(path),
        ["hash", path] => return hash(path),
        ["modified", path] => return modified(path),
        ["copy", from, to] => return fs::copy(from, to).map(|bytes| bytes.to_string()),
        ["tree", path] => return tree(path),
        ["write", path, text] => fs::write(path, text),
        ["append", path, text] => {
            OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()))
        }
        ["truncate", path, size] => OpenOptions::new().write(true).open(path)?.set_len(number(size)?),
        ["rm", path] => fs::remove_file(path),
        ["rmdir", path] => fs::remove_dir(path),
        ["mkdir", path] => fs::create_dir(path),
        ["mkdirs", path] => fs::create_dir_all(path),
        ["rmall", path] => fs::remove_dir_all(path),
        ["create-new", path] => File::create_new(path).map(drop),
        ["overwrite", path, text] => {
            OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()))
        }
        ["times", path, seconds] => set_modified(path, number(seconds)?),
        ["rename", from, to] => fs::rename(from, to),
        ["link", from, to] => fs::hard_link(from, to),
        ["symlink", target, path] => symlink(target, path),
        _ => Err(Error::new(ErrorKind::InvalidInput, USAGE)),
    }
    .map(|()| "ok\n".to_owned())
}

fn read(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn list(path: &str) -> io::Result<String> {
    let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names.collect::<io::Result<_>>()?;
    names.sort();
    Ok(lines(names))
}

fn stat(path: &str) -> io::Result<String> {
    let stat = fs::metadata(path)?;
    let kind = if stat.is_dir() { "directory" } else { "file" };
    Ok(format!("{kind} {}\n", stat.len()))
}

/// Everything beneath a directory, with the size of files.
fn tree(path: &str) -> io::Result<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path().display().to_string();
        found.push(format!("{path} {}", stat(&path)?.trim_end()));
        if fs::symlink_metadata(&path)?.is_dir() {
            found.push(tree(&path)?);
        }
    }
    found.sort();
    Ok(found.into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; "))
}

/// Seconds since 1970.
fn modified(path: &str) -> io::Result<String> {
    let modified = fs::metadata(path)?.modified()?;
    Ok(modified.duration_since(SystemTime::UNIX_EPOCH).map_err(Error::other)?.as_secs().to_string())
}

fn set_modified(path: &str, seconds: u64) -> io::Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    OpenOptions::new().write(true).open(path)?.set_times(FileTimes::new().set_modified(time))
}

/// The identity that the host gives a file or directory.
fn hash(path: &str) -> io::Result<String> {
    let (directory, rest) = beneath(path).ok_or(ErrorKind::NotFound)?;
    let hash = directory.metadata_hash_at(PathFlags::SYMLINK_FOLLOW, &rest);
    hash.map(|hash| format!("{:x}-{:x}", hash.upper, hash.lower))
        .map_err(|code| Error::other(format!("{code:?}")))
}

/// The preopen that a path is in, and the rest of it.
fn beneath(path: &str) -> Option<(Descriptor, String)> {
    preopens::get_directories().into_iter().find_map(|(directory, name)| {
        let rest = path.strip_prefix(&name)?.strip_prefix('/')?.to_owned();
        Some((directory, rest))
    })
}

/// Stable std has no way to make a link here, so this one asks the host itself.
fn symlink(target: &str, path: &str) -> io::Result<()> {
    let (directory, rest) = beneath(path).ok_or(ErrorKind::NotFound)?;
    // wasi-libc turns this code into the error kind elsewhere; here the name of the code has to do.
    directory.symlink_at(target, &rest).map_err(|code| Error::other(format!("{code:?}")))
}

/// Seconds since 1970, and nanoseconds between two readings of the monotonic clock.
fn clock() -> io::Result<String> {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::other)?;
    let start = Instant::now();
    Ok(format!("{} {}\n", wall.as_secs(), start.elapsed().as_nanos()))
}

/// How long it really slept, in milliseconds.
fn sleep(milliseconds: u64) -> io::Result<String> {
    let start = Instant::now();
    thread::sleep(Duration::from_millis(milliseconds));
    Ok(format!("{}\n", start.elapsed().as_millis()))
}

fn random(count: u64) -> String {
    get_random_bytes(count).iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n"
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(|_| Error::new(ErrorKind::InvalidInput, format!("{text} is not a number")))
}

fn lines(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}
