//! Who may ask, and how often: bearer tokens, a rate per client, foreign origins.
//!
//! Without a token file everybody may ask. `/livez` never needs a token and is never limited, so that
//! a load balancer can ask it; the page itself and its files hold no data and need none either.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::api::error::ApiError;
use crate::api::observe::UNMATCHED;
use crate::api::reload::{self, FileError};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Shortest token: anything shorter can be guessed.
const TOKEN_CHARS_MIN: usize = 16;
/// Time between two sweeps of clients that have not asked for a while.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How long a browser may remember that an origin may ask.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// The address a request came from; the server puts it among the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Tokens that let in, as hashes. Clones are the same.
#[derive(Clone)]
pub struct Tokens {
    path: PathBuf,
    content: Vec<u8>,
    hashes: Arc<RwLock<Vec<[u8; 32]>>>,
}

impl Tokens {
    /// Reads a file of tokens: one a line; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// If the file cannot be read, holds no token, or a line that can be none.
    pub fn load(path: &Path) -> Result<Tokens, FileError> {
        let content = reload::read(path)?;
        let hashes = parse(path, &content)?;
        Ok(Tokens {
            path: path.to_owned(),
            content,
            hashes: Arc::new(RwLock::new(hashes)),
        })
    }

    /// Uses the changed file, until `shutdown`.
    pub async fn watch(self, shutdown: Shutdown) {
        let apply = |contents: &[Vec<u8>]| {
            let fresh = parse(&self.path, &contents[0])?;
            *self.hashes.write().expect("no panic holds the tokens") = fresh;
            Ok(())
        };
        let (paths, known) = (vec![self.path.clone()], vec![self.content.clone()]);
        reload::watch("tokens", paths, known, shutdown, apply).await;
    }

    /// Tells whether the token is one of them. Takes as long whichever it is, and if it is none:
    /// hashes are compared, all of them, in constant time.
    fn admit(&self, token: &[u8]) -> bool {
        let given: [u8; 32] = Sha256::digest(token).into();
        let hashes = self.hashes.read().expect("no panic holds the tokens");
        let mut found = Choice::from(0);
        for hash in hashes.iter() {
            found |= hash.ct_eq(&given);
        }
        found.into()
    }
}

fn parse(path: &Path, content: &[u8]) -> Result<Vec<[u8; 32]>, FileError> {
    let text =
        std::str::from_utf8(content).map_err(|_| FileError::new(path, "it is not UTF-8 text"))?;
    let mut hashes = Vec::new();
    for (n, line) in (1..).zip(text.lines()) {
        let token = line.trim();
        if token.is_empty() || token.starts_with('#') {
            continue;
        }
        if token.len() < TOKEN_CHARS_MIN || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(FileError::new(
                path,
                format!(
                    "line {n} is no token: one has at least {TOKEN_CHARS_MIN} characters, \
                     ASCII without spaces; openssl rand -hex 32 makes one"
                ),
            ));
        }
        hashes.push(Sha256::digest(token).into());
    }
    if hashes.is_empty() {
        return Err(FileError::new(path, "it holds no token"));
    }
    Ok(hashes)
}

type Limiter = RateLimiter<
    IpAddr,
    HashMapStateStore<IpAddr>,
    MonotonicClock,
    NoOpMiddleware<<MonotonicClock as governor::clock::Clock>::Instant>,
>;

/// A rate per client, with a burst of a second's worth.
pub struct Rate {
    limiter: Limiter,
    clock: MonotonicClock,
}

impl Rate {
    /// Returns a limit of so many requests a second.
    pub fn new(per_second: f64) -> Rate {
        let period = Duration::from_secs_f64(1.0 / per_second.clamp(0.001, 1e6));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped
        let burst = NonZeroU32::new(per_second.ceil().clamp(1.0, 1e6) as u32);
        let quota = Quota::with_period(period)
            .expect("the period is longer than zero")
            .allow_burst(burst.expect("at least one"));
        let clock = MonotonicClock;
        Rate {
            limiter: RateLimiter::hashmap_with_clock(quota, clock.clone()),
            clock,
        }
    }

    /// Counts a request; returns after how many seconds to ask again if it is one too many.
    fn count(&self, client: IpAddr) -> Result<(), u64> {
        self.limiter.check_key(&client).map_err(|early| {
            let wait = early.wait_time_from(self.clock.now());
            (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
        })
    }

    async fn sweep(self: Arc<Rate>, shutdown: Shutdown) {
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

/// Who counts as one client: an address, or the half of an IPv6 address that a client cannot choose.
pub(super) fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// The rules of one server.
#[derive(Default)]
pub struct Access {
    /// Who may ask; everybody if there are none.
    pub tokens: Option<Tokens>,
    /// How often each may ask.
    pub rate: Option<Rate>,
    /// Pages of which origins may ask.
    pub origins: Vec<HeaderValue>,
}

/// Returns the router behind these rules; starts what they need, until `shutdown`.
pub fn guarded(router: Router, access: Access, metrics: &Metrics, shutdown: &Shutdown) -> Router {
    if let Some(tokens) = &access.tokens {
        tokio::spawn(tokens.clone().watch(shutdown.clone()));
    }
    let rate = access.rate.map(Arc::new);
    if let Some(rate) = &rate {
        tokio::spawn(Arc::clone(rate).sweep(shutdown.clone()));
    }
    let (tokens, metrics) = (access.tokens, metrics.clone());
    let router = router.layer(from_fn(move |request: Request, next: Next| {
        let refused = admit(&request, tokens.as_ref(), rate.as_deref());
        if let Err(refused) = &refused {
            let route = request.extensions().get::<MatchedPath>();
            let route = route.map_or(UNMATCHED, MatchedPath::as_str);
            metrics
                .http_requests
                .with_label_values(&[route, refused.status().as_str()])
                .inc();
        }
        async move {
            match refused {
                Ok(()) => next.run(request).await,
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

fn admit(
    request: &Request,
    tokens: Option<&Tokens>,
    rate: Option<&Rate>,
) -> Result<(), Box<Response>> {
    let path = request.uri().path();
    if path == "/livez" {
        return Ok(());
    }
    if let (Some(rate), Some(Peer(peer))) = (rate, request.extensions().get())
        && let Err(seconds) = rate.count(client(peer.ip()))
    {
        let mut response = ApiError::too_many_requests().into_response();
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        return Err(Box::new(response));
    }
    let Some(tokens) = tokens else {
        return Ok(());
    };
    if path == "/" || path.starts_with("/assets/") {
        return Ok(());
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
    if token.is_some_and(|token| tokens.admit(token)) {
        return Ok(());
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
    use axum::body::Body;
    use axum::http::Request as HttpRequest;
    use axum::routing::get;
    use tower::ServiceExt as _;

    const TOKEN: &str = "0123456789abcdef0123";

    fn tokens(text: &str) -> Result<Tokens, FileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, text).unwrap();
        Tokens::load(&path)
    }

    fn guarded_by(access: Access) -> (Router, Metrics) {
        let metrics = Metrics::new();
        let router = ["/", "/livez", "/readyz", "/metrics", "/api/v1/stats"]
            .into_iter()
            .fold(Router::new(), |router, path| {
                router.route(path, get(async || "ok"))
            });
        (guarded(router, access, &metrics, &Shutdown::new()), metrics)
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
    async fn a_token_is_asked_for_everywhere_but_where_a_balancer_or_a_browser_begins() {
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

    #[test]
    fn files_that_would_let_anybody_in_are_refused() {
        for text in [
            "",
            "# nothing\n\n",
            "short\n",
            "0123456789 abcdef 0123456789\n",
            "é123456789abcdef0123\n",
        ] {
            assert!(tokens(text).is_err(), "{text:?}");
        }
        assert!(Tokens::load(Path::new("/nonexistent/tokens")).is_err());
    }

    #[tokio::test]
    async fn a_changed_file_counts_and_a_broken_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        std::fs::write(&path, TOKEN).unwrap();
        let tokens = Tokens::load(&path).unwrap();
        let shutdown = Shutdown::new();
        let watching = tokio::spawn(tokens.clone().watch(shutdown.clone()));
        std::fs::write(&path, "fedcba9876543210fedc").unwrap();
        while tokens.admit(TOKEN.as_bytes()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(tokens.admit(b"fedcba9876543210fedc"));
        std::fs::write(&path, "short").unwrap();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert!(tokens.admit(b"fedcba9876543210fedc"));
        shutdown.trigger();
        watching.await.unwrap();
    }

    #[tokio::test]
    async fn one_client_too_fast_is_told_when_to_come_back_and_others_are_not() {
        let (router, _) = guarded_by(Access {
            rate: Some(Rate::new(0.5)),
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
    async fn only_named_origins_may_ask() {
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
            // Refusals can be read there too.
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
