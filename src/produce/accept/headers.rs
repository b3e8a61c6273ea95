//! Checks two things in the headers of an HTTP request that sends events: the origin, and the format of the body.
//!
//! A page of another site can make a browser send a form or plain text to this server by POST, without a CORS preflight
//! request. Browsers state the origin of the page in the header `Origin`. Newer browsers also state in `Sec-Fetch-Site`
//! whether the page belongs to the same site. A request with `Origin` or `Sec-Fetch-Site` must come from a page of this
//! server, and must not have the content type of a form. A request that `curl -d` sends is accepted: it has the content
//! type of a form, but neither `Origin` nor `Sec-Fetch-Site`.

use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};

use crate::api::error::ApiError;
use crate::core::submission::Framing;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const TYPES: &str = "send application/json or application/x-ndjson";

/// The format of a request body, according to the request headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyKind {
    pub(super) framing: Framing,
    pub(super) is_gzip: bool,
}

/// Checks the headers of a request. `authority` is the host in the request URI, which HTTP/2 sends instead of the
/// header `Host`.
///
/// # Errors
/// Returns an error with status 400, 403 or 415 if the request must be refused.
pub(super) fn check_headers(
    headers: &HeaderMap,
    authority: Option<&str>,
) -> Result<BodyKind, ApiError> {
    for name in [CONTENT_TYPE, CONTENT_ENCODING] {
        if headers.get_all(&name).iter().count() > 1 {
            return Err(ApiError::bad_header(format!(
                "the header {name} appears twice"
            )));
        }
    }
    let is_from_page = headers.contains_key(ORIGIN) || headers.contains_key(SEC_FETCH_SITE);
    if is_from_page && !is_from_own_page(headers, authority) {
        return Err(ApiError::forbidden(
            "a page of another site may not send events",
        ));
    }
    let kind = headers.get(CONTENT_TYPE).map_or("", text);
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let framing = match kind.to_ascii_lowercase().as_str() {
        "application/json" => Framing::Detect,
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Framing::Lines,
        "" | "application/x-www-form-urlencoded" if !is_from_page => Framing::Detect,
        _ => {
            return Err(ApiError::unsupported_media_type(format!(
                "this Content-Type is not accepted; {TYPES}"
            )));
        }
    };
    let encoding = headers.get(CONTENT_ENCODING).map_or("", text).trim();
    let is_gzip = match encoding.to_ascii_lowercase().as_str() {
        "" | "identity" => false,
        "gzip" | "x-gzip" => true,
        _ => {
            return Err(ApiError::unsupported_media_type(
                "this Content-Encoding is not accepted; send gzip, or no encoding",
            ));
        }
    };
    Ok(BodyKind { framing, is_gzip })
}

/// Returns the text of a header. For a header that is not ASCII, the function returns `?`, which every check refuses.
fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?")
}

/// Returns true if every `Origin` header names this server, and every `Sec-Fetch-Site` header is `same-origin` or
/// `none`.
fn is_from_own_page(headers: &HeaderMap, authority: Option<&str>) -> bool {
    let host = authority.or_else(|| headers.get(HOST).map(text));
    let is_own = |origin: &HeaderValue| {
        // The scheme of the origin is not compared, because a proxy in front of the server may terminate TLS.
        let origin = text(origin);
        let name = ["http://", "https://"]
            .iter()
            .find_map(|scheme| origin.strip_prefix(scheme));
        name.zip(host)
            .is_some_and(|(name, host)| name.eq_ignore_ascii_case(host))
    };
    let is_near = |site: &HeaderValue| ["same-origin", "none"].contains(&text(site));
    headers.get_all(ORIGIN).iter().all(is_own)
        && headers.get_all(SEC_FETCH_SITE).iter().all(is_near)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &[(&'static str, &str)]) -> Result<BodyKind, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8080"));
        for (name, value) in given {
            headers.append(*name, value.parse().unwrap());
        }
        check_headers(&headers, None).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn the_type_chooses_the_framing() {
        for (kind, framing) in [
            ("application/json", Framing::Detect),
            ("Application/JSON; charset=utf-8", Framing::Detect),
            ("application/x-www-form-urlencoded", Framing::Detect),
            ("application/x-ndjson", Framing::Lines),
            ("application/ndjson", Framing::Lines),
            ("application/jsonl", Framing::Lines),
        ] {
            let want = BodyKind {
                framing,
                is_gzip: false,
            };
            assert_eq!(check(&[("content-type", kind)]), Ok(want), "{kind}");
        }
        assert!(check(&[]).is_ok(), "a client may leave the type out");
        for kind in ["text/plain", "multipart/form-data; boundary=x", "é", "x"] {
            assert_eq!(check(&[("content-type", kind)]), Err(415), "{kind}");
        }
        let twice = [
            ("content-type", "application/json"),
            ("content-type", "text/plain"),
        ];
        assert_eq!(check(&twice), Err(400));
    }

    #[test]
    fn gzip_is_the_only_encoding() {
        for (encoding, is_gzip) in [("gzip", true), ("GZIP", true), ("identity", false)] {
            let kind = check(&[("content-encoding", encoding)]).unwrap();
            assert_eq!(kind.is_gzip, is_gzip, "{encoding}");
        }
        for encoding in ["br", "zstd", "gzip, gzip", "deflate"] {
            assert_eq!(check(&[("content-encoding", encoding)]), Err(415));
        }
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let json = ("content-type", "application/json");
        for origin in ["http://127.0.0.1:8080", "https://127.0.0.1:8080"] {
            assert!(check(&[json, ("origin", origin)]).is_ok(), "{origin}");
        }
        for origin in [
            "http://evil.example",
            "null",
            "http://127.0.0.1",
            "http://127.0.0.1:8080.evil.example",
            "ftp://127.0.0.1:8080",
            "",
        ] {
            assert_eq!(check(&[json, ("origin", origin)]), Err(403), "{origin}");
        }
        for (site, status) in [
            ("same-origin", None),
            ("none", None),
            ("same-site", Some(403)),
            ("cross-site", Some(403)),
            ("", Some(403)),
        ] {
            let checked = check(&[json, ("sec-fetch-site", site)]);
            assert_eq!(checked.err(), status, "{site}");
        }
        let both = [
            json,
            ("origin", "http://127.0.0.1:8080"),
            ("sec-fetch-site", "cross-site"),
        ];
        assert_eq!(check(&both), Err(403));
    }

    #[test]
    fn forms_are_refused_even_from_the_same_site() {
        let own = ("origin", "http://127.0.0.1:8080");
        assert_eq!(check(&[own]), Err(415));
        let form = ("content-type", "application/x-www-form-urlencoded");
        assert_eq!(check(&[own, form]), Err(415));
        assert!(check(&[form]).is_ok(), "curl -d");
    }

    #[test]
    fn http2_names_the_host_in_the_uri() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ORIGIN, HeaderValue::from_static("https://city.example"));
        assert!(check_headers(&headers, Some("city.example")).is_ok());
        assert!(check_headers(&headers, Some("other.example")).is_err());
        assert!(check_headers(&headers, None).is_err(), "no host at all");
    }
}
