//! `GET /`: the dashboard, a page of plain HTML, CSS and JavaScript modules. The files of the page come from `web/` and
//! are compiled into the binary.
//!
//! The page loads no files from other hosts and contains no inline code, because its content security policy
//! ([`POLICY`]) forbids both. The path of each file contains a hash of all files, so browsers may cache a file for a
//! year. After an upgrade, a browser still gets the new files immediately, because the browser revalidates `/` each
//! time. During an upgrade, a browser may request a path that contains the hash of another version. If a path contains
//! the hash of another version, the server sends the current file and tells the browser to revalidate the file before
//! each use.
//!
//! The page uses the public API. In `dev`, the page also gets a token ([`Dashboard::with_token`]), with which the page
//! may inject faults.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::api::error::ApiError;

/// The content security policy of the page, which may load files only from this server and send requests only to this
/// server. Inline code, inline styles and frames are forbidden.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; \
                      img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const INDEX: &str = include_str!("../../web/index.html");
/// The placeholder in [`INDEX`] for the hash of the files.
const VERSION_MARK: &str = "{version}";
/// The placeholder in [`INDEX`] for the access token that `Dashboard::with_token` sets.
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

/// The name, the content type and the content of each file of the page except [`INDEX`].
const FILES: [(&str, &str, &[u8]); 36] = [
    file!("app.css", "text/css; charset=utf-8"),
    file!("controls.css", "text/css; charset=utf-8"),
    file!("drawer.css", "text/css; charset=utf-8"),
    file!("app.js", "text/javascript; charset=utf-8"),
    file!("alerts.js", "text/javascript; charset=utf-8"),
    file!("answers.js", "text/javascript; charset=utf-8"),
    file!("axis.js", "text/javascript; charset=utf-8"),
    file!("break.js", "text/javascript; charset=utf-8"),
    file!("cities.js", "text/javascript; charset=utf-8"),
    file!("city-drawer.js", "text/javascript; charset=utf-8"),
    file!("data.js", "text/javascript; charset=utf-8"),
    file!("dom.js", "text/javascript; charset=utf-8"),
    file!("drawer.js", "text/javascript; charset=utf-8"),
    file!("event-drawer.js", "text/javascript; charset=utf-8"),
    file!("events.js", "text/javascript; charset=utf-8"),
    file!("filters.js", "text/javascript; charset=utf-8"),
    file!("heatmap.js", "text/javascript; charset=utf-8"),
    file!("incidents.js", "text/javascript; charset=utf-8"),
    file!("keys.js", "text/javascript; charset=utf-8"),
    file!("own-event.js", "text/javascript; charset=utf-8"),
    file!("paging.js", "text/javascript; charset=utf-8"),
    file!("pipeline.js", "text/javascript; charset=utf-8"),
    file!("plot.js", "text/javascript; charset=utf-8"),
    file!("range-bar.js", "text/javascript; charset=utf-8"),
    file!("range.js", "text/javascript; charset=utf-8"),
    file!("series.js", "text/javascript; charset=utf-8"),
    file!("sheet.js", "text/javascript; charset=utf-8"),
    file!("step-drawer.js", "text/javascript; charset=utf-8"),
    file!("theme.js", "text/javascript; charset=utf-8"),
    file!("time.js", "text/javascript; charset=utf-8"),
    file!("timeline.js", "text/javascript; charset=utf-8"),
    file!("totals.js", "text/javascript; charset=utf-8"),
    file!("unseen.js", "text/javascript; charset=utf-8"),
    file!("view.js", "text/javascript; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("inter.woff2", "font/woff2"),
];

/// The dashboard page as the server sends it. All clones share the content of the page.
#[derive(Clone, Debug)]
pub struct Dashboard {
    index: Bytes,
    etag: HeaderValue,
    version: Arc<str>,
}

impl Dashboard {
    /// Returns a page that also sends `token` with its requests. The token must consist of letters and digits.
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
    /// Returns the page without a token. Without a token, the page can only read data.
    fn default() -> Dashboard {
        Dashboard::rendered("")
    }
}

/// Returns the first eight bytes of a hash in hexadecimal, which are enough to distinguish versions of the page.
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

async fn index(State(dashboard): State<Dashboard>) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    ([(ETAG, dashboard.etag)], headers, dashboard.index)
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
    let headers = [(CONTENT_TYPE, *kind), (CACHE_CONTROL, cached)];
    Ok((headers, Body::from(*content)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Maximum total size of the page and all its files in bytes.
    const BYTES_MAX: usize = 226_000;

    #[test]
    fn the_page_and_its_files_stay_small() {
        let bytes: usize = FILES.iter().map(|(.., content)| content.len()).sum();
        assert!(bytes + INDEX.len() <= BYTES_MAX, "{bytes} bytes");
    }

    #[test]
    fn the_page_refers_only_to_existing_files_and_runs_nothing_inline() {
        let dashboard = Dashboard::with_token("abc123");
        let html = std::str::from_utf8(&dashboard.index).unwrap();
        assert!(html.contains("content=\"abc123\""));
        assert!(!html.contains(VERSION_MARK) && !html.contains(TOKEN_MARK));
        let plain = Dashboard::default().index;
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
