//! Reads and strictly checks the query parameters of a request.
//!
//! A parameter that is unknown, repeated, malformed or out of range results in status 400. The error message names the
//! parameter and the allowed values. The server never guesses or clamps a parameter value.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;

use crate::api::cursor;
use crate::api::error::ApiError;
use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::time::{TIME_MS_END, parse_timestamp};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::reads::{PageRequest, Position, Range};

/// Maximum number of items per page.
pub const LIMIT_MAX: u32 = 1_000;
pub(super) const HOUR_MS: i64 = 3_600_000;
/// Maximum value of `hours` for a list, equal to the default retention of raw events.
pub const HOURS_MAX: u32 = 720;
/// Maximum number of characters of a parameter value that an error message repeats.
const ECHO_CHARS_MAX: usize = 40;

/// The default and the maximum of the parameter `limit`.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// The value that is used if the client gives no `limit`.
    pub default: u32,
    /// The maximum `limit` that a client may give.
    pub max: u32,
}

/// The query parameters of one request.
#[derive(Clone, Debug)]
pub struct Params {
    route: &'static str,
    city: Option<String>,
    pairs: BTreeMap<String, String>,
}

impl Params {
    /// Returns the parameters of `uri`.
    ///
    /// # Errors
    /// Returns `bad_parameter` if a parameter appears twice or is not in `allowed`. The names in `allowed` are
    /// separated by spaces.
    pub fn parse(
        route: &'static str,
        city: Option<String>,
        uri: &Uri,
        allowed: &str,
    ) -> Result<Params, ApiError> {
        let Query(found) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiError::bad_parameter("the query must be a list of name=value pairs"))?;
        let mut pairs = BTreeMap::new();
        for (name, value) in found {
            if !allowed.split_whitespace().any(|known| known == name) {
                let accepted = match allowed {
                    "" => "no parameters".to_owned(),
                    _ => allowed.replace(' ', ", "),
                };
                let name = echo(&name);
                return Err(ApiError::bad_parameter(format!(
                    "unknown parameter {name}; this path accepts {accepted}"
                )));
            }
            if pairs.contains_key(&name) {
                return Err(ApiError::bad_parameter(format!(
                    "{name} appears twice; give it once"
                )));
            }
            pairs.insert(name, value);
        }
        Ok(Params { route, city, pairs })
    }

    /// Returns the cache key of the response. Two requests have the same key only if their parameters are equal.
    pub fn key(&self) -> String {
        format!("{:?}", (self.route, &self.city, &self.pairs))
    }

    /// Returns a text that identifies the requested list. The text is the same for all pages of a list.
    fn list_key(&self) -> String {
        let pairs: Vec<_> = self
            .pairs
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "cursor" | "format" | "limit"))
            .collect();
        format!("{:?}", (self.route, &self.city, pairs))
    }

    /// Returns the text of a parameter, or `None` if the parameter is absent or empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// Returns the text of a parameter, even if the text is empty.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.pairs.get(name).map(String::as_str)
    }

    /// Returns the value of a parameter as a whole number.
    ///
    /// # Errors
    /// Returns `bad_parameter` unless the number is from 1 to `most`.
    pub fn number(&self, name: &str, most: u32) -> Result<Option<u32>, ApiError> {
        let Some(text) = self.pairs.get(name) else {
            return Ok(None);
        };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(n) if digits && (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(ApiError::bad_parameter(format!(
                "{name} must be a whole number from 1 to {most}, not {}",
                echo(text)
            ))),
        }
    }

    /// Returns the value of the parameter `severity`, which is not case-sensitive.
    ///
    /// # Errors
    /// Returns `bad_parameter` if the value is not the name of a severity.
    pub fn severity(&self) -> Result<Option<Severity>, ApiError> {
        let Some(text) = self.text("severity") else {
            return Ok(None);
        };
        match Severity::from_name(&text.to_ascii_lowercase()) {
            Some(severity) => Ok(Some(severity)),
            None => Err(ApiError::bad_parameter(format!(
                "severity must be low, medium, high or critical, not {}",
                echo(text)
            ))),
        }
    }

    /// Returns the value of a parameter as an instant.
    ///
    /// # Errors
    /// Returns `bad_parameter` if the text is not an RFC 3339 time.
    pub fn instant(&self, name: &str) -> Result<Option<UnixMs>, ApiError> {
        let Some(text) = self.pairs.get(name) else {
            return Ok(None);
        };
        // If a client does not percent-encode the plus sign of `+02:00`, the server receives a space instead.
        let plus = text
            .len()
            .checked_sub(6)
            .filter(|at| *at > 10 && text.is_char_boundary(*at) && text[*at..].starts_with(' '));
        let repaired = plus.map(|at| format!("{}+{}", &text[..at], &text[at + 1..]));
        match parse_timestamp(repaired.as_deref().unwrap_or(text)) {
            Some(ms) => Ok(Some(ms)),
            None => Err(ApiError::bad_parameter(format!(
                "{name} must be an RFC 3339 time from 1970 to 9998, \
                 such as 2013-01-01T06:00:00Z, not {}",
                echo(text)
            ))),
        }
    }

    /// Returns the part of a list that `limit`, `from`, `to` and `cursor` request.
    ///
    /// The list starts at `from_ms` or `from`, whichever is later.
    ///
    /// # Errors
    /// Returns `bad_parameter` or `bad_cursor` if a parameter is wrong.
    pub fn slice(
        &self,
        limit: PageLimit,
        from_ms: UnixMs,
        now_ms: UnixMs,
    ) -> Result<PageRequest, ApiError> {
        let limit = self.number("limit", limit.max)?.unwrap_or(limit.default);
        let mut range = Range {
            from_ms: self.instant("from")?.unwrap_or(UnixMs(0)).max(from_ms),
            to_ms: self.instant("to")?.unwrap_or(TIME_MS_END),
        };
        let mut after = None;
        if let Some(token) = self.pairs.get("cursor") {
            let (position, first_range) = cursor::decode(&self.list_key(), token)?;
            after = Some(position);
            range = first_range;
        }
        Ok(PageRequest {
            range,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            after,
            now_ms,
        })
    }

    /// Returns the error that the client gets for a failed read of the tables.
    ///
    /// DynamoDB rejects a start position that no item can have. Only a forged cursor contains an impossible position,
    /// so the client gets the error `bad_cursor`.
    pub fn read_error(&self, error: StoreError) -> ApiError {
        if error.kind() == StoreErrorKind::Invalid && self.pairs.contains_key("cursor") {
            return ApiError::bad_cursor();
        }
        error.into()
    }

    /// Returns the cursor of the page that starts after `position`, or `None` if `position` is `None`.
    pub fn next(&self, position: Option<&Position>, range: Range) -> Option<String> {
        position.map(|position| cursor::encode(&self.list_key(), position, range))
    }
}

/// The city in the path of a request, after percent-decoding.
pub struct CityPath(pub String);

impl<S: Send + Sync> FromRequestParts<S> for CityPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<CityPath, ApiError> {
        let path: Result<Path<String>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        match path {
            Ok(Path(city)) => Ok(CityPath(city)),
            Err(_) => Err(ApiError::bad_path()),
        }
    }
}

/// Quotes, escapes and shortens a parameter value for an error message.
fn echo(text: &str) -> String {
    match text.char_indices().nth(ECHO_CHARS_MAX) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}
