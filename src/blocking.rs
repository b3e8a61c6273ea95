//! Runs blocking calls from asynchronous code.

/// Runs a blocking call on one of Tokio's threads for blocking tasks, and returns its result.
///
/// # Panics
/// Panics if the call panics.
pub(crate) async fn run_blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> T {
    match tokio::task::spawn_blocking(call).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
