//! Access rules: bearer tokens, a maximum request rate per client, and the foreign origins that may send requests.
//!
//! Without a token file, every client may send requests. `/livez` never needs a token and has its own rate limit, so
//! that a load balancer can request `/livez`. The dashboard at `/` and its files need no token, because the files of
//! the dashboard contain no data.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::api::error::ApiError;
use crate::api::observe::UNMATCHED;
pub use crate::api::tokens::Tokens;
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// The path that a load balancer reads to check whether the role is alive.
pub(super) const LIVEZ: &str = "/livez";
/// Maximum number of requests for `/livez` that one client may send per second, either all at once or spread over the
/// second.
const LIVEZ_PER_SECOND: f64 = 50.0;
/// Interval at which the server removes the counters of clients that have sent no request for a while.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Time for which a browser may cache the response to a preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// The network address of a client. The server adds the client's address to the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

type Limiter = RateLimiter<
    IpAddr,
    HashMapStateStore<IpAddr>,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as governor::clock::Clock>::Instant>,
>;

/// Limits how many requests each client may send per second. A client may send all requests of one second at once, or
/// spread them over the second.
pub struct ClientRate {
    limiter: Limiter,
    clock: MonotonicClock,
}

impl ClientRate {
    /// Returns a limit of `per_second` requests per second for each client.
    pub fn new(per_second: f64) -> ClientRate {
        let period = Duration::from_secs_f64(1.0 / per_second.clamp(0.001, 1e6));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the value is clamped
        let burst = NonZeroU32::new(per_second.ceil().clamp(1.0, 1e6) as u32);
        let quota = Quota::with_period(period)
            .expect("the period is longer than zero")
            .allow_burst(burst.expect("at least one"));
        let clock = MonotonicClock;
        ClientRate {
            limiter: RateLimiter::hashmap_with_clock(quota, clock.clone()),
            clock,
        }
    }

    /// Counts one request of a client.
    ///
    /// # Errors
    /// Returns the number of seconds to wait if the request exceeds the limit.
    fn count(&self, client: IpAddr) -> Result<(), u64> {
        self.limiter.check_key(&client).map_err(|early| {
            let wait = early.wait_time_from(self.clock.now());
            (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
        })
    }

    async fn sweep(self: Arc<ClientRate>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
    }
}

/// Returns the key that identifies a client: its IPv4 address, or the upper half of its IPv6 address. The lower half of
/// an IPv6 address is not part of the key, because a client can choose the lower half itself.
pub(super) fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// The access rules of one server.
#[derive(Default)]
pub struct Access {
    /// The valid tokens, or `None` if every client may send requests.
    pub tokens: Option<Tokens>,
    /// The maximum request rate of each client, or `None` for no limit.
    pub rate: Option<ClientRate>,
    /// The foreign origins whose web pages may send requests.
    pub origins: Vec<HeaderValue>,
}

/// Returns `router` with a layer that enforces the rules in `access`. Also spawns background tasks that reload the
/// tokens and remove old counters until `shutdown` is triggered.
pub fn guarded(router: Router, access: Access, metrics: &Metrics, shutdown: &Shutdown) -> Router {
    if let Some(tokens) = &access.tokens {
        tokio::spawn(tokens.clone().watch(shutdown.clone()));
    }
    let rate = access.rate.map(Arc::new);
    if let Some(rate) = &rate {
        tokio::spawn(Arc::clone(rate).sweep(shutdown.clone()));
    }
    let livez = Arc::new(ClientRate::new(LIVEZ_PER_SECOND));
    tokio::spawn(Arc::clone(&livez).sweep(shutdown.clone()));
    let (tokens, metrics) = (access.tokens, metrics.clone());
    let router = router.layer(from_fn(move |request: Request, next: Next| {
        let checked = check_request(&request, tokens.as_ref(), rate.as_deref(), &livez);
        if let Err(refused) = &checked {
            let route = request.extensions().get::<MatchedPath>();
            let route = route.map_or(UNMATCHED, MatchedPath::as_str);
            metrics
                .http_requests
                .with_label_values(&[route, refused.status().as_str()])
                .inc();
        }
        async move {
            match checked {
                Ok(Some(revoked)) => end_with_token(next.run(request).await, revoked),
                Ok(None) => next.run(request).await,
                Err(response) => *response,
            }
        }
    }));
    if access.origins.is_empty() {
        return router;
    }
    router.layer(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(access.origins))
            .allow_methods([Method::GET, Method::HEAD])
            .allow_headers([
                AUTHORIZATION,
                CONTENT_TYPE,
                IF_NONE_MATCH,
                HeaderName::from_static("last-event-id"),
                crate::api::error::REQUEST_ID,
            ])
            .expose_headers([ETAG, RETRY_AFTER, crate::api::error::REQUEST_ID])
            .max_age(PREFLIGHT_AGE),
    )
}

/// A future that completes when a token is revoked.
type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ends an event stream when the token of its request is revoked.
fn end_with_token(response: Response, revoked: Revoked) -> Response {
    let is_stream = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/event-stream");
    if !response.headers().get(CONTENT_TYPE).is_some_and(is_stream) {
        return response;
    }
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(revoked)))
}

/// Checks a request. If the request needed a token, returns a future that completes when that token is revoked.
///
/// # Errors
/// Returns the response with status 401 or 429 if the request is rejected.
fn check_request(
    request: &Request,
    tokens: Option<&Tokens>,
    rate: Option<&ClientRate>,
    livez: &ClientRate,
) -> Result<Option<Revoked>, Box<Response>> {
    let path = request.uri().path();
    let rate = if path == LIVEZ { Some(livez) } else { rate };
    if let (Some(rate), Some(Peer(peer))) = (rate, request.extensions().get())
        && let Err(seconds) = rate.count(client(peer.ip()))
    {
        return Err(Box::new(
            ApiError::too_many_requests(seconds).into_response(),
        ));
    }
    let Some(tokens) = tokens else {
        return Ok(None);
    };
    if path == "/" || path == LIVEZ || path.starts_with("/assets/") {
        return Ok(None);
    }
    let given = request
        .headers()
        .get(AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let token = given.and_then(|value| {
        let (scheme, token) = value.split_at_checked("Bearer ".len())?;
        scheme
            .eq_ignore_ascii_case(b"bearer ")
            .then(|| token.trim_ascii())
    });
    if let Some(hash) = token.and_then(|token| tokens.find(token)) {
        return Ok(Some(Box::pin(tokens.clone().wait_until_revoked(hash))));
    }
    let challenge = match given {
        None => "Bearer realm=\"citystream\"",
        Some(_) => "Bearer realm=\"citystream\", error=\"invalid_token\"",
    };
    let mut response = ApiError::unauthorized().into_response();
    let headers = response.headers_mut();
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    Err(Box::new(response))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tokens::tests::{TOKEN, tokens};
    use axum::body::Body;
    use axum::http::Request as HttpRequest;
    use axum::routing::get;
    use tower::ServiceExt as _;

    fn guarded_by(access: Access) -> (Router, Metrics) {
        let metrics = Metrics::new();
        let router = ["/", "/livez", "/readyz", "/metrics", "/api/v1/stats"]
            .into_iter()
            .fold(Router::new(), |router, path| {
                router.route(path, get(async || "ok"))
            });
        (
            guarded(router, access, &metrics, &Shutdown::default()),
            metrics,
        )
    }

    async fn ask(router: &Router, path: &str, peer: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = HttpRequest::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer: SocketAddr = peer.parse().unwrap();
        let request = request.extension(Peer(peer)).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_path_needs_a_token_except_those_of_load_balancers_and_the_page() {
        let other = "fedcba9876543210fedc";
        let (router, metrics) = guarded_by(Access {
            tokens: Some(tokens(&format!("# ours\n{TOKEN}\n\n {other} \n")).unwrap()),
            ..Access::default()
        });
        let good = format!("Bearer {TOKEN}");
        let second = format!("bearer {other}");
        for (path, authorization, status) in [
            ("/livez", "", 200),
            ("/", "", 200),
            ("/readyz", "", 401),
            ("/metrics", "", 401),
            ("/nothing", "", 401),
            ("/api/v1/stats", "", 401),
            ("/api/v1/stats", "Bearer", 401),
            ("/api/v1/stats", "Bearer x", 401),
            ("/api/v1/stats", TOKEN, 401),
            ("/api/v1/stats", &format!("Basic {TOKEN}"), 401),
            ("/api/v1/stats", &format!("Bearer {TOKEN}x"), 401),
            ("/api/v1/stats", &good, 200),
            ("/api/v1/stats", &second, 200),
            ("/nothing", &good, 404),
        ] {
            let headers = [("authorization", authorization)];
            let headers = if authorization.is_empty() {
                &headers[..0]
            } else {
                &headers[..]
            };
            let response = ask(&router, path, "192.0.2.1:1", headers).await;
            assert_eq!(response.status(), status, "{path} {authorization}");
            let asked = response.headers().contains_key(WWW_AUTHENTICATE);
            assert_eq!(asked, status == 401);
        }
        let counted = "citystream_http_requests_total{route=\"/api/v1/stats\",status=\"401\"} 6";
        assert!(metrics.render().contains(counted), "{}", metrics.render());
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_token_is_revoked_and_others_continue() {
        let other = "fedcba9876543210fedc";
        let tokens = tokens(&format!("{TOKEN}\n{other}")).unwrap();
        let endless = async || {
            let lines = futures_util::stream::once(async { Ok::<_, axum::Error>("data: 1\n\n") });
            let lines = lines.chain(futures_util::stream::pending());
            (
                [(CONTENT_TYPE, "text/event-stream")],
                Body::from_stream(lines),
            )
        };
        let router = Router::new().route("/api/v1/stream", get(endless));
        let access = Access {
            tokens: Some(tokens.clone()),
            ..Access::default()
        };
        let router = guarded(router, access, &Metrics::new(), &Shutdown::default());
        let listen = async |token: &str| {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", &*bearer)];
            let response = ask(&router, "/api/v1/stream", "192.0.2.1:1", &headers).await;
            let mut lines = response.into_body().into_data_stream();
            assert_eq!(lines.next().await.unwrap().unwrap(), "data: 1\n\n");
            lines
        };
        let (mut ours, mut theirs) = (listen(TOKEN).await, listen(other).await);
        tokens.replace_all(&[other]);
        let ended = tokio::time::timeout(Duration::from_secs(30), ours.next()).await;
        assert!(ended.expect("the stream ends").is_none());
        let short = Duration::from_millis(50);
        assert!(tokio::time::timeout(short, theirs.next()).await.is_err());
    }

    #[tokio::test]
    async fn livez_has_its_own_rate_limit() {
        let (router, _) = guarded_by(Access::default());
        let mut seen = Vec::new();
        for _ in 0..200 {
            seen.push(ask(&router, "/livez", "192.0.2.1:1", &[]).await.status());
        }
        assert!(seen[..40].iter().all(|status| *status == 200));
        assert!(seen.iter().any(|status| *status == 429));
        assert_eq!(
            ask(&router, "/livez", "192.0.2.2:1", &[]).await.status(),
            200
        );
    }

    #[tokio::test]
    async fn a_client_above_its_rate_gets_retry_after_and_others_are_served() {
        let (router, _) = guarded_by(Access {
            rate: Some(ClientRate::new(0.5)),
            ..Access::default()
        });
        let path = "/api/v1/stats";
        assert_eq!(ask(&router, path, "192.0.2.1:1", &[]).await.status(), 200);
        let response = ask(&router, path, "192.0.2.1:2", &[]).await;
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(
            ask(&router, "/livez", "192.0.2.1:1", &[]).await.status(),
            200
        );
        assert_eq!(ask(&router, path, "192.0.2.2:1", &[]).await.status(), 200);
        assert_eq!(
            ask(&router, path, "[2001:db8::1]:1", &[]).await.status(),
            200
        );
        assert_eq!(
            ask(&router, path, "[2001:db8::2]:1", &[]).await.status(),
            429
        );
        assert_eq!(
            ask(&router, path, "[::ffff:192.0.2.2]:1", &[])
                .await
                .status(),
            429
        );
    }

    #[tokio::test]
    async fn only_allowed_origins_may_ask() {
        let origin = HeaderValue::from_static("https://city.example");
        let (router, _) = guarded_by(Access {
            tokens: Some(tokens(TOKEN).unwrap()),
            origins: vec![origin.clone()],
            ..Access::default()
        });
        let allow = "access-control-allow-origin";
        for (from, allowed) in [
            ("https://city.example", true),
            ("https://evil.example", false),
        ] {
            // The response to a refused request also has the CORS headers, so that a page of an allowed origin can read
            // the error.
            let response = ask(&router, "/api/v1/stats", "192.0.2.1:1", &[("origin", from)]).await;
            assert_eq!(response.status(), 401);
            assert_eq!(
                response.headers().get(allow) == Some(&origin),
                allowed,
                "{from}"
            );
            let request = HttpRequest::options("/api/v1/stats")
                .header("origin", from)
                .header("access-control-request-method", "GET")
                .header("access-control-request-headers", "authorization");
            let request = request.body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(
                response.headers().get(allow) == Some(&origin),
                allowed,
                "{from}"
            );
        }
        let (router, _) = guarded_by(Access::default());
        let headers = [("origin", "https://city.example")];
        let response = ask(&router, "/api/v1/stats", "192.0.2.1:1", &headers).await;
        assert!(!response.headers().contains_key(allow));
    }
}
