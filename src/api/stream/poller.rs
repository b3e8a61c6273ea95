//! Reads the tables about once a second for all listeners, and publishes new alerts, changed windows and changed
//! incidents.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;

use super::changes::Changes;
use super::incidents::IncidentPoller;
use crate::api::aggregations::Aggregation;
use crate::api::alerts::Alert;
use crate::api::error::ApiError;
use crate::api::feed::{Audience, Feed, json};
use crate::api::state::ApiState;
use crate::api::stats::Stats;
use crate::core::clock::UnixMs;
use crate::core::time::TIME_MS_END;
use crate::store::reads::{AlertItem, PageRequest, Range};

/// Time between two polls.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Minimum length of the pause after a poll, as a multiple of the duration of the poll. If the multiple is two, polling
/// takes at most a third of the time.
const PAUSE_PER_POLL: u32 = 2;
/// Maximum pause between two polls while DynamoDB does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Time for which polling continues after the last listener has disconnected, so that a browser can reload the page and
/// reconnect.
const UNHEARD_MAX: Duration = Duration::from_secs(30);
/// The poller also looks for new alerts that were stored up to `CLOCK_SLACK_MS` milliseconds before the last poll. The
/// clock of a consumer may differ from the clock of this host, and a consumer stores an alert only after counting it.
const CLOCK_SLACK_MS: i64 = 60_000;
/// Maximum number of cities whose alerts are read concurrently.
const CITIES_AT_A_TIME: usize = 8;

/// Polls the tables until no listener has been connected for a while.
pub(super) async fn run(state: ApiState) {
    let feed = Arc::clone(state.feed());
    let mut changes = Changes::default();
    let mut incidents = IncidentPoller::default();
    let mut since_ms = state.now_ms() - CLOCK_SLACK_MS;
    let mut last_heard = Instant::now();
    let mut failures = 0u32;
    loop {
        if feed.has_listeners() {
            last_heard = Instant::now();
        } else if last_heard.elapsed() > UNHEARD_MAX && feed.try_stop_poller() {
            return;
        }
        let begun = Instant::now();
        let began_ms = state.now_ms();
        let both = async {
            poll(&state, &feed, &mut changes, since_ms).await?;
            incidents.poll(&state, &feed).await
        };
        let polled = tokio::select! {
            () = state.shutdown().wait() => return,
            polled = both => polled,
        };
        let pause = match polled {
            Ok(()) => {
                if failures > 0 {
                    let status = r#"{"status":"UP"}"#.into();
                    feed.publish("status", Audience::Everyone, status, began_ms);
                }
                failures = 0;
                if changes.alerts_to_read().is_empty() {
                    since_ms = began_ms - CLOCK_SLACK_MS;
                }
                POLL_EVERY.max(begun.elapsed() * PAUSE_PER_POLL)
            }
            Err(error) => {
                if failures == 0 {
                    let status = serde_json::json!({
                        "status": "DOWN", "reason": error.to_string(), "code": error.code(),
                    });
                    tracing::warn!(%error, "failed to poll the tables for the stream");
                    feed.publish("status", Audience::Everyone, status.to_string(), began_ms);
                }
                failures += 1;
                (POLL_EVERY * failures).min(PAUSE_MAX)
            }
        };
        tokio::select! {
            () = state.shutdown().wait() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Polls the tables once. If a read fails, the next poll repeats the read.
async fn poll(
    state: &ApiState,
    feed: &Feed,
    changes: &mut Changes,
    since_ms: UnixMs,
) -> Result<(), ApiError> {
    let grand = state.grand_total().await?;
    let now_ms = state.now_ms();
    if changes.apply_grand_total(&grand.all) {
        let stats = json(&Stats::from(&grand));
        feed.publish("stats", Audience::Everyone, stats, now_ms);
    }
    let totals = state.totals().await?;
    changes.apply_totals(&totals.every.largest, totals.every.lists_all());
    let cities = changes.alerts_to_read();
    let mut found = stream::iter(cities)
        .map(|(city, limit)| async move { (alerts_of(state, &city, limit).await, city) })
        .buffered(CITIES_AT_A_TIME);
    let mut failed = None;
    while let Some((alerts, city)) = found.next().await {
        match alerts {
            Ok(alerts) => {
                for alert in changes.apply_alerts(&city, alerts, since_ms) {
                    let audience = Audience::AlertOf(alert.city.clone(), alert.severity.clone());
                    feed.publish("alert", audience, json(&Alert::from(alert)), now_ms);
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    if changes.take_missed() {
        let missed = serde_json::json!({
            "reason": "alerts were counted that the server did not find in time",
            "missed": ["alerts"],
        });
        feed.publish("reset", Audience::Everyone, missed.to_string(), now_ms);
    }
    let series = changes.series_to_read();
    if !series.is_empty() {
        let read = state.reads().latest_windows(series.clone());
        match state.within_deadline(read).await {
            Ok(windows) => {
                for window in changes.apply_windows(windows) {
                    let audience = Audience::OfCity(window.city.clone());
                    feed.publish("window", audience, json(&Aggregation::from(window)), now_ms);
                }
            }
            Err(error) => {
                changes.read_again(series);
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn alerts_of(state: &ApiState, city: &str, limit: usize) -> Result<Vec<AlertItem>, ApiError> {
    let slice = newest(limit, state.now_ms());
    let read = state.reads().alerts(Some(city.to_owned()), None, slice);
    Ok(state.within_deadline(read).await?.items)
}

/// Returns a request for a page of the `limit` newest items.
pub(super) fn newest(limit: usize, now_ms: UnixMs) -> PageRequest {
    PageRequest {
        range: Range {
            from_ms: UnixMs(0),
            to_ms: TIME_MS_END,
        },
        limit,
        after: None,
        now_ms,
    }
}
