//! The one reader behind all listeners: looks at the tables about once a second while somebody
//! listens, and tells the feed what is new.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;

use super::Stream;
use super::changes::Changes;
use super::feed::{Feed, Topic};
use crate::api::aggregations::Aggregation;
use crate::api::alerts::Alert;
use crate::api::state::ApiState;
use crate::api::stats::Stats;
use crate::core::time::TIME_MS_END;
use crate::store::reads::{AlertItem, PageRequest, Range};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that takes long is followed by a longer pause, so that it takes at most a third of the time.
const PAUSE_PER_LOOK: u32 = 2;
/// Longest time between two looks while DynamoDB does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long it goes on looking after the last listener has left: pages are loaded again.
const UNHEARD_MAX: Duration = Duration::from_secs(30);
/// How much earlier than the last look an alert may have been stored, by the consumer's clock, and be
/// new: clocks differ, and its count follows it.
const CLOCK_SLACK_MS: i64 = 60_000;
/// Most requests for alerts at a time.
const CITIES_AT_A_TIME: usize = 8;

/// Looks until nobody has listened for a while.
pub(super) async fn run(state: ApiState, stream: Arc<Stream>) {
    let feed = &stream.feed;
    let mut changes = Changes::default();
    let mut since_ms = state.now_ms() - CLOCK_SLACK_MS;
    let mut heard = Instant::now();
    let mut failures = 0u32;
    loop {
        if feed.is_heard() {
            heard = Instant::now();
        } else if heard.elapsed() > UNHEARD_MAX && stream.rest() {
            return;
        }
        let begun = Instant::now();
        let began_ms = state.now_ms();
        let looked = tokio::select! {
            () = state.shutdown().wait() => return,
            looked = look(&state, feed, &mut changes, since_ms) => looked,
        };
        let pause = match looked {
            Ok(()) => {
                if failures > 0 {
                    feed.tell(
                        "status",
                        Topic::Everybody,
                        r#"{"status":"UP"}"#.into(),
                        began_ms,
                    );
                }
                failures = 0;
                if changes.alerts_to_read().is_empty() {
                    since_ms = began_ms - CLOCK_SLACK_MS;
                }
                LOOK_EVERY.max(begun.elapsed() * PAUSE_PER_LOOK)
            }
            Err(error) => {
                if failures == 0 {
                    let data = serde_json::json!({
                        "status": "DOWN", "reason": error.to_string(), "code": error.code(),
                    });
                    tracing::warn!(%error, "failed to read what is new");
                    feed.tell("status", Topic::Everybody, data.to_string(), began_ms);
                }
                failures += 1;
                (LOOK_EVERY * failures).min(PAUSE_MAX)
            }
        };
        tokio::select! {
            () = state.shutdown().wait() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Looks once. What fails is looked at again by the next look.
async fn look(
    state: &ApiState,
    feed: &Feed,
    changes: &mut Changes,
    since_ms: i64,
) -> Result<(), crate::api::error::ApiError> {
    let grand = state.grand_total().await?;
    let now_ms = state.now_ms();
    if changes.take_grand_total(&grand.all) {
        feed.tell("stats", Topic::Everybody, json(&Stats::of(&grand)), now_ms);
    }
    let totals = state.totals().await?;
    changes.take_totals(&totals.every.largest);
    let cities = changes.alerts_to_read();
    let mut found = stream::iter(cities)
        .map(|(city, limit)| async move { (alerts_of(state, &city, limit).await, city) })
        .buffered(CITIES_AT_A_TIME);
    let mut failed = None;
    while let Some((alerts, city)) = found.next().await {
        match alerts {
            Ok(alerts) => {
                for alert in changes.take_alerts(&city, alerts, since_ms) {
                    let topic = Topic::Alert(alert.city.clone(), alert.severity.clone());
                    feed.tell("alert", topic, json(&Alert::from(alert)), now_ms);
                }
            }
            Err(error) => failed = Some(error),
        }
    }
    let series = changes.series_to_read();
    if !series.is_empty() {
        let read = state.within(state.reads().latest_windows(series.clone()));
        match read.await {
            Ok(windows) => {
                for window in changes.take_windows(windows) {
                    let topic = Topic::Window(window.city.clone());
                    feed.tell("window", topic, json(&Aggregation::from(window)), now_ms);
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

async fn alerts_of(
    state: &ApiState,
    city: &str,
    limit: usize,
) -> Result<Vec<AlertItem>, crate::api::error::ApiError> {
    let slice = PageRequest {
        range: Range {
            from_ms: 0,
            to_ms: TIME_MS_END,
        },
        limit,
        after: None,
        now_ms: state.now_ms(),
    };
    let read = state.reads().alerts(Some(city.to_owned()), None, slice);
    Ok(state.within(read).await?.items)
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and flags can be written")
}
