//! Blocking calls in asynchronous code.

/// Runs a blocking call on one of Tokio's threads for such calls, and returns its result.
///
/// # Panics
/// If the call panics: with the same panic.
pub(crate) async fn run_blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
