//! Answers requests for lists: with one page as JSON, or as an export, which holds all pages as CSV or NDJSON.
//!
//! A client requests an export with `format=csv` or `format=ndjson`, or with `Accept: text/csv` or
//! `application/x-ndjson`. The response starts when the server has read the first page. The server reads each further
//! page only after the client has taken the previous page, so an export holds only one page in memory. If a later page
//! cannot be read, the body ends with a transport error, so that the client notices the missing rows.

use std::io;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::budget::ReadCharge;
use crate::api::error::ApiError;
use crate::api::params::{LIMIT_MAX, PageLimit, Params};
use crate::api::spent::Spent;
use crate::api::state::{AnswerBody, ApiState, READ_UNITS_MAX};
use crate::store::reads::{Meter, Page, PageRequest};

/// Maximum number of rows of an export.
pub(super) const ROWS_MAX: u32 = 100_000;
/// Number of bytes that the server counts against the memory limit of the client for each export in flight. The bytes
/// suffice for one page of a list and for the CSV or NDJSON text of the page.
const HELD_BYTES: usize = 8 << 20;

/// The format of a list: JSON, CSV or NDJSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ListFormat {
    Json,
    Csv,
    Ndjson,
}

impl ListFormat {
    /// Returns the list format that the request selects. The parameter `format` takes precedence over the header
    /// `Accept`.
    ///
    /// # Errors
    /// Returns `bad_parameter` if `format` names an unknown format.
    pub(super) fn of(params: &Params, headers: &HeaderMap) -> Result<ListFormat, ApiError> {
        match params.given("format") {
            Some("json") => Ok(ListFormat::Json),
            Some("csv") => Ok(ListFormat::Csv),
            Some("ndjson") => Ok(ListFormat::Ndjson),
            Some(_) => Err(ApiError::bad_parameter(
                "format must be json, csv or ndjson",
            )),
            None => Ok(accepted(headers)),
        }
    }

    /// Returns the default and the maximum of the parameter `limit`. `page_default` is the default for the format JSON.
    pub(super) fn page_limit(self, page_default: u32) -> PageLimit {
        match self {
            ListFormat::Json => PageLimit {
                default: page_default,
                max: LIMIT_MAX,
            },
            ListFormat::Csv | ListFormat::Ndjson => PageLimit {
                default: ROWS_MAX,
                max: ROWS_MAX,
            },
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            ListFormat::Json => "application/json",
            ListFormat::Csv => "text/csv; charset=utf-8; header=present",
            ListFormat::Ndjson => "application/x-ndjson",
        })
    }
}

/// Returns the first known format in the header `Accept`, or JSON if the header names no known format. Weights (`q=`)
/// are ignored.
fn accepted(headers: &HeaderMap) -> ListFormat {
    let values = headers.get_all(ACCEPT).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let types = texts.flat_map(|text| text.split(','));
    let mut known = types.filter_map(|one| match one.split(';').next()?.trim() {
        "text/csv" => Some(ListFormat::Csv),
        "application/x-ndjson" | "application/ndjson" => Some(ListFormat::Ndjson),
        "application/json" | "application/*" | "*/*" => Some(ListFormat::Json),
        _ => None,
    });
    known.next().unwrap_or(ListFormat::Json)
}

/// A row of an export.
pub(super) trait ExportRow: Serialize + Send + 'static {
    /// The CSV columns, which have the names of the JSON fields.
    const COLUMNS: &'static [&'static str];
}

/// Marks a response whose body is sent as a stream. `held_bytes` is the maximum number of bytes of the body that the
/// server holds in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamedBody {
    pub(super) held_bytes: usize,
}

type PageRead<T> = BoxFuture<'static, Result<Page<T>, ApiError>>;

/// The answer to a request for a list: its format, its first page, and the function that reads a page.
pub(super) struct ListAnswer<T> {
    list: &'static str,
    format: ListFormat,
    slice: PageRequest,
    read: Box<dyn Fn(ApiState, PageRequest) -> PageRead<T> + Send + Sync>,
}

impl<T: ExportRow> ListAnswer<T> {
    /// Returns an answer that starts at the position of `slice` and calls `read` for each page. The limit of `slice` is
    /// the maximum number of rows of the page, or of the whole export. `list` is the name of the downloaded file without
    /// its extension.
    pub(super) fn new<F>(
        list: &'static str,
        format: ListFormat,
        slice: PageRequest,
        read: impl Fn(ApiState, PageRequest) -> F + Send + Sync + 'static,
    ) -> ListAnswer<T>
    where
        F: Future<Output = Result<Page<T>, ApiError>> + Send + 'static,
    {
        ListAnswer {
            list,
            format,
            slice,
            read: Box::new(move |state, slice| read(state, slice).boxed()),
        }
    }

    /// Returns one page as JSON if the client requested JSON, and an export otherwise. `body` makes the JSON object from
    /// the items of the page and the cursor of the next page.
    ///
    /// # Errors
    /// Returns the error of a failed read of the first page.
    pub(super) async fn respond<B: Serialize>(
        self,
        state: ApiState,
        charge: Option<Extension<ReadCharge>>,
        params: &Params,
        body: impl FnOnce(Vec<T>, Option<String>) -> B,
    ) -> Result<Response, ApiError> {
        if self.format != ListFormat::Json {
            return self.export(state, charge).await;
        }
        let make = async {
            let range = self.slice.range;
            let page = (self.read)(state.clone(), self.slice).await?;
            let next = params.next(page.next.as_ref(), range);
            Ok::<_, ApiError>(body(page.items, next))
        };
        state.answer(params.key(), make).await
    }

    /// Reads the first page, and returns a response whose body continues with the other pages.
    ///
    /// # Errors
    /// Returns the error of a failed read of the first page.
    pub(super) async fn export(
        self,
        state: ApiState,
        charge: Option<Extension<ReadCharge>>,
    ) -> Result<Response, ApiError> {
        let (format, list) = (self.format, self.list);
        let mut pages = Pages {
            rows_left: self.slice.limit,
            export: self,
            state,
            charge: None,
            meter: Meter::bounded(READ_UNITS_MAX),
            charged: 0.0,
            next: PageStart::First,
        };
        let first = pages.read().await?;
        let spent = Spent(pages.charged);
        pages.charge = charge.map(|Extension(charge)| charge);
        let rest = stream::unfold(pages, async |mut pages| {
            if matches!(pages.next, PageStart::End) {
                return None;
            }
            let read = pages.read().await.map_err(|error| {
                tracing::warn!(%error, list = pages.export.list, "an export ends before its last row");
                pages.next = PageStart::End;
                io::Error::other(error.to_string())
            });
            Some((read, pages))
        });
        // The stream must be fused, because the compression layer polls a body again after the body has ended.
        let body = stream::iter([Ok(first)]).chain(rest).fuse();
        let mut response = Response::new(Body::from_stream(body));
        response.extensions_mut().insert(spent);
        response.extensions_mut().insert(StreamedBody {
            held_bytes: HELD_BYTES,
        });
        *response.headers_mut() = form_headers(format, list);
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
        Ok(response)
    }
}

/// The position where the next page begins.
enum PageStart {
    First,
    After(crate::store::reads::Position),
    End,
}

/// The pages of an export that have not been read yet.
struct Pages<T> {
    export: ListAnswer<T>,
    state: ApiState,
    /// Charges the client for the read units of all pages after the first page.
    charge: Option<ReadCharge>,
    meter: Meter,
    /// The number of read units of this export that have been charged so far.
    charged: f64,
    rows_left: usize,
    next: PageStart,
}

impl<T: ExportRow> Pages<T> {
    /// Reads the next page, and returns its rows as text.
    async fn read(&mut self) -> Result<Bytes, ApiError> {
        let is_first = matches!(self.next, PageStart::First);
        let mut slice = self.export.slice.clone();
        slice.limit = self.rows_left.min(LIMIT_MAX as usize);
        if let PageStart::After(position) = &self.next {
            slice.after = Some(position.clone());
        }
        let read = (self.export.read)(self.state.clone(), slice);
        let page = {
            let _slot = self.state.acquire_build_slot().await;
            let deadline = self.state.deadline();
            let read = tokio::time::timeout(deadline, self.meter.run(read)).await;
            read.unwrap_or_else(|_elapsed| Err(ApiError::store_timeout("the deadline passed")))
        };
        let (_, units) = self.meter.spent();
        if let Some(charge) = &self.charge {
            charge.add(units - self.charged);
        }
        self.charged = units;
        let page = page.map_err(|error| error.with_units(units))?;
        self.rows_left = self.rows_left.saturating_sub(page.items.len());
        self.next = match page.next {
            Some(position) if self.rows_left > 0 => PageStart::After(position),
            _ => PageStart::End,
        };
        lines(self.export.format, &page.items, is_first)
    }
}

/// Returns all rows as one body. `list` is the name of the downloaded file without its extension.
///
/// # Errors
/// Returns `internal` if a row cannot be written.
pub(super) fn body_of<T: ExportRow>(
    format: ListFormat,
    list: &'static str,
    rows: &[T],
) -> Result<AnswerBody, ApiError> {
    Ok(AnswerBody {
        bytes: lines(format, rows, true)?,
        headers: form_headers(format, list),
    })
}

/// Returns the headers that describe the format of an export.
fn form_headers(format: ListFormat, list: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, format.content_type())]);
    if format == ListFormat::Csv {
        let file = format!("attachment; filename=\"{list}.csv\"");
        let file = HeaderValue::from_str(&file).expect("names of lists are plain text");
        headers.insert(CONTENT_DISPOSITION, file);
    }
    headers
}

fn lines<T: ExportRow>(
    format: ListFormat,
    rows: &[T],
    with_header: bool,
) -> Result<Bytes, ApiError> {
    let lines = match format {
        ListFormat::Csv => csv_lines(rows, with_header),
        ListFormat::Json | ListFormat::Ndjson => json_lines(rows),
    };
    lines.map_err(|error| ApiError::internal(error.to_string()))
}

fn json_lines<T: ExportRow>(rows: &[T]) -> io::Result<Bytes> {
    let mut lines = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut lines, row)?;
        lines.push(b'\n');
    }
    Ok(lines.into())
}

fn csv_lines<T: ExportRow>(rows: &[T], with_header: bool) -> io::Result<Bytes> {
    let mut lines = csv::Writer::from_writer(Vec::new());
    if with_header {
        lines.write_record(T::COLUMNS)?;
    }
    for row in rows {
        let value = serde_json::to_value(row)?;
        lines.write_record(T::COLUMNS.iter().map(|column| cell(&value[*column])))?;
    }
    let lines = lines.into_inner().map_err(|error| error.into_error())?;
    Ok(lines.into())
}

/// Returns the text of a CSV cell before quoting. An absent field becomes an empty cell, a string becomes its text, and
/// the items of a list are separated by spaces. Any other value is written as JSON.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))])
    }

    #[test]
    fn the_first_known_type_decides() {
        for (accept, format) in [
            ("", ListFormat::Json),
            ("text/csv", ListFormat::Csv),
            ("text/csv; q=0.9, application/json", ListFormat::Csv),
            ("application/json, text/csv", ListFormat::Json),
            ("*/*", ListFormat::Json),
            ("image/png, application/x-ndjson", ListFormat::Ndjson),
            (
                "text/html,application/xhtml+xml,*/*;q=0.8",
                ListFormat::Json,
            ),
        ] {
            assert_eq!(accepted(&headers(accept)), format, "{accept}");
        }
    }

    #[derive(Serialize)]
    struct Row {
        name: &'static str,
        count: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        late: Option<bool>,
        severities: Vec<&'static str>,
    }

    impl ExportRow for Row {
        const COLUMNS: &'static [&'static str] = &["name", "count", "late", "severities"];
    }

    #[test]
    fn cells_are_quoted_where_csv_needs_it() {
        let row = |name, late| Row {
            name,
            count: 2,
            late,
            severities: vec!["low", "high"],
        };
        let rows = [row("São \"Paulo\", BR\nx", None), row("NYC", Some(true))];
        let text = csv_lines(&rows, true).unwrap();
        let want = "name,count,late,severities\n\"São \"\"Paulo\"\", BR\nx\",2,,low high\nNYC,2,true,low high\n";
        assert_eq!(text, want);
        let text = json_lines(&rows[1..]).unwrap();
        let want =
            "{\"name\":\"NYC\",\"count\":2,\"late\":true,\"severities\":[\"low\",\"high\"]}\n";
        assert_eq!(text, want);
    }
}
