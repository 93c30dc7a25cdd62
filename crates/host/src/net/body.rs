//! Bodies under their bounds: what the guest sends is counted, and what comes back is counted, timed and scanned.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use govrun_verdict::HttpTarget;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::client::Client;
use super::live::Ending;
use super::secret::Scanner;
use super::{Bounds, NetError};
use crate::effect::exchange;
use crate::effect::http::HttpError;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body, counted and bounded.
pub(super) struct Counted<B> {
    pub(super) inner: B,
    pub(super) ending: Arc<Ending>,
    pub(super) most: u64,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B>
where
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
            // Trailers are headers that nobody decided on.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Some(Ok(data)),
                Err(_) => None,
            },
            Some(Err(error)) => Some(Err(error.into())),
            None => None,
        };
        Poll::Ready(next.map(|data| {
            let data = data?;
            if self.ending.sent(data.len()) > self.most {
                self.ending.went_over_limit();
                return Err(HttpError::RequestTooLarge(self.most).into());
            }
            Ok(Frame::data(data))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A request's body that a guest writes piece by piece. The next piece is taken when the last one is on its way.
pub(crate) struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    length: Option<u64>,
}

impl Pieces {
    /// The body and where to write it; exactly `length` bytes if that is said before.
    pub(crate) fn new(length: Option<u64>) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, pieces) = mpsc::channel(1);
        (sender, Self { pieces, length })
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let piece = ready!(self.pieces.poll_recv(context));
        if let (Some(left), Some(piece)) = (&mut self.length, &piece) {
            *left = left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        }
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.length == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer's body. Its grants end with it; a bound that it goes over is recorded as a refusal.
pub(crate) struct AnswerBody {
    pub(super) inner: Option<Incoming>,
    pub(super) scanner: Option<Scanner>,
    pub(super) ending: Arc<Ending>,
    pub(super) bounds: Bounds,
    pub(super) until: Instant,
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    pub(super) client: Client,
    pub(super) target: HttpTarget,
}

impl AnswerBody {
    /// The next bytes, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, NetError>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, NetError>>> {
        loop {
            let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
            let frame = match Pin::new(inner).poll_frame(context) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.poll_late(context));
                    return self.fail(HttpError::Deadline(millis(self.bounds.idle)));
                }
            };
            self.timer = None;
            if Instant::now() >= self.until {
                return self.fail(HttpError::Deadline(millis(self.bounds.total)));
            }
            match self.take(frame) {
                Ok(Some(bytes)) if bytes.is_empty() => {}
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(bytes))),
                Ok(None) => return Poll::Ready(None),
                Err(error) => return self.fail(error),
            }
        }
    }

    /// Ready when nothing has come for as long as may be.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let end = (Instant::now() + self.bounds.idle).min(self.until);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        timer.as_mut().poll(context)
    }

    fn take(
        &mut self,
        frame: Option<Result<Frame<Bytes>, hyper::Error>>,
    ) -> Result<Option<Bytes>, HttpError> {
        let Some(frame) = frame else {
            self.inner = None;
            self.ending.finish(None);
            let rest = self.scanner.as_mut().map(Scanner::end).filter(|rest| !rest.is_empty());
            return Ok(rest.map(Bytes::from));
        };
        let frame = frame.map_err(|e| exchange::failed(&e, self.bounds.header_bytes))?;
        // Trailers are headers that came too late to be looked at.
        let Ok(data) = frame.into_data() else { return Ok(Some(Bytes::new())) };
        if self.ending.received(data.len()) > self.bounds.response_bytes {
            return Err(HttpError::BodyTooLarge(self.bounds.response_bytes));
        }
        match &mut self.scanner {
            Some(scanner) => scanner.body(&data).map(Bytes::from).map(Some),
            None => Ok(Some(data)),
        }
    }

    fn fail(&mut self, error: HttpError) -> Poll<Option<Result<Bytes, NetError>>> {
        self.inner = None;
        self.ending.finish(Some(error.kind()));
        Poll::Ready(Some(Err(self.client.settle(&self.target, error.into()))))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = NetError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, NetError>>> {
        self.poll_next(context).map(|next| next.map(|result| result.map(Frame::data)))
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
