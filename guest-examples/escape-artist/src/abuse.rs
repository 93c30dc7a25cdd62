//! Using up what the guest shares with others. Many of these end with the guest stopped from outside; those that come
//! back say how much they got.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use wasip2::cli::stdout;
use wasip2::clocks::monotonic_clock;
use wasip2::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasip2::random::random::get_random_bytes;

use crate::govrun::host::db::Connection;
use crate::govrun::host::tools;
use crate::outcome::{Attempt, Outcome, describe};
use crate::raw;

pub(crate) const ATTEMPTS: &[Attempt] = &[
    ("abuse-loop", endless_loop),
    ("abuse-poll-loop", poll_loop),
    ("abuse-bulk-memory", bulk_memory),
    ("abuse-memory", memory),
    ("abuse-stack", stack),
    ("abuse-stdout", stdout_flood),
    ("abuse-empty-writes", empty_writes),
    ("abuse-huge-argument", huge_argument),
    ("abuse-call-flood", call_flood),
    ("abuse-open-files", open_files),
    ("abuse-pollables", pollables),
    ("abuse-connections", connections),
    ("abuse-random-once", random_once),
    ("abuse-random-often", random_often),
    ("abuse-sleep", sleep),
    ("abuse-exit", || std::process::exit(0)),
    ("abuse-panic", || panic!("a panic on purpose")),
];

const MIB: usize = 1 << 20;

/// Getting all that was asked for is the escape.
fn capped(got: usize, asked: usize, what: &str) -> Outcome {
    let detail = format!("{got} of {asked} {what}");
    if got >= asked { Outcome::escaped(detail) } else { Outcome::held(detail) }
}

fn endless_loop() -> Outcome {
    let mut count = 0_u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

/// Almost all of the time is spent in the host.
fn poll_loop() -> Outcome {
    loop {
        monotonic_clock::subscribe_duration(0).block();
    }
}

/// Single instructions that run for long: the host has to be able to stop between them.
fn bulk_memory() -> Outcome {
    let mut block = vec![0_u8; 64 * MIB];
    loop {
        black_box(&mut block).fill(1);
    }
}

fn memory() -> Outcome {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(MIB).is_err() {
            return capped(blocks.len(), 1024, "MiB of memory");
        }
        block.resize(MIB, 1);
        blocks.push(black_box(block));
    }
}

fn stack() -> Outcome {
    Outcome::held(format!("came back from {} frames", descend(0)))
}

/// The buffer and the addition after the call keep every frame on the stack.
#[expect(unconditional_recursion, reason = "running out of stack is the point")]
fn descend(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    descend(black_box(depth + 1)) + frame[0]
}

/// What the host keeps of it cannot be seen from inside.
fn stdout_flood() -> Outcome {
    let (line, mut written) = (vec![b'a'; 64 << 10], 0);
    while written < 200 * MIB {
        if let Err(error) = io::stdout().write_all(&line) {
            return Outcome::held(format!("{written} bytes, then {error}"));
        }
        written += line.len();
    }
    Outcome::held(format!("{written} bytes written"))
}

/// Each costs the guest nothing and may cost the host an allocation.
fn empty_writes() -> Outcome {
    let stream = stdout::get_stdout();
    for count in 0..1_000_000 {
        if let Err(error) = stream.check_write().and_then(|_| stream.write(&[])) {
            return Outcome::held(format!("{count} writes, then {error:?}"));
        }
    }
    Outcome::held("1,000,000 empty writes")
}

fn huge_argument() -> Outcome {
    let mut name = String::new();
    if name.try_reserve_exact(256 * MIB).is_err() {
        return Outcome::held("no memory for the argument");
    }
    name.extend(std::iter::repeat_n('a', 256 * MIB));
    match tools::call(&name, &name) {
        Ok(_) => Outcome::escaped("answered"),
        Err(error) => Outcome::held(describe(error).chars().take(200).collect::<String>()),
    }
}

/// Refused calls are not free either: each is decided and recorded.
fn call_flood() -> Outcome {
    let refused = (0..1_000_000).filter(|_| tools::call("no-such-tool.run", "{}").is_err()).count();
    capped(refused, 1_000_000, "refused calls")
}

fn open_files() -> Outcome {
    const MANY: usize = 10_000;
    let Some((directory, name)) = raw::preopens().into_iter().next() else {
        return Outcome::held("no directory");
    };
    let open = || directory.open_at(PathFlags::empty(), ".", OpenFlags::DIRECTORY, DescriptorFlags::READ);
    let mut files = Vec::new();
    while files.len() < MANY {
        match open() {
            Ok(file) => files.push(file),
            Err(error) => {
                return Outcome::held(format!("{} of {MANY} handles on {name}, then {error}", files.len()));
            }
        }
    }
    capped(files.len(), MANY, "open handles")
}

fn pollables() -> Outcome {
    const MANY: usize = 1_000_000;
    let held: Vec<_> = (0..MANY).map(|_| monotonic_clock::subscribe_duration(u64::MAX)).collect();
    capped(held.len(), MANY, "pollables")
}

fn connections() -> Outcome {
    const MANY: usize = 1_000_000;
    let held: Vec<_> = (0..MANY).map(|_| Connection::new("sales")).collect();
    capped(held.len(), MANY, "connections")
}

fn random_once() -> Outcome {
    const ASKED: usize = 100 * MIB;
    capped(
        get_random_bytes(u64::try_from(ASKED).unwrap_or(u64::MAX)).len(),
        ASKED,
        "random bytes in one call",
    )
}

fn random_often() -> Outcome {
    const CALLS: usize = 100;
    let got = (0..CALLS).map(|_| get_random_bytes(1 << 20).len()).sum::<usize>();
    capped(got, CALLS * MIB, "random bytes")
}

fn sleep() -> Outcome {
    const HOUR: Duration = Duration::from_secs(3600);
    let start = Instant::now();
    std::thread::sleep(HOUR);
    let slept = start.elapsed();
    let detail = format!("slept for {} ms", slept.as_millis());
    if slept >= HOUR { Outcome::escaped(detail) } else { Outcome::held(detail) }
}
