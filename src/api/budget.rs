//! What one client's reads may cost: so many read units of DynamoDB within a minute.
//!
//! An answer's cost is known when it is made, so it is charged then; a client that has spent its units is
//! refused until its minute is over. Requests under way are not ended, and each is bounded by
//! [`super::state::READ_UNITS_MAX`]. A shared answer costs the client that had it made.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::RETRY_AFTER;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use moka::sync::Cache;

use crate::api::access::{Peer, client};
use crate::api::error::ApiError;
use crate::api::spent::Spent;

const MINUTE: Duration = Duration::from_secs(60);
/// Most clients remembered; further ones take the place of others, at some 200 bytes each.
const CLIENTS_MAX: u64 = 100_000;

/// The read units of a minute, by client. Clones are the same.
#[derive(Clone)]
pub(crate) struct ReadBudget {
    units_max: u64,
    minutes: Cache<IpAddr, Arc<Minute>>,
}

/// What a client has spent since its minute began.
struct Minute {
    begun: Instant,
    milliunits: AtomicU64,
}

impl ReadBudget {
    pub(crate) fn new(units_max: u64) -> ReadBudget {
        ReadBudget {
            units_max,
            minutes: Cache::builder()
                .time_to_live(MINUTE)
                .max_capacity(CLIENTS_MAX)
                .build(),
        }
    }

    /// Returns the client's minute, or after how many seconds to ask again.
    fn minute(&self, client: IpAddr) -> Result<Arc<Minute>, u64> {
        let minute = self.minutes.get_with(client, || {
            Arc::new(Minute {
                begun: Instant::now(),
                milliunits: AtomicU64::new(0),
            })
        });
        if minute.milliunits.load(Ordering::Relaxed) / 1_000 < self.units_max {
            return Ok(minute);
        }
        let left = MINUTE.saturating_sub(minute.begun.elapsed());
        Err(left.as_secs() + 1)
    }

    /// Answers, and charges what the answer cost; 429 where nothing is left.
    pub(crate) async fn charge(self, request: Request, next: Next) -> Response {
        let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else {
            return next.run(request).await;
        };
        let minute = match self.minute(client(peer.ip())) {
            Ok(minute) => minute,
            Err(seconds) => {
                let mut refused = ApiError::read_budget_spent(self.units_max).into_response();
                refused
                    .headers_mut()
                    .insert(RETRY_AFTER, HeaderValue::from(seconds));
                return refused;
            }
        };
        let response = next.run(request).await;
        if let Some(Spent(units)) = response.extensions().get() {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
            let milliunits = (units * 1_000.0).clamp(0.0, 1e12) as u64;
            minute.milliunits.fetch_add(milliunits, Ordering::Relaxed);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_client_that_has_spent_its_units_waits_and_others_do_not() {
        let budget = ReadBudget::new(100);
        let costly = get(|| async {
            let mut response = "".into_response();
            response.extensions_mut().insert(Spent(40.0));
            response
        });
        let router =
            Router::new()
                .route("/", costly)
                .layer(from_fn(move |request: Request, next: Next| {
                    budget.clone().charge(request, next)
                }));
        let ask = async |peer: &str| {
            let peer = Peer(format!("{peer}:1").parse().unwrap());
            let request = Request::get("/").extension(peer).body(Body::empty());
            router.clone().oneshot(request.unwrap()).await.unwrap()
        };
        for _ in 0..3 {
            assert_eq!(ask("192.0.2.1").await.status(), 200);
        }
        let refused = ask("192.0.2.1").await;
        assert_eq!(refused.status(), 429);
        let seconds = refused.headers()[RETRY_AFTER].to_str().unwrap();
        assert!((50..=60).contains(&seconds.parse::<u64>().unwrap()));
        assert_eq!(ask("192.0.2.2").await.status(), 200);
    }
}
