//! One operation of the standard library per run: `probe read /data/a.txt`. The result goes to stdout; a failure goes
//! to stderr as `error: <ErrorKind> <message>`, with exit code 1.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use std::{env, thread};

use wasip2::filesystem::preopens;
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

const USAGE: &str = "usage: probe args … | env | read P | write P TEXT | append P TEXT | truncate P N | ls P | stat P | \
                     rm P | rmdir P | mkdir P | rename A B | link A B | symlink TARGET P | clock | sleep MS | random N \
                     | stdin | exit N | panic | spin";

fn run(words: &[&str]) -> io::Result<String> {
    match words {
        ["args", rest @ ..] => Ok(lines(rest.iter().map(|word| (*word).to_owned()))),
        ["env"] => Ok(lines(env::vars().map(|(name, value)| format!("{name}={value}")))),
        ["clock"] => clock(),
        ["sleep", milliseconds] => sleep(number(milliseconds)?),
        ["random", count] => Ok(random(number(count)?)),
        ["stdin"] => io::read_to_string(io::stdin()),
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
        ["write", path, text] => fs::write(path, text),
        ["append", path, text] => {
            OpenOptions::new().append(true).open(path).and_then(|mut file| file.write_all(text.as_bytes()))
        }
        ["truncate", path, size] => OpenOptions::new().write(true).open(path)?.set_len(number(size)?),
        ["rm", path] => fs::remove_file(path),
        ["rmdir", path] => fs::remove_dir(path),
        ["mkdir", path] => fs::create_dir(path),
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

/// Stable std has no way to make a link here, so this one asks the host itself.
fn symlink(target: &str, path: &str) -> io::Result<()> {
    for (directory, name) in preopens::get_directories() {
        if let Some(rest) = path.strip_prefix(&name).and_then(|rest| rest.strip_prefix('/')) {
            // wasi-libc turns this code into the error kind elsewhere; here the name of the code has to do.
            return directory.symlink_at(target, rest).map_err(|code| Error::other(format!("{code:?}")));
        }
    }
    Err(ErrorKind::NotFound.into())
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
