//! Sends the body of a response in small pieces. The bytes of a response count against the memory limit of the client
//! until the last piece is sent.
//!
//! A body hands each of its frames to hyper as a whole, even if the client reads only a few bytes of the frame. With
//! small pieces, most of a response stays in [`PacedBody`] until the client reads it. Each piece that hyper takes shows
//! that the client is still reading.
//!
//! Over HTTP/2, the client's flow-control window limits how many bytes hyper may send. While the window is full, hyper
//! takes no piece of the body. [`WriteProgress`] then detects this. The last byte of a
//! response is a separate piece, because hyper takes a piece as soon as one byte of the piece fits into the window.
//! Hyper therefore takes the last byte only after the window has had room for all earlier bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::api::shares::{BASE_BYTES, ByteShare};
use crate::api::usage::InFlight;

/// Maximum size of a piece of a body, in bytes.
pub(super) const PIECE_BYTES_MAX: usize = 16 * 1_024;

/// Keeps track of whether the client takes the pieces of a response.
pub(super) struct WriteProgress {
    begun: Instant,
    /// The time at which the waiting piece was offered, or zero if no piece is waiting. The time is stored as the
    /// number of milliseconds since `begun`, plus one.
    offered: AtomicU64,
}

impl WriteProgress {
    pub(super) fn new() -> Arc<WriteProgress> {
        Arc::new(WriteProgress {
            begun: Instant::now(),
            offered: AtomicU64::new(0),
        })
    }

    fn record_offer(&self) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.offered.store(ms + 1, Ordering::Relaxed);
    }

    fn record_taken(&self) {
        self.offered.store(0, Ordering::Relaxed);
    }

    /// Waits until hyper has ignored an offered piece for the duration `stall_max`.
    pub(super) async fn wait_for_stall(&self, stall_max: Duration) {
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

/// A response body that hyper takes in small pieces.
pub(super) struct PacedBody {
    inner: Body,
    /// The part of the current frame that hyper has not taken yet.
    rest: Bytes,
    /// The write progress of the stream; `None` over HTTP/1.1.
    progress: Option<Arc<WriteProgress>>,
    share: Option<ByteShare>,
    _in_flight: InFlight,
}

impl PacedBody {
    /// Wraps the body `inner`. `share` counts the bytes of the body, and is `None` for an error response.
    pub(super) fn new(
        inner: Body,
        progress: Option<Arc<WriteProgress>>,
        share: Option<ByteShare>,
        in_flight: InFlight,
    ) -> PacedBody {
        PacedBody {
            inner,
            rest: Bytes::new(),
            progress,
            share,
            _in_flight: in_flight,
        }
    }

    fn take_piece(&mut self) -> Bytes {
        let is_last = self.rest.len() <= PIECE_BYTES_MAX && self.inner.is_end_stream();
        let bytes = match (&self.progress, is_last) {
            (Some(_), true) if self.rest.len() > 1 => self.rest.len() - 1,
            _ => self.rest.len().min(PIECE_BYTES_MAX),
        };
        if let Some(progress) = &self.progress {
            progress.record_offer();
        }
        self.rest.split_to(bytes)
    }
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(progress) = &self.progress {
            progress.record_taken();
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
            // The handler has already counted the bytes of a body with a known length. The length of a stream is
            // unknown, so this function counts the bytes of each frame when the frame arrives.
            let is_stream = self.inner.size_hint().upper().is_none();
            if let Some(share) = &self.share
                && is_stream
                && !share.resize(BASE_BYTES + data.len())
            {
                let error = "the client holds too many unread bytes";
                return Poll::Ready(Some(Err(axum::Error::new(error))));
            }
            self.rest = data;
        }
        Poll::Ready(Some(Ok(Frame::data(self.take_piece()))))
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

    async fn pieces(inner: Body, progress: Option<Arc<WriteProgress>>) -> Vec<usize> {
        let mut body = PacedBody::new(inner, progress, None, InFlight::default());
        let mut sizes = Vec::new();
        while let Some(frame) = body.frame().await {
            sizes.push(frame.unwrap().into_data().unwrap().len());
        }
        sizes
    }

    #[tokio::test]
    async fn a_body_is_sent_in_pieces_and_its_last_byte_alone() {
        let large = vec![b'x'; 2 * PIECE_BYTES_MAX + 10];
        let body = || Body::from(large.clone());
        assert_eq!(
            pieces(body(), None).await,
            [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 10]
        );
        let progress = Some(WriteProgress::new());
        assert_eq!(
            pieces(body(), progress).await,
            [PIECE_BYTES_MAX, PIECE_BYTES_MAX, 9, 1]
        );
        assert_eq!(
            pieces(Body::from("x"), Some(WriteProgress::new())).await,
            [1]
        );
        let paced = PacedBody::new(body(), None, None, InFlight::default());
        assert_eq!(paced.size_hint().exact(), Some(large.len() as u64));
    }

    #[tokio::test]
    async fn an_untaken_piece_is_a_stall_but_a_quiet_stream_is_not() {
        let stall_max = Duration::from_millis(200);
        let progress = WriteProgress::new();
        let quiet = tokio::time::timeout(2 * stall_max, progress.wait_for_stall(stall_max)).await;
        assert!(quiet.is_err(), "nothing was offered");
        progress.record_offer();
        let begun = Instant::now();
        progress.wait_for_stall(stall_max).await;
        assert!(begun.elapsed() >= stall_max, "{:?}", begun.elapsed());
        progress.record_taken();
        let taken = tokio::time::timeout(2 * stall_max, progress.wait_for_stall(stall_max)).await;
        assert!(taken.is_err(), "it was taken");
    }
}
