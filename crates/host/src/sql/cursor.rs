//! A result that is fetched while it is read: the engine is never more than a few batches ahead of the guest.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::{SqlError, SqlValue};

/// Most rows of one batch.
const BATCH_ROWS: usize = 64;
/// A batch with this many bytes is full.
const BATCH_BYTES: usize = 64 * 1024;
/// Batches that wait for the reader.
const BATCHES: usize = 2;

type Row = Vec<SqlValue>;

/// What an engine tells of a result.
#[derive(Debug)]
pub(crate) enum Event {
    Columns(Vec<String>),
    Rows(Vec<Row>),
    Failed(SqlError),
    /// The result is complete: without it the engine ended early.
    End,
}

/// Where an engine's thread or task puts a result. When the reader is gone, so is the reason to go on.
pub(crate) struct Feed {
    events: mpsc::Sender<Event>,
    batch: Vec<Row>,
    bytes: usize,
}

/// The reader is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// The reading end.
#[derive(Debug)]
pub(crate) struct Cursor {
    columns: Vec<String>,
    events: mpsc::Receiver<Event>,
    waiting: VecDeque<Row>,
    ended: bool,
}

/// Both ends; the columns come first.
pub(crate) fn feed() -> (Feed, mpsc::Receiver<Event>) {
    let (sender, receiver) = mpsc::channel(BATCHES);
    (Feed { events: sender, batch: Vec::new(), bytes: 0 }, receiver)
}

impl Feed {
    /// The batch to send, when this row makes it full.
    fn add(&mut self, row: Row) -> Option<Event> {
        self.bytes = row.iter().fold(self.bytes, |sum, value| sum.saturating_add(value.weight()));
        self.batch.push(row);
        let full = self.batch.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES;
        full.then(|| self.take())
    }

    fn take(&mut self) -> Event {
        self.bytes = 0;
        Event::Rows(std::mem::take(&mut self.batch))
    }

    /// Tell something from a thread of its own.
    pub(crate) fn tell_blocking(&self, event: Event) -> Result<(), Gone> {
        self.events.blocking_send(event).map_err(|_| Gone)
    }

    /// One row from a thread of its own.
    pub(crate) fn row_blocking(&mut self, row: Row) -> Result<(), Gone> {
        self.add(row).map_or(Ok(()), |full| self.tell_blocking(full))
    }

    /// The last event from a thread of its own, after the rows that wait.
    pub(crate) fn end_blocking(mut self, ended: Result<(), SqlError>) {
        let rest = if self.batch.is_empty() { None } else { Some(self.take()) };
        let told = rest.map_or(Ok(()), |rows| self.tell_blocking(rows));
        let _ = told.and_then(|()| self.tell_blocking(last(ended)));
    }
}

fn last(ended: Result<(), SqlError>) -> Event {
    match ended {
        Ok(()) => Event::End,
        Err(error) => Event::Failed(error),
    }
}

impl Cursor {
    /// Wait for the columns: the statement is prepared then, and has begun.
    ///
    /// # Errors
    /// Why the statement gives no result.
    pub(crate) async fn open(mut events: mpsc::Receiver<Event>) -> Result<Self, SqlError> {
        match events.recv().await {
            Some(Event::Columns(columns)) => {
                Ok(Self { columns, events, waiting: VecDeque::new(), ended: false })
            }
            Some(Event::Failed(error)) => Err(error),
            Some(Event::Rows(_) | Event::End) | None => Err(broken()),
        }
    }

    /// A result that is there already.
    pub(crate) fn whole(columns: Vec<String>, rows: Vec<Row>) -> Self {
        let (_, events) = mpsc::channel(1);
        Self { columns, events, waiting: rows.into(), ended: true }
    }

    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// At most `most` further rows, at least one; none at the end.
    ///
    /// # Errors
    /// Why there is no more although the result is not complete.
    pub(crate) async fn next(&mut self, most: usize) -> Result<Vec<Row>, SqlError> {
        while self.waiting.is_empty() && !self.ended {
            match self.events.recv().await {
                Some(Event::Rows(rows)) => self.waiting.extend(rows),
                Some(Event::End) => self.ended = true,
                Some(Event::Failed(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Some(Event::Columns(_)) | None => {
                    self.ended = true;
                    return Err(broken());
                }
            }
        }
        let count = most.clamp(1, self.waiting.len().max(1)).min(self.waiting.len());
        Ok(self.waiting.drain(..count).collect())
    }
}

fn broken() -> SqlError {
    SqlError::Failed("the engine ended before its result did".to_owned())
}
