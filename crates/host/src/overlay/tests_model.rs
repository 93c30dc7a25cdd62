//! The layer against a real directory: the same operations, the same results, the same tree; and the tree below untouched.
//!
//! Runs 64 cases of up to 40 operations; `GOVRUN_LAYER_CASES` sets another number for a long run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use rustix::fs::{AtFlags, FileType, Timespec, Timestamps};
use rustix::io::Errno;

use super::{Content, Found, Id, Layer};

/// What is written long before the test, so that a touched object can be told from one that was not.
const OLD: i64 = 1_000_000_000;
const RECENT: i64 = 1_500_000_000;
const HANDLES: usize = 3;

#[derive(Debug, Clone)]
enum Op {
    MakeDir(Vec<String>),
    CreateNew(Vec<String>),
    Write(Vec<String>, Vec<u8>, Option<u64>),
    Truncate(Vec<String>),
    SetLen(Vec<String>, u64),
    Unlink(Vec<String>),
    RemoveDir(Vec<String>),
    Rename(Vec<String>, Vec<String>),
    SetTimes(Vec<String>, i64),
    Read(Vec<String>),
    List(Vec<String>),
    Stat(Vec<String>, bool),
    Hold(usize, Vec<String>),
    ReadHeld(usize),
}

fn path() -> impl Strategy<Value = Vec<String>> {
    let name = prop::sample::select(vec!["a", "b", "c", "f", "g", "down", "file", "over", "dangling"]);
    prop::collection::vec(name.prop_map(str::to_owned), 1..4)
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop::collection::vec(any::<u8>(), 0..64);
    prop_oneof![
        2 => path().prop_map(Op::MakeDir),
        2 => path().prop_map(Op::CreateNew),
        3 => (path(), bytes, prop::option::of(0_u64..100)).prop_map(|(p, b, o)| Op::Write(p, b, o)),
        1 => path().prop_map(Op::Truncate),
        1 => (path(), 0_u64..200).prop_map(|(p, n)| Op::SetLen(p, n)),
        2 => path().prop_map(Op::Unlink),
        2 => path().prop_map(Op::RemoveDir),
        4 => (path(), path()).prop_map(|(a, b)| Op::Rename(a, b)),
        1 => (path(), 1_i64..1000).prop_map(|(p, t)| Op::SetTimes(p, t)),
        2 => path().prop_map(Op::Read),
        1 => path().prop_map(Op::List),
        1 => (path(), any::<bool>()).prop_map(|(p, f)| Op::Stat(p, f)),
        1 => (0..HANDLES, path()).prop_map(|(h, p)| Op::Hold(h, p)),
        1 => (0..HANDLES).prop_map(Op::ReadHeld),
    ]
}

/// The tree that both start from: nested directories, files, links to a directory, to a file, upwards and to nothing.
fn plant(root: &Path) {
    for dir in ["a", "a/b", "a/b/c", "b", "c"] {
        fs::create_dir(root.join(dir)).unwrap();
    }
    for (file, contents) in [("a/f", "one"), ("a/b/g", "two"), ("b/f", "three"), ("f", "four"), ("c/g", "")] {
        fs::write(root.join(file), contents).unwrap();
    }
    for (target, link) in [("a/b", "down"), ("../f", "a/file"), ("..", "b/over"), ("nothing", "dangling")] {
        symlink(target, root.join(link)).unwrap();
    }
    for file in ["a/f", "a/b/g", "b/f", "f", "c/g", "a/b/c", "a/b", "a", "b", "c", "."] {
        set_old(&root.join(file), OLD);
    }
}

fn set_old(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, AtFlags::empty()).unwrap();
}

/// What an operation answered: the error number, or what there is to see.
type Answer = Result<String, i32>;

struct Real {
    root: PathBuf,
    held: BTreeMap<usize, File>,
}

impl Real {
    fn at(&self, path: &[String]) -> PathBuf {
        self.root.join(path.join("/"))
    }

    fn run(&mut self, op: &Op) -> Answer {
        let done = |result: std::io::Result<()>| result.map(|()| String::new());
        let answer = match op {
            Op::MakeDir(p) => done(fs::create_dir(self.at(p))),
            Op::CreateNew(p) => done(File::create_new(self.at(p)).map(drop)),
            Op::Write(p, bytes, offset) => OpenOptions::new().write(true).open(self.at(p)).and_then(|file| {
                let end = file.metadata()?.len();
                done(file.write_all_at(bytes, offset.unwrap_or(end)))
            }),
            Op::Truncate(p) => done(OpenOptions::new().write(true).truncate(true).open(self.at(p)).map(drop)),
            Op::SetLen(p, len) => {
                done(OpenOptions::new().write(true).open(self.at(p)).and_then(|f| f.set_len(*len)))
            }
            Op::Unlink(p) => done(fs::remove_file(self.at(p))),
            Op::RemoveDir(p) => done(fs::remove_dir(self.at(p))),
            Op::Rename(a, b) => done(fs::rename(self.at(a), self.at(b))),
            Op::SetTimes(p, seconds) => fs::metadata(self.at(p)).map(|_| {
                set_old(&self.at(p), *seconds);
                String::new()
            }),
            Op::Read(p) => fs::read(self.at(p)).map(|bytes| format!("{bytes:?}")),
            Op::List(p) => fs::read_dir(self.at(p)).map(|entries| {
                let mut names: Vec<String> =
                    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
                names.sort();
                names.join(" ")
            }),
            Op::Stat(p, follow) => {
                let meta = if *follow { fs::metadata(self.at(p)) } else { fs::symlink_metadata(self.at(p)) };
                meta.map(|m| {
                    format!("{} {} {}", m.is_dir(), m.is_symlink(), if m.is_dir() { 0 } else { m.len() })
                })
            }
            Op::Hold(slot, p) => fs::metadata(self.at(p)).and_then(|meta| {
                if meta.is_dir() {
                    return Err(Errno::ISDIR.into());
                }
                self.held.insert(*slot, File::open(self.at(p))?);
                Ok(String::new())
            }),
            Op::ReadHeld(slot) => Ok(self.held.get(slot).map_or_else(String::new, |file| {
                let mut buffer = vec![0; 1000];
                let count = file.read_at(&mut buffer, 0).unwrap();
                format!("{:?}", &buffer[..count])
            })),
        };
        answer.map_err(|error| error.raw_os_error().unwrap())
    }
}

struct Layered {
    layer: Layer,
    held: BTreeMap<usize, Arc<Content>>,
}

impl Layered {
    fn find(&mut self, path: &[String], follow: bool) -> Result<Found, Errno> {
        let root = self.layer.root(0)?;
        self.layer.resolve(root, path, follow)
    }

    fn there(&mut self, path: &[String], follow: bool) -> Result<Id, Errno> {
        self.find(path, follow)?.node.ok_or(Errno::NOENT)
    }

    /// The directory and the name; `busy` is what the system says for a path that ends in `.` or `..`.
    fn spot(&mut self, path: &[String]) -> Result<(Id, String), Errno> {
        let found = self.find(path, false)?;
        Ok((found.dir, found.name.ok_or(Errno::BUSY)?))
    }

    fn content(&mut self, path: &[String], write: bool, truncate: bool) -> Result<Arc<Content>, Errno> {
        let id = self.there(path, true)?;
        self.layer.open(id, write, truncate)
    }

    fn run(&mut self, op: &Op) -> Answer {
        self.answer(op).map_err(Errno::raw_os_error)
    }

    fn answer(&mut self, op: &Op) -> Result<String, Errno> {
        let errno = |error: std::io::Error| Errno::from_io_error(&error).unwrap();
        match op {
            Op::MakeDir(p) => {
                let (dir, name) = self.spot(p)?;
                self.layer.create_directory(dir, &name)?;
            }
            Op::CreateNew(p) => {
                let (dir, name) = self.spot(p)?;
                self.layer.create_file(dir, &name)?;
            }
            Op::Write(p, bytes, offset) => {
                self.content(p, true, false)?.write_at(bytes, *offset).map_err(errno)?;
            }
            Op::Truncate(p) => drop(self.content(p, true, true)?),
            Op::SetLen(p, len) => self.content(p, true, false)?.set_len(*len).map_err(errno)?,
            Op::Unlink(p) => {
                let (dir, name) = self.spot(p)?;
                self.layer.unlink(dir, &name)?;
            }
            Op::RemoveDir(p) => {
                let (dir, name) = self.spot(p)?;
                self.layer.remove_directory(dir, &name)?;
            }
            Op::Rename(a, b) => {
                let (from, to) = (self.spot(a)?, self.spot(b)?);
                self.layer.rename((from.0, &from.1), (to.0, &to.1))?;
            }
            Op::SetTimes(p, seconds) => {
                let id = self.there(p, true)?;
                let time = Some(Timespec { tv_sec: *seconds, tv_nsec: 0 });
                self.layer.set_times(id, time, time)?;
            }
            Op::Read(p) => {
                let content = self.content(p, false, false)?;
                return Ok(read(&content));
            }
            Op::List(p) => {
                let id = self.there(p, true)?;
                let names = self.layer.list(id)?.into_iter().map(|(name, _)| name.unwrap());
                return Ok(names.collect::<Vec<_>>().join(" "));
            }
            Op::Stat(p, follow) => {
                let id = self.there(p, *follow)?;
                let stat = self.layer.stat(id)?;
                let dir = stat.kind == FileType::Directory;
                let size = if dir { 0 } else { stat.size };
                return Ok(format!("{dir} {} {size}", stat.kind == FileType::Symlink));
            }
            Op::Hold(slot, p) => {
                let content = self.content(p, false, false)?;
                self.held.insert(*slot, content);
            }
            Op::ReadHeld(slot) => {
                return Ok(self.held.get(slot).map_or_else(String::new, |content| read(content)));
            }
        }
        Ok(String::new())
    }

    /// Path, then kind, content or target, and time, with the id beside it.
    fn tree(&mut self) -> BTreeMap<String, (String, Id)> {
        let root = self.layer.root(0).unwrap();
        let mut seen = BTreeMap::from([(String::new(), (self.shown(root), root))]);
        let mut open = vec![(String::new(), root)];
        while let Some((at, dir)) = open.pop() {
            for (name, kind) in self.layer.list(dir).unwrap() {
                let name = name.unwrap();
                let id = self.layer.lookup(dir, &name).unwrap().unwrap();
                let path = super::join(&at, &name);
                assert_eq!(self.layer.place(id), Some((0, path.clone())));
                if kind == FileType::Directory {
                    open.push((path.clone(), id));
                }
                seen.insert(path, (self.shown(id), id));
            }
        }
        seen
    }

    fn shown(&mut self, id: Id) -> String {
        let stat = self.layer.stat(id).unwrap();
        let time = shown_time(stat.times.modified.tv_sec);
        match stat.kind {
            FileType::Directory => format!("directory {time}"),
            FileType::Symlink => format!("link {}", self.layer.read_link(id).unwrap()),
            _other => format!("file {time} {}", read(&self.layer.open(id, false, false).unwrap())),
        }
    }
}

fn read(content: &Content) -> String {
    let mut buffer = vec![0; 1000];
    let count = content.read_at(&mut buffer, 0).unwrap();
    format!("{:?}", &buffer[..count])
}

fn shown_time(seconds: i64) -> String {
    if seconds < RECENT { seconds.to_string() } else { "recent".to_owned() }
}

fn real_tree(root: &Path) -> BTreeMap<String, (String, u64)> {
    let mut seen = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(at) = open.pop() {
        let path = root.join(&at);
        let meta = fs::symlink_metadata(&path).unwrap();
        let time = shown_time(meta.mtime());
        let shown = if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| at.join(entry.unwrap().file_name())));
            format!("directory {time}")
        } else if meta.is_symlink() {
            format!("link {}", fs::read_link(&path).unwrap().display())
        } else {
            format!("file {time} {:?}", fs::read(&path).unwrap())
        };
        seen.insert(at.to_str().unwrap().to_owned(), (shown, meta.ino()));
    }
    seen
}

/// Everything about the tree below that must not change; when it was last read may.
fn everything(root: &Path) -> Vec<String> {
    let tree = real_tree(root);
    let all = tree.iter().map(|(path, (shown, ino))| {
        let meta = fs::symlink_metadata(root.join(path)).unwrap();
        format!(
            "{path} {shown} {ino} {} {} {:?} {}",
            meta.nlink(),
            meta.mode(),
            meta.modified(),
            meta.ctime_nsec()
        )
    });
    all.collect()
}

/// What the report must say: every path that differs between the two trees, apart from what moved along.
fn differing(
    before: &BTreeMap<String, (String, u64)>,
    after: &BTreeMap<String, (String, Id)>,
) -> BTreeSet<String> {
    let content =
        |shown: &str| if shown.starts_with("directory") { "directory".to_owned() } else { shown.to_owned() };
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = paths.into_iter().filter(|path| {
        before.get(*path).map(|(shown, _)| content(shown))
            != after.get(*path).map(|(shown, _)| content(shown))
    });
    changed.cloned().collect()
}

fn check(ops: &[Op]) -> Result<(), TestCaseError> {
    let (lower, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    plant(lower.path());
    plant(plain.path());
    let below = (everything(lower.path()), real_tree(lower.path()));
    let mut real = Real { root: plain.path().to_owned(), held: BTreeMap::new() };
    let layer = Layer::over(&[lower.path()], 1 << 20).unwrap();
    let mut layered = Layered { layer, held: BTreeMap::new() };
    let mut ids: BTreeMap<u64, Id> = BTreeMap::new();
    for op in ops {
        // Which of several errors a move has is the system's choice, and links that lead out are refused here.
        let (expected, got) = (real.run(op), layered.run(op));
        match (&expected, &got) {
            (Err(_), Err(_)) if matches!(op, Op::Rename(..)) => {}
            (Err(_), Err(refused)) if *refused == Errno::PERM.raw_os_error() => {}
            _other => prop_assert_eq!(expected, got, "{:?}", op),
        }
        let (there, here) = (real_tree(plain.path()), layered.tree());
        let shown = |tree: &BTreeMap<String, (String, u64)>| {
            tree.iter().map(|(path, (shown, _))| (path.clone(), shown.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(shown(&there), shown(&here), "after {:?}", op);
        // Moved, changed or copied: as long as the object lives its id is the same.
        ids.retain(|ino, _| there.values().any(|(_, alive)| alive == ino));
        for (path, (_, ino)) in &there {
            let (_, id) = here.get(path).unwrap();
            prop_assert_eq!(*ids.entry(*ino).or_insert(*id), *id, "{} after {:?}", path, op);
        }
    }
    prop_assert_eq!(&below.0, &everything(lower.path()));
    reported(&below.1, &mut layered)
}

/// Each difference is in the report, or beneath a directory that moved, and nothing that is the same is in it.
fn reported(before: &BTreeMap<String, (String, u64)>, layered: &mut Layered) -> Result<(), TestCaseError> {
    let after = layered.tree();
    let changes = layered.layer.changes();
    let listed: BTreeSet<String> = changes.list.iter().map(|change| change.path.clone()).collect();
    prop_assert_eq!(changes.total, changes.list.len());
    for path in differing(before, &after) {
        let beneath = listed.iter().any(|dir| path.starts_with(&format!("{dir}/")));
        prop_assert!(listed.contains(&path) || beneath, "{} is not in {:?}", path, listed);
    }
    let mut paths = changes.list.iter().map(|change| &change.path).collect::<Vec<_>>();
    paths.dedup();
    prop_assert_eq!(paths.len(), changes.list.len(), "each path once: {:?}", changes.list);
    Ok(())
}

fn cases() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "a long run is asked for in the environment")]
    std::env::var("GOVRUN_LAYER_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_layer_behaves_like_a_directory(ops in prop::collection::vec(op(), 1..40)) {
        check(&ops)?;
    }
}
