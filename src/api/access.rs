//! Who may ask, and how often: bearer tokens, a rate per client, foreign origins.
//!
//! Without a token file everybody may ask. `/livez` never needs a token and has a limit of its own, so that
//! a load balancer can ask it; the page itself and its files hold no data and need none either.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
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
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};
use tokio::sync::watch;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::api::error::ApiError;
use crate::api::observe::UNMATCHED;
use crate::api::reload::{self, FileError};
use crate::shutdown::Shutdown;
use crate::telemetry::Metrics;

/// Where a balancer asks whether the role lives.
pub(super) const LIVEZ: &str = "/livez";
/// Most answers a second of `/livez` to one client; a burst may have as many.
const LIVEZ_PER_SECOND: f64 = 50.0;
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
    hashes: Arc<watch::Sender<Vec<[u8; 32]>>>,
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
            hashes: Arc::new(watch::Sender::new(hashes)),
        })
    }

    /// Uses the changed file, until `shutdown`.
    pub async fn watch(self, shutdown: Shutdown) {
        let apply = |contents: &[Vec<u8>]| {
            self.hashes.send_replace(parse(&self.path, &contents[0])?);
            Ok(())
        };
        let (paths, known) = (vec![self.path.clone()], vec![self.content.clone()]);
        reload::watch("tokens", paths, known, shutdown, apply).await;
    }

    /// Returns the token's hash if it is one of them.
    fn admit(&self, token: &[u8]) -> Option<[u8; 32]> {
        let given: [u8; 32] = Sha256::digest(token).into();
        holds(&self.hashes.borrow(), &given).then_some(given)
    }

    /// Waits until a token is one of them no more.
    async fn gone(self, given: [u8; 32]) {
        let mut hashes = self.hashes.subscribe();
        // Fails only if the sender is gone, and `self` holds the sender.
        let gone = hashes.wait_for(|hashes| !holds(hashes, &given)).await;
        debug_assert!(gone.is_ok(), "the tokens are held here");
    }
}

/// Tells whether a hash is one of them. Takes as long whichever it is, and if it is none: all of them are
/// compared, in constant time.
fn holds(hashes: &[[u8; 32]], given: &[u8; 32]) -> bool {
    let mut found = Choice::from(0);
    for hash in hashes {
        found |= hash.ct_eq(given);
    }
    found.into()
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
    let livez = Arc::new(Rate::new(LIVEZ_PER_SECOND));
    tokio::spawn(Arc::clone(&livez).sweep(shutdown.clone()));
    let (tokens, metrics) = (access.tokens, metrics.clone());
    let router = router.layer(from_fn(move |request: Request, next: Next| {
        let refused = admit(&request, tokens.as_ref(), rate.as_deref(), &livez);
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
                Ok(Some(gone)) => ending(next.run(request).await, gone),
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

/// What comes to its end when a token goes.
type Gone = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Returns an answer whose stream ends when the token goes that it was asked for with.
fn ending(response: Response, gone: Gone) -> Response {
    let is_stream = |kind: &HeaderValue| kind.as_bytes().starts_with(b"text/event-stream");
    if !response.headers().get(CONTENT_TYPE).is_some_and(is_stream) {
        return response;
    }
    response.map(|body| Body::from_stream(body.into_data_stream().take_until(gone)))
}

/// Lets a request in, for as long as its token is good if it needs one.
fn admit(
    request: &Request,
    tokens: Option<&Tokens>,
    rate: Option<&Rate>,
    livez: &Rate,
) -> Result<Option<Gone>, Box<Response>> {
    let path = request.uri().path();
    let rate = if path == LIVEZ { Some(livez) } else { rate };
    if let (Some(rate), Some(Peer(peer))) = (rate, request.extensions().get())
        && let Err(seconds) = rate.count(client(peer.ip()))
    {
        let mut response = ApiError::too_many_requests().into_response();
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        return Err(Box::new(response));
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
    if let Some(hash) = token.and_then(|token| tokens.admit(token)) {
        return Ok(Some(Box::pin(tokens.clone().gone(hash))));
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
        while tokens.admit(TOKEN.as_bytes()).is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(tokens.admit(b"fedcba9876543210fedc").is_some());
        std::fs::write(&path, "short").unwrap();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert!(tokens.admit(b"fedcba9876543210fedc").is_some());
        shutdown.trigger();
        watching.await.unwrap();
    }

    #[tokio::test]
    async fn a_stream_ends_when_its_token_goes_and_others_go_on() {
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
        let router = guarded(router, access, &Metrics::new(), &Shutdown::new());
        let listen = async |token: &str| {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", &*bearer)];
            let response = ask(&router, "/api/v1/stream", "192.0.2.1:1", &headers).await;
            let mut lines = response.into_body().into_data_stream();
            assert_eq!(lines.next().await.unwrap().unwrap(), "data: 1\n\n");
            lines
        };
        let (mut ours, mut theirs) = (listen(TOKEN).await, listen(other).await);
        tokens
            .hashes
            .send_replace(vec![Sha256::digest(other).into()]);
        let ended = tokio::time::timeout(Duration::from_secs(30), ours.next()).await;
        assert!(ended.expect("the stream ends").is_none());
        let short = Duration::from_millis(50);
        assert!(tokio::time::timeout(short, theirs.next()).await.is_err());
    }

    #[tokio::test]
    async fn the_probe_has_a_limit_of_its_own() {
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
