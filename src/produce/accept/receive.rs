//! Reads a request body into memory, up to a maximum size, and unpacks the body if it is compressed with gzip.
//!
//! While a body is in memory, its bytes count toward the share of memory that the client may use. Unpacking stops at
//! the maximum size, so a small gzip body cannot fill the memory.

use std::io::{self, Write};

use axum::body::{Body, HttpBody as _};
use flate2::write::MultiGzDecoder;
use http_body_util::{BodyExt as _, LengthLimitError};

use crate::api::error::ApiError;
use crate::api::server::{BASE_BYTES, ByteShare};

/// Maximum size of a request body in bytes. The limit applies to the body as received, and also to the unpacked body.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;

/// Reads the whole body of a request.
///
/// # Errors
/// Returns status 400 if the body ends early or is not valid gzip. Returns status 413 if the body is too large, and
/// status 503 if too many bytes of other requests are in memory.
pub(super) async fn receive(
    body: Body,
    is_gzip: bool,
    share: &ByteShare,
) -> Result<Vec<u8>, ApiError> {
    let announced = body.size_hint().upper().filter(|_| !is_gzip);
    let announced = announced.and_then(|bytes| usize::try_from(bytes).ok());
    let collected = PartialBody {
        bytes: Vec::new(),
        capacity_max: announced.map_or(BODY_BYTES_MAX, |bytes| bytes.min(BODY_BYTES_MAX)),
        share,
        refusal: None,
    };
    if is_gzip {
        let mut unpacked = MultiGzDecoder::new(collected);
        let done = copy(body, &mut unpacked).await;
        let done = done.and_then(|()| unpacked.try_finish().map_err(|_| not_gzip()));
        let collected = unpacked.get_mut();
        finish(collected.refusal.take(), done)?;
        Ok(std::mem::take(&mut collected.bytes))
    } else {
        let mut collected = collected;
        let done = copy(body, &mut collected).await;
        finish(collected.refusal, done)?;
        Ok(collected.bytes)
    }
}

/// Returns the error `refusal` if the body was refused, and otherwise `done`, which is the result of copying the body.
fn finish(refusal: Option<ApiError>, done: Result<(), ApiError>) -> Result<(), ApiError> {
    refusal.map_or(done, Err)
}

async fn copy(mut body: Body, to: &mut impl Write) -> Result<(), ApiError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| read_error(&error))?;
        if let Ok(data) = frame.into_data() {
            to.write_all(&data).map_err(|_| not_gzip())?;
        }
        // Unpacking takes time, so the loop lets other requests run after each frame of the body.
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn not_gzip() -> ApiError {
    ApiError::bad_body("the body is not complete gzip, as Content-Encoding says")
}

fn read_error(error: &axum::Error) -> ApiError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return ApiError::body_too_large(BODY_BYTES_MAX);
        }
        cause = error.source();
    }
    ApiError::bad_body("the body ended before its announced end")
}

/// The part of a request body that has already arrived.
struct PartialBody<'a> {
    bytes: Vec<u8>,
    /// Maximum number of bytes for which memory is reserved before the bytes arrive.
    capacity_max: usize,
    share: &'a ByteShare,
    /// The error with which the body was refused, or `None` if the body was not refused. An `io::Error` cannot carry an
    /// `ApiError`, so `write` stores the `ApiError` in this field.
    refusal: Option<ApiError>,
}

impl Write for PartialBody<'_> {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let needed = self.bytes.len() + piece.len();
        if needed > BODY_BYTES_MAX {
            self.refusal = Some(ApiError::body_too_large(BODY_BYTES_MAX));
            return Err(io::ErrorKind::Other.into());
        }
        if needed > self.bytes.capacity() {
            let ahead = (2 * self.bytes.capacity()).min(self.capacity_max);
            let capacity = needed.max(ahead);
            if !self.share.resize(BASE_BYTES + capacity) {
                self.refusal = Some(ApiError::busy());
                return Err(io::ErrorKind::Other.into());
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http_body_util::Limited;

    use super::*;

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    }

    async fn received(body: Vec<u8>, is_gzip: bool) -> Result<Vec<u8>, (u16, &'static str)> {
        let share = ByteShare::alone(BASE_BYTES + BODY_BYTES_MAX);
        let body = Body::new(Limited::new(Body::from(body), BODY_BYTES_MAX));
        let received = receive(body, is_gzip, &share).await;
        received.map_err(|error| (error.status().as_u16(), error.code()))
    }

    #[tokio::test]
    async fn a_body_is_read_as_it_is_and_gzip_is_unpacked() {
        let text = b"some text\n".repeat(50_000);
        assert_eq!(received(text.clone(), false).await.as_ref(), Ok(&text));
        assert_eq!(received(packed(&text), true).await.as_ref(), Ok(&text));
        let two = [packed(b"a"), packed(b"b")].concat();
        assert_eq!(received(two, true).await, Ok(b"ab".to_vec()));
        assert_eq!(received(Vec::new(), false).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn broken_gzip_is_refused() {
        let whole = packed(b"some text");
        for broken in [&whole[..whole.len() - 1], &whole[..12], b"", b"plain text"] {
            let want = Err((400, "bad_body"));
            assert_eq!(received(broken.to_vec(), true).await, want, "{broken:?}");
        }
        let trailing = [&whole[..], b"x"].concat();
        assert_eq!(received(trailing, true).await, Err((400, "bad_body")));
    }

    #[tokio::test]
    async fn neither_a_large_body_nor_a_small_one_that_unpacks_to_it_is_kept() {
        let exact = vec![b'x'; BODY_BYTES_MAX];
        let large = vec![b'x'; BODY_BYTES_MAX + 1];
        assert_eq!(received(exact.clone(), false).await.as_ref(), Ok(&exact));
        assert_eq!(received(packed(&exact), true).await, Ok(exact));
        let want = Err((413, "body_too_large"));
        assert_eq!(received(large.clone(), false).await, want);
        assert_eq!(received(packed(&large), true).await, want);
    }

    #[tokio::test]
    async fn a_client_that_holds_too_many_bytes_is_refused() {
        let share = ByteShare::alone(BASE_BYTES + 1_000);
        let receive = async |bytes: usize| {
            let received = receive(Body::from(vec![b'x'; bytes]), false, &share).await;
            received
                .map(|body| body.len())
                .map_err(|error| error.code())
        };
        assert_eq!(receive(1_000).await, Ok(1_000));
        assert_eq!(receive(1_001).await, Err("busy"));
    }
}
