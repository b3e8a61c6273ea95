//! A fake of the tables that implements the trait [`Reads`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::core::incident::silence::Silence;
use crate::core::rollup::RollupSeries;
use crate::store::error::{RequestError, StoreError, StoreErrorKind};
use crate::store::incidents::StoredIncident;
use crate::store::reads::{
    AggregationItem, AlertItem, DayItem, EventItem, HourItem, IncidentFilter, Page, PageRequest,
    Range, ReadFuture, Reads, RolledUp, TotalItem, Windows,
};

/// A fake of the tables that answers from memory, fails, or never answers.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) error: Option<(StoreErrorKind, &'static str)>,
    pub(super) hangs: bool,
    pub(super) slow: Option<Duration>,
    pub(super) asked: AtomicUsize,
}

impl Fake {
    fn answer<T: Send + 'static>(&self, value: T) -> ReadFuture<'_, T> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if self.hangs {
                std::future::pending::<()>().await;
            }
            if let Some(slow) = self.slow {
                tokio::time::sleep(slow).await;
            }
            tokio::task::yield_now().await;
            match self.error {
                None => Ok(value),
                Some((kind, code)) => Err(StoreError::Request(Box::new(RequestError {
                    kind,
                    operation: "Query",
                    table: "secret-table".into(),
                    key: None,
                    code: code.into(),
                    message: "AWS said something private".into(),
                    request_id: Some("AWSID".into()),
                    throttling: Vec::new(),
                }))),
            }
        })
    }
}

fn total(city: &str, event_type: &str, counts: [u64; 2], severities: [u64; 4]) -> TotalItem {
    TotalItem {
        city: city.into(),
        event_type: event_type.into(),
        event_count: counts[0],
        late_count: counts[1],
        severity_counts: severities,
    }
}

impl Reads for Fake {
    fn events(&self, _city: String, _slice: PageRequest) -> ReadFuture<'_, Page<EventItem>> {
        self.answer(Page::empty())
    }
    fn alerts(
        &self,
        _city: Option<String>,
        _severity: Option<Severity>,
        _slice: PageRequest,
    ) -> ReadFuture<'_, Page<AlertItem>> {
        self.answer(Page::empty())
    }
    fn incidents(
        &self,
        _wanted: IncidentFilter,
        _slice: PageRequest,
    ) -> ReadFuture<'_, Page<StoredIncident>> {
        self.answer(Page::empty())
    }
    fn silences(&self) -> ReadFuture<'_, Vec<Silence>> {
        self.answer(Vec::new())
    }
    fn aggregations(&self, _series: String, _slice: PageRequest) -> ReadFuture<'_, Windows> {
        self.answer(Windows::none())
    }
    fn rolled_up(&self, _now_ms: UnixMs) -> ReadFuture<'_, RolledUp> {
        self.answer(RolledUp {
            until_ms: UnixMs(0),
            is_settled: false,
            generation: 0,
            window_ms: 300_000,
        })
    }
    fn first_hour(
        &self,
        _series: Vec<RollupSeries>,
        _rolled_up: RolledUp,
    ) -> ReadFuture<'_, Option<UnixMs>> {
        self.answer(None)
    }
    fn hours(
        &self,
        _series: Vec<RollupSeries>,
        _range: Range,
        _rolled_up: RolledUp,
    ) -> ReadFuture<'_, Vec<HourItem>> {
        self.answer(Vec::new())
    }
    fn days(
        &self,
        _series: Vec<RollupSeries>,
        _range: Range,
        _rolled_up: RolledUp,
    ) -> ReadFuture<'_, Vec<DayItem>> {
        self.answer(Vec::new())
    }
    fn windows(&self, _series: Vec<String>, _range: Range) -> ReadFuture<'_, Windows> {
        self.answer(Windows::none())
    }
    fn newest_window(
        &self,
        _series: Vec<String>,
        _until_ms: UnixMs,
    ) -> ReadFuture<'_, Option<UnixMs>> {
        self.answer(None)
    }
    fn latest_windows(&self, _series: Vec<String>) -> ReadFuture<'_, Vec<AggregationItem>> {
        self.answer(Vec::new())
    }
    fn span(&self, _city: String, _series: Vec<String>) -> ReadFuture<'_, Option<Range>> {
        self.answer(None)
    }
    fn totals(&self, city: Option<String>) -> ReadFuture<'_, Vec<TotalItem>> {
        let all = vec![
            total("LA", "traffic", [1, 0], [1, 0, 0, 0]),
            total("NYC", "traffic", [5, 2], [1, 2, 3, 1]),
            total("NYC", "weather", [3, 0], [0, 0, 1, 2]),
            total("Austin", "weather", [1, 0], [0, 1, 0, 0]),
        ];
        let wanted = |t: &TotalItem| city.as_ref().is_none_or(|city| t.city == *city);
        self.answer(all.into_iter().filter(wanted).collect())
    }
    fn totals_after(
        &self,
        _shard: String,
        _after: String,
        _limit: i32,
    ) -> ReadFuture<'_, (Vec<TotalItem>, bool)> {
        self.answer((Vec::new(), false))
    }
    fn kept_total(&self) -> ReadFuture<'_, Option<TotalItem>> {
        self.answer(None)
    }
    fn ping(&self) -> ReadFuture<'_, ()> {
        self.answer(())
    }
}
