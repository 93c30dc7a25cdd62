//! The lines of a segment, one after the other, in bounded memory.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Take};
use std::path::{Path, PathBuf};

use crate::form::MAX_LINE;
use crate::storage::open_read;

/// One line, and where it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawLine<'a> {
    /// Without the newline. Of a line that is too long, the beginning.
    pub(crate) bytes: &'a [u8],
    /// What ended it.
    pub(crate) end: LineEnd,
    /// Number, from 1.
    pub(crate) number: u64,
    /// Offset in the file.
    pub(crate) byte: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineEnd {
    Newline,
    /// The file ends without a newline.
    EndOfFile,
    /// It is longer than a line may be; what follows is not read.
    TooLong,
}

/// Reads as far as the file was long when it was opened: a writer may go on meanwhile.
pub(crate) struct Lines {
    file: Take<BufReader<File>>,
    line: Vec<u8>,
    number: u64,
    byte: u64,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::open_from(path, 0)
    }

    /// From a place on where a line begins. Lines are counted from there.
    pub(crate) fn open_from(path: &Path, byte: u64) -> io::Result<Self> {
        let mut file = open_read(path)?;
        let size = file.metadata()?.len();
        let byte = file.seek(SeekFrom::Start(byte.min(size)))?;
        let file = BufReader::with_capacity(1 << 18, file).take(size - byte);
        Ok(Self { file, line: Vec::with_capacity(4096), number: 0, byte })
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<RawLine<'_>>> {
        self.line.clear();
        let longest = u64::try_from(MAX_LINE).unwrap_or(u64::MAX) + 1;
        let read = (&mut self.file).take(longest).read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        let end = if self.line.last() == Some(&b'\n') {
            self.line.pop();
            LineEnd::Newline
        } else if self.line.len() > MAX_LINE {
            LineEnd::TooLong
        } else {
            LineEnd::EndOfFile
        };
        self.number += 1;
        let byte = self.byte;
        self.byte += u64::try_from(read).unwrap_or(u64::MAX);
        Ok(Some(RawLine { bytes: &self.line, end, number: self.number, byte }))
    }
}

/// The segments of a log in order, and the first name in the sequence that is missing although a later one is there.
pub(crate) fn segments(log: &Path) -> io::Result<(Vec<PathBuf>, Option<String>)> {
    let mut numbers: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(log)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        let digits = digits.filter(|d| d.len() == 8 && d.bytes().all(|b| b.is_ascii_digit()));
        numbers.extend(digits.and_then(|d| d.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    let missing = (1_u64..).zip(&numbers).find(|(expected, found)| expected != *found);
    let missing = missing.map(|(expected, _)| format!("{expected:08}.jsonl"));
    let paths = numbers.iter().map(|n| log.join(format!("{n:08}.jsonl"))).collect();
    Ok((paths, missing))
}
