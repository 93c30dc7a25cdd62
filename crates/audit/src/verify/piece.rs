//! A log in pieces of whole lines, so that many threads can look at it in bounded memory.

use std::fs::File;
use std::io::{self, Read as _, Take};
use std::path::PathBuf;
use std::sync::Arc;

use crate::form::MAX_LINE;
use crate::storage::open_read;

/// Bytes of a piece, more or less: it ends with a line.
const PIECE: usize = 1 << 19;

/// Whole lines of one segment.
pub(super) struct Piece {
    /// File name of the segment.
    pub(super) segment: Arc<str>,
    /// True for the first piece of a segment.
    pub(super) first: bool,
    /// Where in the segment it begins.
    pub(super) byte: u64,
    /// Lines, each with its newline.
    pub(super) bytes: Vec<u8>,
    /// What follows the lines.
    pub(super) tail: Tail,
}

/// What follows the whole lines of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tail {
    /// More lines, the next segment, or the end of the log.
    Nothing,
    /// A line without end, in the last segment or in one before.
    Torn { last_segment: bool },
    /// Zero bytes to the end of the segment.
    Zeros,
    /// A line longer than a line may be.
    TooLong,
    /// The system refused.
    Failed(String),
}

struct Open {
    name: Arc<str>,
    file: Take<File>,
    byte: u64,
    begun: bool,
    /// The beginning of a line that the piece before did not end.
    carried: Vec<u8>,
}

/// Hands out one piece after the other. A segment is read as far as it was long when it was opened.
pub(super) struct Pieces {
    segments: std::vec::IntoIter<PathBuf>,
    open: Option<Open>,
}

impl Pieces {
    pub(super) fn of(segments: Vec<PathBuf>) -> Self {
        Self { segments: segments.into_iter(), open: None }
    }

    /// The next piece. After one whose tail is not [`Tail::Nothing`] there is none.
    pub(super) fn next(&mut self) -> Option<Piece> {
        loop {
            let open = match self.open.take() {
                Some(open) => open,
                None => {
                    let path = self.segments.next()?;
                    let name: Arc<str> =
                        path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default().into();
                    match open_segment(&path, Arc::clone(&name)) {
                        Ok(open) => open,
                        Err(e) => {
                            return Some(self.end(name, 0, true, Vec::new(), Tail::Failed(e.to_string())));
                        }
                    }
                }
            };
            match self.read(open) {
                Some(piece) => return Some(piece),
                None => continue,
            }
        }
    }

    fn end(&mut self, segment: Arc<str>, byte: u64, first: bool, bytes: Vec<u8>, tail: Tail) -> Piece {
        self.segments = Vec::new().into_iter();
        self.open = None;
        Piece { segment, first, byte, bytes, tail }
    }

    /// One piece of an open segment; `None` at its end.
    fn read(&mut self, mut open: Open) -> Option<Piece> {
        let mut bytes = std::mem::take(&mut open.carried);
        let before = bytes.len();
        let wanted = u64::try_from(PIECE).unwrap_or(u64::MAX);
        let read = (&mut open.file).take(wanted).read_to_end(&mut bytes);
        let first = !std::mem::replace(&mut open.begun, true);
        let Open { name, byte, .. } = &open;
        let (name, byte) = (Arc::clone(name), *byte);
        if let Err(e) = read {
            return Some(self.end(name, byte, first, Vec::new(), Tail::Failed(e.to_string())));
        }
        let at_end = bytes.len() - before < PIECE;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let rest = bytes.split_off(whole);
        if rest.len() > MAX_LINE || (at_end && !rest.is_empty()) {
            let zero = rest.iter().all(|b| *b == 0);
            let tail = match (zero && (at_end || rest_is_zero(&mut open.file).unwrap_or(false)), rest.len()) {
                (true, 1..) => Tail::Zeros,
                (_, length) if length > MAX_LINE => Tail::TooLong,
                (true | false, _) => Tail::Torn { last_segment: self.segments.as_slice().is_empty() },
            };
            return Some(self.end(name, byte, first, bytes, tail));
        }
        if bytes.is_empty() && at_end && !first {
            return None;
        }
        open.byte += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        open.carried = rest;
        self.open = (!at_end).then_some(open);
        Some(Piece { segment: name, first, byte, bytes, tail: Tail::Nothing })
    }
}

fn open_segment(path: &std::path::Path, name: Arc<str>) -> io::Result<Open> {
    let file = open_read(path)?;
    let size = file.metadata()?.len();
    Ok(Open { name, file: file.take(size), byte: 0, begun: false, carried: Vec::new() })
}

/// Whether everything that is left is zero bytes, as a file system leaves behind where a file grew and its content was lost.
fn rest_is_zero(file: &mut Take<File>) -> io::Result<bool> {
    let mut chunk = vec![0_u8; 1 << 16];
    loop {
        let read = file.read(&mut chunk)?;
        match chunk.get(..read) {
            Some([]) | None => return Ok(true),
            Some(bytes) if bytes.iter().any(|b| *b != 0) => return Ok(false),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(files: &[&[u8]]) -> Vec<(String, u64, usize, Tail)> {
        let dir = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for (i, bytes) in files.iter().enumerate() {
            let path = dir.path().join(format!("{i}.jsonl"));
            std::fs::write(&path, bytes).unwrap();
            paths.push(path);
        }
        let mut all = Pieces::of(paths);
        let mut out = Vec::new();
        while let Some(piece) = all.next() {
            assert!(piece.bytes.is_empty() || piece.bytes.ends_with(b"\n"));
            out.push((piece.segment.to_string(), piece.byte, piece.bytes.len(), piece.tail));
        }
        out
    }

    #[test]
    fn pieces_end_with_lines_and_cover_the_file() {
        let line = [vec![b'x'; 1000], vec![b'\n']].concat();
        let file = line.repeat(2_000);
        let found = pieces(&[&file]);
        assert!(found.len() >= 3, "{found:?}");
        let mut byte = 0;
        for (_, at, length, tail) in &found {
            assert_eq!((usize::try_from(*at).unwrap(), tail), (byte, &Tail::Nothing));
            byte += length;
        }
        assert_eq!(byte, file.len());
    }

    #[test]
    fn what_follows_the_lines_is_told() {
        let last = |bytes: &[u8]| pieces(&[bytes]).pop().unwrap().3;
        assert_eq!(last(b"a\n"), Tail::Nothing);
        assert_eq!(last(b""), Tail::Nothing);
        assert_eq!(last(b"a\nb"), Tail::Torn { last_segment: true });
        assert_eq!(last(&[b"a\n".to_vec(), vec![0; 10]].concat()), Tail::Zeros);
        assert_eq!(last(&[b"a\n".to_vec(), vec![0; 3 << 20]].concat()), Tail::Zeros);
        assert_eq!(last(&[b"a\n".to_vec(), vec![b'x'; MAX_LINE + 1]].concat()), Tail::TooLong);
        assert_eq!(last(&[b"a\n".to_vec(), vec![b'x'; MAX_LINE], b"\n".to_vec()].concat()), Tail::Nothing);
        assert_eq!(last(&[vec![b'x'; 5 << 20], b"\n".to_vec()].concat()), Tail::TooLong);
        assert_eq!(last(&[vec![0; 3 << 20], b"x\n".to_vec()].concat()), Tail::TooLong);
    }

    #[test]
    fn a_torn_segment_that_is_not_the_last_is_told_apart() {
        let found = pieces(&[b"a\nb", b"c\n"]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].3, Tail::Torn { last_segment: false });
        let found = pieces(&[b"a\n", b"", b"c\n"]);
        assert_eq!(found.iter().map(|p| p.2).collect::<Vec<_>>(), [2, 0, 2]);
    }
}
