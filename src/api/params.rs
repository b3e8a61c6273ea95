//! Query parameters, strictly: unknown, repeated, malformed or out of range is 400, with a sentence
//! that names the parameter and what is allowed. Nothing is guessed or clamped.

use std::collections::BTreeMap;

use axum::extract::Query;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::Uri;
use axum::http::request::Parts;

use crate::api::cursor;
use crate::api::error::ApiError;
use crate::core::event::Severity;
use crate::core::parse::CITY_CHARS_MAX;
use crate::core::time::{TIME_MS_END, parse_timestamp};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::reads::{PageRequest, Position, Range};

/// Most items of a page.
pub const LIMIT_MAX: u32 = 1_000;
/// Longest time back from now: as long as raw events are kept.
pub const HOURS_MAX: u32 = 720;
/// Most characters of a client's own text in an error.
const ECHO_CHARS_MAX: usize = 40;

/// The parameters of one request.
#[derive(Clone, Debug)]
pub struct Params {
    route: &'static str,
    city: Option<String>,
    pairs: BTreeMap<String, String>,
}

impl Params {
    /// Returns the parameters of `uri`, all of them in `allowed` and none twice.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn parse(
        route: &'static str,
        city: Option<String>,
        uri: &Uri,
        allowed: &[&str],
    ) -> Result<Params, ApiError> {
        let Query(found) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiError::bad_parameter("the query is no list of name=value"))?;
        let mut pairs = BTreeMap::new();
        for (name, value) in found {
            if !allowed.contains(&name.as_str()) {
                let takes = match allowed {
                    [] => "no parameters".to_owned(),
                    _ => allowed.join(", "),
                };
                let name = echo(&name);
                return Err(ApiError::bad_parameter(format!(
                    "unknown parameter {name}; this path takes {takes}"
                )));
            }
            if pairs.contains_key(&name) {
                return Err(ApiError::bad_parameter(format!("{name} is given twice")));
            }
            pairs.insert(name, value);
        }
        Ok(Params { route, city, pairs })
    }

    /// Returns the text that names the answer: equal for equal requests only.
    pub fn key(&self) -> String {
        format!("{:?}", (self.route, &self.city, &self.pairs))
    }

    /// Returns the text that names the list, whatever the page.
    fn list_key(&self) -> String {
        let pairs: Vec<_> = self
            .pairs
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "cursor" | "limit"))
            .collect();
        format!("{:?}", (self.route, &self.city, pairs))
    }

    /// Returns a parameter's text; none if it is empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.pairs
            .get(name)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    /// Returns a parameter's text as it was given, even if it is empty.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.pairs.get(name).map(String::as_str)
    }

    /// Returns a whole number from 1 to `most`.
    ///
    /// # Errors
    /// `bad_parameter`.
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

    /// Returns a severity.
    ///
    /// # Errors
    /// `bad_parameter`.
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

    /// Returns an instant in Unix milliseconds.
    ///
    /// # Errors
    /// `bad_parameter`.
    pub fn instant(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.pairs.get(name) else {
            return Ok(None);
        };
        // A plus sign that was not percent-encoded arrives as a space.
        let plus = text
            .len()
            .checked_sub(6)
            .filter(|at| *at > 10 && text.is_char_boundary(*at) && text[*at..].starts_with(' '));
        let mended = plus.map(|at| format!("{}+{}", &text[..at], &text[at + 1..]));
        match parse_timestamp(mended.as_deref().unwrap_or(text)) {
            Some(ms) => Ok(Some(ms)),
            None => Err(ApiError::bad_parameter(format!(
                "{name} must be an RFC 3339 time from 1970 to 9998, \
                 such as 2013-01-01T06:00:00Z, not {}",
                echo(text)
            ))),
        }
    }

    /// Returns which part of the list is asked for: `limit`, `from`, `to` and `cursor`.
    ///
    /// `from_ms` is where the list begins if `from` is not given.
    ///
    /// # Errors
    /// `bad_parameter`, `bad_cursor`.
    pub fn slice(&self, limit: u32, from_ms: i64, now_ms: i64) -> Result<PageRequest, ApiError> {
        let limit = self.number("limit", LIMIT_MAX)?.unwrap_or(limit);
        let mut range = Range {
            from_ms: self.instant("from")?.unwrap_or(0).max(from_ms),
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

    /// Returns what a client is told about a failed read. DynamoDB refuses a place that no cursor of ours
    /// names: that is the client's mistake.
    pub fn failed(&self, error: StoreError) -> ApiError {
        if error.kind() == StoreErrorKind::Invalid && self.pairs.contains_key("cursor") {
            return ApiError::bad_cursor();
        }
        error.into()
    }

    /// Returns the token for the page that begins behind `position`.
    pub fn next(&self, position: Option<&Position>, range: Range) -> Option<String> {
        position.map(|position| cursor::encode(&self.list_key(), position, range))
    }
}

/// Tells whether an event can have this city; if not, the answer is known without asking.
pub fn is_possible_city(city: &str) -> bool {
    !city.is_empty()
        && city.chars().count() <= CITY_CHARS_MAX
        && !city.contains('#')
        && !city.chars().any(char::is_control)
}

/// Tells whether an event can have this type (after lower-casing).
pub fn is_possible_type(event_type: &str) -> bool {
    let bytes = event_type.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.len() <= crate::core::parse::EVENT_TYPE_BYTES_MAX
        && bytes
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// The one segment of a path that is a city, percent-decoded.
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

/// Returns a client's text as it may stand in an error: quoted, escaped, short.
fn echo(text: &str) -> String {
    match text.char_indices().nth(ECHO_CHARS_MAX) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}
