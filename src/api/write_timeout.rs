//! A stream whose writes fail if the peer takes no bytes for too long.
//!
//! hyper has a timeout for the head of a request, but no timeout for a response to a client that has stopped reading.
//! Without a write timeout, a response that the client does not read would stay in memory forever.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Minimum number of bytes that a slow peer must take within the timeout. If fewer bytes than this minimum are waiting
/// for the peer, the peer must take all waiting bytes.
const PROGRESS_BYTES: usize = 16 * 1_024;

/// Forwards reads and writes to the inner stream. A write fails with `TimedOut` if the peer is too slow. A peer is too
/// slow if it takes neither [`PROGRESS_BYTES`] bytes nor all waiting bytes within `stall_max`.
pub(crate) struct WriteTimeout<S> {
    stream: S,
    stall_max: Duration,
    /// The timer that runs while bytes are waiting for the peer.
    timer: Option<Pin<Box<Sleep>>>,
    /// The number of bytes that the peer has taken since the timer started.
    taken: usize,
}

impl<S> WriteTimeout<S> {
    pub(crate) fn new(stream: S, stall_max: Duration) -> WriteTimeout<S> {
        WriteTimeout {
            stream,
            stall_max,
            timer: None,
            taken: 0,
        }
    }

    fn stop_timer(&mut self) {
        self.timer = None;
        self.taken = 0;
    }

    fn count_taken(&mut self, result: &Poll<io::Result<usize>>) {
        if let (Some(_), Poll::Ready(Ok(bytes))) = (&self.timer, result) {
            self.taken += bytes;
            if self.taken >= PROGRESS_BYTES {
                self.stop_timer();
            }
        }
    }

    /// Returns a ready result unchanged. If the result is pending and the timer has expired, returns the error
    /// `TimedOut`.
    fn check_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            return result;
        }
        let deadline = Instant::now() + self.stall_max;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count_taken(&result);
        self.check_timeout(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count_taken(&result);
        self.check_timeout(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        if result.is_ready() {
            // hyper flushes after its last write, so a finished flush means that no bytes are waiting.
            self.stop_timer();
        }
        self.check_timeout(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.check_timeout(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_write_to_a_reader_that_stopped_fails() {
        let (ours, _theirs) = tokio::io::duplex(8);
        let mut guarded = WriteTimeout::new(ours, Duration::from_millis(20));
        let error = guarded.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_write_to_a_reader_of_single_bytes_fails() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut guarded = WriteTimeout::new(ours, Duration::from_millis(200));
        let reader = tokio::spawn(async move {
            while theirs.read(&mut [0]).await.is_ok_and(|n| n > 0) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let begun = Instant::now();
        let error = guarded.write_all(&[0; 64]).await.expect_err("too slow");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= Duration::from_millis(200));
        drop(guarded);
        reader.await.expect("it reads to the end");
    }

    #[tokio::test]
    async fn a_write_waits_for_a_reader_that_takes_everything_now_and_then() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut guarded = WriteTimeout::new(ours, Duration::from_millis(400));
        let writer = tokio::spawn(async move {
            for _ in 0..4 {
                guarded.write_all(&[0; 16]).await?;
                guarded.flush().await?;
            }
            Ok::<_, io::Error>(())
        });
        let mut buf = [0; 16];
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            theirs.read_exact(&mut buf).await.expect("16 bytes");
        }
        writer.await.expect("no panic").expect("it was in time");
    }
}
