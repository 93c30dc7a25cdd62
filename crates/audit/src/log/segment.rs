//! The end of a log as one row of bytes, whatever segments it lies in.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::recover::{Damage, RecoverError};
use crate::lines::segments;
use crate::storage::{self, Disk, Storage};

/// Segments that a reopening looks at. A segment begins only when everything before it is on disk, so what a crash can have
/// touched lies in the last two.
const LOOKED_AT: usize = 3;

/// File name of a segment.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:08}.jsonl")
}

/// One segment at the end of a log.
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn Storage>,
    /// Where it begins in the row.
    pub(super) start: u64,
    pub(super) size: u64,
}

/// The last segments of a log.
pub(super) struct Tail {
    pub(super) dir: PathBuf,
    pub(super) parts: Vec<Part>,
    /// Whether the row begins with the log.
    pub(super) whole: bool,
}

/// One line of the row.
pub(super) struct Piece<'a> {
    /// Offset in the row.
    pub(super) at: u64,
    /// Without the newline.
    pub(super) bytes: &'a [u8],
    /// False for what follows the last newline of a segment.
    pub(super) whole: bool,
    /// Whether it is the first line of a segment that goes on from another.
    pub(super) opens: bool,
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn fitting(length: u64) -> std::io::Result<usize> {
    usize::try_from(length).map_err(|_| std::io::ErrorKind::InvalidData.into())
}

impl Tail {
    pub(super) fn open(dir: &Path, disk: &dyn Disk) -> Result<Self, RecoverError> {
        let (paths, missing) = segments(dir).map_err(|e| RecoverError::io(&e))?;
        if let Some(name) = missing {
            return Err(RecoverError::Damaged(Damage {
                segment: name,
                line: 0,
                byte: 0,
                what: "is missing".into(),
            }));
        }
        let skipped = paths.len().saturating_sub(LOOKED_AT);
        let mut tail = Self { dir: dir.to_owned(), parts: Vec::new(), whole: skipped == 0 };
        for (number, path) in (1_u64..).zip(paths).skip(skipped) {
            let file = disk.open(&path, false).map_err(|e| RecoverError::io(&e))?;
            let size = file.size().map_err(|e| RecoverError::io(&e))?;
            tail.parts.push(Part { number, path, file, start: tail.size(), size });
        }
        Ok(tail)
    }

    /// Bytes in the row.
    pub(super) fn size(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.start + part.size)
    }

    /// The bytes of the row from `start` on.
    pub(super) fn read(&self, start: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; fitting(self.size() - start)?];
        for (part, range) in self.within(start, self.size()) {
            let from = fitting(part.start + range.start - start)?;
            let to = from + fitting(range.end - range.start)?;
            let target = bytes.get_mut(from..to).ok_or(std::io::ErrorKind::InvalidData)?;
            storage::read_exact_at(&*part.file, target, range.start)?;
        }
        Ok(bytes)
    }

    /// The parts that lie between two places of the row, and which of their bytes do.
    pub(super) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (&Part, Range<u64>)> {
        self.parts.iter().filter_map(move |part| {
            let from = start.clamp(part.start, part.start + part.size) - part.start;
            let to = end.clamp(part.start, part.start + part.size) - part.start;
            (from < to).then_some((part, from..to))
        })
    }

    /// Split the row from `start` on into lines. The first is left out unless it begins a segment: it may be the end of a longer
    /// one.
    pub(super) fn pieces<'a>(&self, bytes: &'a [u8], start: u64) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        for (part, range) in self.within(start, self.size()) {
            let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let (lines, after) = rest.split_at_checked(size).unwrap_or((rest, &[]));
            rest = after;
            let mut at = part.start + range.start;
            for (i, piece) in lines.split_inclusive(|b| *b == b'\n').enumerate() {
                let line = piece.strip_suffix(b"\n");
                let begins = at == part.start;
                if i > 0 || begins {
                    let opens = begins && part.number > 1;
                    pieces.push(Piece { at, bytes: line.unwrap_or(piece), whole: line.is_some(), opens });
                }
                at += length(piece);
            }
        }
        pieces
    }

    /// The segment that a place of the row lies in, and where in it.
    pub(super) fn locate(&self, at: u64) -> Option<(&Part, u64)> {
        let part = self.parts.iter().rev().find(|part| part.start <= at)?;
        Some((part, at - part.start))
    }

    /// Copy everything from here on aside, on disk, and cut it off.
    pub(super) fn quarantine(&self, at: u64, now: u64, disk: &dyn Disk) -> std::io::Result<String> {
        let (part, offset) = self.locate(at).ok_or(std::io::ErrorKind::InvalidData)?;
        let folder = self.dir.join("quarantine");
        storage::private_dir(&folder)?;
        let name = format!("{:08}-{offset}-{now}.bin", part.number);
        let bytes = self.read(at)?;
        let copy = disk.open(&folder.join(&name), true)?;
        copy.truncate(0)?;
        storage::write_all_at(&*copy, &bytes, 0)?;
        copy.sync()?;
        disk.sync_dir(&folder)?;
        disk.sync_dir(&self.dir)?;
        Ok(name)
    }

    /// Cut the log off here, the last segment first: what is left is a log after each step.
    pub(super) fn cut(&mut self, end: u64, disk: &dyn Disk) -> std::io::Result<()> {
        while let Some(part) = self.parts.last_mut() {
            if part.start >= end && part.number > 1 {
                disk.remove(&part.path)?;
                self.parts.pop();
                continue;
            }
            if part.start + part.size > end {
                part.size = end - part.start;
                part.file.truncate(part.size)?;
            }
            return Ok(());
        }
        Ok(())
    }

    /// Write what lies between two places once more. After a failed sync the system may hold it in memory, call it clean and
    /// never write it out; written again it is dirty, and the next sync means what it says.
    pub(super) fn rewrite(&self, start: u64, end: u64) -> std::io::Result<()> {
        for (part, range) in self.within(start, end) {
            copy_over(&*part.file, &*part.file, range)?;
            part.file.sync()?;
        }
        Ok(())
    }

    /// The damage at a place of the row, by segment, line and byte.
    pub(super) fn damage(&self, at: u64, what: impl Into<String>) -> RecoverError {
        let Some((part, offset)) = self.locate(at) else { return RecoverError::Io(what.into()) };
        match count_lines(&*part.file, offset) {
            Ok(line) => {
                let segment = segment_name(part.number);
                RecoverError::Damaged(Damage { segment, line, byte: offset, what: what.into() })
            }
            Err(e) => RecoverError::io(&e),
        }
    }
}

/// Copy a range of one file to the same place of another, or of itself.
pub(super) fn copy_over(from: &dyn Storage, to: &dyn Storage, range: Range<u64>) -> std::io::Result<()> {
    let mut at = range.start;
    let mut bytes = vec![0; 1 << 18];
    while at < range.end {
        let wanted = usize::try_from(range.end - at).unwrap_or(usize::MAX).min(bytes.len());
        let chunk = bytes.get_mut(..wanted).unwrap_or_default();
        storage::read_exact_at(from, chunk, at)?;
        storage::write_all_at(to, chunk, at)?;
        at += length(chunk);
    }
    Ok(())
}

fn count_lines(file: &dyn Storage, until: u64) -> std::io::Result<u64> {
    let (mut at, mut lines) = (0_u64, 1_u64);
    let mut bytes = vec![0; 1 << 16];
    while at < until {
        let wanted = usize::try_from(until - at).unwrap_or(usize::MAX).min(bytes.len());
        let chunk = bytes.get_mut(..wanted).unwrap_or_default();
        storage::read_exact_at(file, chunk, at)?;
        lines += chunk.iter().map(|b| u64::from(*b == b'\n')).sum::<u64>();
        at += length(chunk);
    }
    Ok(lines)
}
