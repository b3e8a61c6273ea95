//! `GET /`: the dashboard, a page of plain HTML, CSS and JavaScript modules from `web/`, inside the
//! binary.
//!
//! Nothing comes from elsewhere and nothing runs inline, so the policy in [`POLICY`] forbids both.
//! The files' common hash is part of their path: a browser keeps them for good and still sees a new
//! binary's files at once, because `/` itself is asked for anew each time (by `ETag`). A path with
//! another hash, as while two versions serve side by side, gets the current file and keeps nothing.
//!
//! The page asks the API like anybody else. `dev` gives it a token ([`Dashboard::with_token`]) by which it
//! may also ask for trouble.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::api::error::ApiError;

/// What the page may do: load from this server and talk to it. No inline code or style, no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; \
                      img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const INDEX: &str = include_str!("../../web/index.html");
/// What stands for the files' hash in [`INDEX`].
const VERSION_MARK: &str = "{version}";
/// Where [`INDEX`] takes what only `dev` has.
const TOKEN_MARK: &str = "<!-- token -->";

macro_rules! file {
    ($name:literal, $kind:literal) => {
        (
            $name,
            $kind,
            include_bytes!(concat!("../../web/", $name)).as_slice(),
        )
    };
}

/// Name, type and content of each file beside [`INDEX`].
const FILES: [(&str, &str, &[u8]); 14] = [
    file!("app.css", "text/css; charset=utf-8"),
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("alerts.js", "text/javascript; charset=utf-8"),
    file!("break.js", "text/javascript; charset=utf-8"),
    file!("cities.js", "text/javascript; charset=utf-8"),
    file!("data.js", "text/javascript; charset=utf-8"),
    file!("dom.js", "text/javascript; charset=utf-8"),
    file!("filters.js", "text/javascript; charset=utf-8"),
    file!("heatmap.js", "text/javascript; charset=utf-8"),
    file!("pipeline.js", "text/javascript; charset=utf-8"),
    file!("timeline.js", "text/javascript; charset=utf-8"),
    file!("totals.js", "text/javascript; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("inter.woff2", "font/woff2"),
];

/// The page as it is served. Clones are the same.
#[derive(Clone, Debug)]
pub struct Dashboard {
    index: Bytes,
    etag: HeaderValue,
    version: Arc<str>,
}

impl Dashboard {
    /// Returns the page that only looks.
    pub fn new() -> Dashboard {
        Dashboard::rendered("")
    }

    /// Returns the page that may also send this token with its requests. The token must be of letters
    /// and digits.
    #[must_use]
    pub fn with_token(token: &str) -> Dashboard {
        Dashboard::rendered(&format!(
            "<meta name=\"citystream-token\" content=\"{token}\">"
        ))
    }

    fn rendered(token: &str) -> Dashboard {
        let mut hash = Sha256::new();
        for (name, _, content) in FILES {
            hash.update(name);
            hash.update(content);
        }
        let version = hex(&hash.finalize());
        let index = INDEX
            .replace(VERSION_MARK, &version)
            .replace(TOKEN_MARK, token);
        let etag = format!("\"{}\"", hex(&Sha256::digest(&index)));
        Dashboard {
            index: Bytes::from(index),
            etag: HeaderValue::from_str(&etag).expect("hex digits in quotes"),
            version: version.into(),
        }
    }
}

impl Default for Dashboard {
    fn default() -> Dashboard {
        Dashboard::new()
    }
}

/// Returns the first bytes of a hash as text: enough to tell versions apart.
fn hex(hash: &[u8]) -> String {
    hash.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// Returns the routes of the page and its files.
pub(super) fn router(dashboard: Dashboard) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/assets/{version}/{name}", get(asset))
        .with_state(dashboard)
}

async fn index(State(dashboard): State<Dashboard>, headers: HeaderMap) -> Response {
    let mut response = if headers.get(IF_NONE_MATCH) == Some(&dashboard.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, "text/html; charset=utf-8")], dashboard.index).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, dashboard.etag);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    response
}

async fn asset(
    State(dashboard): State<Dashboard>,
    Path((version, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|(file, ..)| *file == name);
    let (_, kind, content) = found.ok_or_else(ApiError::not_found)?;
    let cached = if *version == *dashboard.version {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    Ok((
        [
            (CONTENT_TYPE, *kind),
            (CACHE_CONTROL, cached),
            (HeaderName::from_static("x-content-type-options"), "nosniff"),
        ],
        Body::from(*content),
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a visitor downloads at most.
    const BYTES_MAX: usize = 200_000;

    #[test]
    fn everything_together_is_small() {
        let bytes: usize = FILES.iter().map(|(.., content)| content.len()).sum();
        assert!(bytes + INDEX.len() <= BYTES_MAX, "{bytes} bytes");
    }

    #[test]
    fn the_page_names_only_files_that_are_there_and_runs_nothing_inline() {
        let dashboard = Dashboard::with_token("abc123");
        let html = std::str::from_utf8(&dashboard.index).unwrap();
        assert!(html.contains("content=\"abc123\""));
        assert!(!html.contains(VERSION_MARK) && !html.contains(TOKEN_MARK));
        let plain = Dashboard::new().index;
        assert!(!String::from_utf8_lossy(&plain).contains("citystream-token"));
        let prefix = format!("/assets/{}/", dashboard.version);
        let mut named = 0;
        for rest in html.split(&prefix).skip(1) {
            let name = rest.split('"').next().unwrap();
            assert!(FILES.iter().any(|(file, ..)| *file == name), "{name}");
            named += 1;
        }
        assert!(named >= 3);
        for (file, kind, content) in FILES {
            if kind.starts_with("text/javascript") {
                let code = std::str::from_utf8(content).unwrap();
                for import in code.split("from \"./").skip(1) {
                    let name = import.split('"').next().unwrap();
                    assert!(FILES.iter().any(|(f, ..)| *f == name), "{file}: {name}");
                }
            }
        }
        for inline in ["<style", " style=", " onclick=", "http://", "https://"] {
            assert!(!html.contains(inline), "{inline}");
        }
        for script in html.split("<script").skip(1) {
            assert!(
                script.split('>').next().unwrap().contains("src="),
                "{script}"
            );
        }
    }
}
