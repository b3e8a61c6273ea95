//! Limits the DynamoDB read units that one client may spend per minute.
//!
//! The server charges a client after computing the response, because the cost of a response is unknown until then. A
//! client that has spent its read units gets status 429 until its current minute is over. Requests in flight still
//! finish, and each request costs at most [`super::state::READ_UNITS_MAX`]. If several clients share a response, only
//! the client whose request computed the response is charged.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use moka::sync::Cache;

use crate::api::access::{Peer, client};
use crate::api::error::ApiError;
use crate::api::spent::Spent;

const MINUTE: Duration = Duration::from_secs(60);
/// Maximum number of clients for which the server remembers the spent read units. Each client takes about 200 bytes. If
/// more clients send requests, the server forgets the spending of some older clients.
const CLIENTS_MAX: u64 = 100_000;

/// The read units that each client has spent. All clones share one count.
#[derive(Clone)]
pub(crate) struct ReadBudget {
    units_max: u64,
    minutes: Cache<IpAddr, Arc<ClientMinute>>,
}

/// The read units that a client has spent since its current minute began.
struct ClientMinute {
    begun: Instant,
    milliunits: AtomicU64,
}

impl ClientMinute {
    fn add(&self, units: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the value is clamped
        let milliunits = (units * 1_000.0).clamp(0.0, 1e12) as u64;
        self.milliunits.fetch_add(milliunits, Ordering::Relaxed);
    }
}

/// Charges a client for read units that are spent after the response has begun. The middleware adds a `ReadCharge` to
/// the extensions of each request.
#[derive(Clone)]
pub(crate) struct ReadCharge(Arc<ClientMinute>);

impl ReadCharge {
    pub(crate) fn add(&self, units: f64) {
        self.0.add(units);
    }
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

    /// Returns the counter of the client's current minute, or the number of seconds to wait if the client has spent its
    /// read units.
    fn current_minute(&self, client: IpAddr) -> Result<Arc<ClientMinute>, u64> {
        let minute = self.minutes.get_with(client, || {
            Arc::new(ClientMinute {
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

    /// Runs the request and charges its read units to the client. Answers with status 429 if the client has no
    /// read units left.
    pub(crate) async fn charge(self, mut request: Request, next: Next) -> Response {
        let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else {
            return next.run(request).await;
        };
        let minute = match self.current_minute(client(peer.ip())) {
            Ok(minute) => minute,
            Err(seconds) => {
                return ApiError::read_budget_spent(self.units_max, seconds).into_response();
            }
        };
        let charge = ReadCharge(Arc::clone(&minute));
        request.extensions_mut().insert(charge);
        let response = next.run(request).await;
        if let Some(Spent(units)) = response.extensions().get() {
            minute.add(*units);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::header::RETRY_AFTER;
    use axum::middleware::from_fn;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn a_client_that_has_spent_its_units_is_refused_and_others_are_not() {
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
