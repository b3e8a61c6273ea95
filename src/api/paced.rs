//! The body of an answer as a connection takes it: in small pieces, counted until it is sent.
//!
//! hyper takes a frame of a body whole, however little of it the client takes. In pieces, an answer
//! stays with us until nearly all of it is on its way, and each piece that is taken is progress.
//!
//! Over HTTP/2 a client grants room for bytes, and hyper does not ask the body for more until there is
//! some. [`Progress`] sees that from outside: a piece is offered, and not taken. The last byte is a
//! piece of its own: hyper hands a piece to h2 as soon as one byte of it has room, so once the last
//! byte is taken there is room for everything before it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::api::connection::InUse;
use crate::api::shares::ByteShare;

/// Most bytes of a piece.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1_024;
/// What a request and an answer take beside their text: tasks, buffers, headers. Measured: 13 KiB for each
/// of 3,200 streams of HTTP/2 whose client takes nothing.
pub(super) const BASE_BYTES: usize = 16 * 1_024;

/// Whether the client takes what it is offered.
pub(super) struct Progress {
    begun: Instant,
    /// When the piece that waits was offered, in milliseconds since `begun` and one more; 0 if none waits.
    offered: AtomicU64,
}

impl Progress {
    pub(super) fn new() -> Arc<Progress> {
        Arc::new(Progress {
            begun: Instant::now(),
            offered: AtomicU64::new(0),
        })
    }

    fn offer(&self) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.offered.store(ms + 1, Ordering::Relaxed);
    }

    fn taken(&self) {
        self.offered.store(0, Ordering::Relaxed);
    }

    /// Waits until a piece was offered for `stall_max` and not taken.
    pub(super) async fn stalled(&self, stall_max: Duration) {
        loop {
            tokio::time::sleep(stall_max / 8).await;
            let offered = self.offered.load(Ordering::Relaxed);
            let since = Duration::from_millis(offered.saturating_sub(1));
            if offered > 0 && self.begun.elapsed() >= since + stall_max {
                return;
            }
        }
    }
}

/// A body in pieces.
pub(super) struct Paced {
    inner: Body,
    /// What is left of the frame that is handed out.
    rest: Bytes,
    /// Over HTTP/2.
    progress: Option<Arc<Progress>>,
    share: Option<ByteShare>,
    _in_use: InUse,
}

impl Paced {
    /// `share` counts the body's bytes; none if it is too short to count.
    pub(super) fn new(
        inner: Body,
        progress: Option<Arc<Progress>>,
        share: Option<ByteShare>,
        in_use: InUse,
    ) -> Paced {
        Paced {
            inner,
            rest: Bytes::new(),
            progress,
            share,
            _in_use: in_use,
        }
    }

    fn piece(&mut self) -> Bytes {
        let is_last = self.rest.len() <= PIECE_BYTES_MAX && self.inner.is_end_stream();
        let bytes = match (&self.progress, is_last) {
            (Some(_), true) if self.rest.len() > 1 => self.rest.len() - 1,
            _ => self.rest.len().min(PIECE_BYTES_MAX),
        };
        if let Some(progress) = &self.progress {
            progress.offer();
        }
        self.rest.split_to(bytes)
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(progress) = &self.progress {
            progress.taken();
        }
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            let data = match frame.into_data() {
                Ok(data) if !data.is_empty() => data,
                Ok(empty) => return Poll::Ready(Some(Ok(Frame::data(empty)))),
                Err(other) => return Poll::Ready(Some(Ok(other))),
            };
            // A body of known length is counted whole; a stream, by what it hands out.
            let is_stream = self.inner.size_hint().upper().is_none();
            if let Some(share) = &mut self.share
                && is_stream
                && !share.resize(BASE_BYTES + data.len())
            {
                let error = "the client holds too much at a time";
                return Poll::Ready(Some(Err(axum::Error::new(error))));
            }
            self.rest = data;
        }
        Poll::Ready(Some(Ok(Frame::data(self.piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn pieces(inner: Body, progress: Option<Arc<Progress>>) -> Vec<usize> {
        let mut body = Paced::new(inner, progress, None, InUse::default());
        let mut sizes = Vec::new();
        while let Some(frame) = body.frame().await {
            sizes.push(frame.unwrap().into_data().unwrap().len());
        }
        sizes
    }

    #[tokio::test]
    async fn a_body_goes_out_in_pieces_and_its_last_byte_alone() {
        let large = vec![b'x'; 2 * PIECE_BYTES_MAX + 10];
        let body = || Body::from(large.clone());
        assert_eq!(
            pieces(body(), None).await,
            [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 10]
        );
        let progress = Some(Progress::new());
        assert_eq!(
            pieces(body(), progress).await,
            [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 9, 1]
        );
        assert_eq!(pieces(Body::from("x"), Some(Progress::new())).await, [1]);
        let paced = Paced::new(body(), None, None, InUse::default());
        assert_eq!(paced.size_hint().exact(), Some(large.len() as u64));
    }

    #[tokio::test]
    async fn a_piece_that_is_not_taken_is_a_stall_and_a_quiet_stream_is_not() {
        let stall_max = Duration::from_millis(200);
        let progress = Progress::new();
        let quiet = tokio::time::timeout(2 * stall_max, progress.stalled(stall_max)).await;
        assert!(quiet.is_err(), "nothing was offered");
        progress.offer();
        let begun = Instant::now();
        progress.stalled(stall_max).await;
        assert!(begun.elapsed() >= stall_max, "{:?}", begun.elapsed());
        progress.taken();
        let taken = tokio::time::timeout(2 * stall_max, progress.stalled(stall_max)).await;
        assert!(taken.is_err(), "it was taken");
    }
}
