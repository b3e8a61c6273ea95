//! Sorted lists of the tables, merged: cities from the totals, and within a city raw events, alerts
//! and windows by time. Each list is read a page at a time, upwards.

use std::collections::VecDeque;

use aws_sdk_dynamodb::types::AttributeValue;
use tokio::task::JoinSet;

use super::super::items::text;
use super::super::{Db, Item};
use super::{Patience, View};
use crate::core::audit::{Key, Stored};
use crate::core::keys::{CITY_INDEX, SERIES_INDEX, TOTALS_SHARDS};
use crate::core::time::{format_millis, format_seconds, parse_timestamp};
use crate::store::error::StoreError;

/// Items of a page at most; with nine lists or so a page of each takes some 5 MB.
const PAGE_ITEMS_MAX: i32 = 500;
/// Rows of totals of a page at most: each may hold a thousand fences.
const TOTALS_PAGE_MAX: i32 = 50;

/// One Query, page by page.
#[derive(Clone)]
struct Lane {
    table: String,
    index: Option<&'static str>,
    pk: (&'static str, String),
    sk: (&'static str, String, Option<String>),
    consistent: bool,
    page_max: i32,
    start: Option<Item>,
    ended: bool,
    items: VecDeque<Item>,
}

impl Lane {
    /// Reads on until an item is at hand or the list has ended.
    async fn fill(&mut self, db: &Db) -> Result<(), StoreError> {
        while self.items.is_empty() && !self.ended {
            let (sk, lower, upper) = &self.sk;
            if upper.as_ref().is_some_and(|upper| lower > upper) {
                // DynamoDB refuses a range whose ends are swapped.
                self.ended = true;
                break;
            }
            let condition = match upper {
                Some(_) => "#pk = :pk AND #sk BETWEEN :lower AND :upper",
                None => "#pk = :pk AND #sk >= :lower",
            };
            let mut query = db
                .query(&self.table)
                .set_index_name(self.index.map(ToOwned::to_owned))
                .key_condition_expression(condition)
                .expression_attribute_names("#pk", self.pk.0)
                .expression_attribute_names("#sk", *sk)
                .expression_attribute_values(":pk", AttributeValue::S(self.pk.1.clone()))
                .expression_attribute_values(":lower", AttributeValue::S(lower.clone()))
                .consistent_read(self.consistent)
                .limit(self.page_max)
                .set_exclusive_start_key(self.start.take());
            if let Some(upper) = upper {
                let upper = AttributeValue::S(upper.clone());
                query = query.expression_attribute_values(":upper", upper);
            }
            let mut patience = Patience::new();
            let (found, next) = loop {
                match db.query_page(query.clone()).await {
                    Ok(page) => break page,
                    Err(error) => patience.after(error).await?,
                }
            };
            self.ended = next.is_none();
            self.start = next;
            self.items.extend(found);
        }
        Ok(())
    }
}

/// The cities and their totals, in the order of their series.
pub(super) struct Cities {
    lanes: Vec<Lane>,
}

impl Cities {
    /// Begins at `city`, or with the first.
    pub(super) fn new(db: &Db, city: Option<&str>) -> Cities {
        let lower = city.map_or_else(|| "!".to_owned(), |city| format!("{city}#"));
        let lane = |shard: u32| Lane {
            table: db.names.totals.clone(),
            index: None,
            pk: ("shard", format!("totals#{shard}")),
            sk: ("series", lower.clone(), None),
            consistent: true,
            page_max: TOTALS_PAGE_MAX,
            start: None,
            ended: false,
            items: VecDeque::new(),
        };
        Cities {
            lanes: (0..TOTALS_SHARDS).map(lane).collect(),
        }
    }

    /// Returns the next city with its totals by event type.
    pub(super) async fn next(
        &mut self,
        db: &Db,
    ) -> Result<Option<(String, Vec<(String, Item)>)>, StoreError> {
        let mut least: Option<String> = None;
        for lane in &mut self.lanes {
            lane.fill(db).await?;
            if let Some(item) = lane.items.front() {
                let series = text(item, "series");
                if least.as_ref().is_none_or(|least| series < *least) {
                    least = Some(series);
                }
            }
        }
        let Some(least) = least else { return Ok(None) };
        let city = least.split('#').next().unwrap_or_default().to_owned();
        let mut totals = Vec::new();
        for lane in &mut self.lanes {
            loop {
                lane.fill(db).await?;
                let front = lane.items.front().map(|item| text(item, "series"));
                let own = front.is_some_and(|s| s.split('#').next() == Some(&city));
                if !own {
                    break;
                }
                if let Some(item) = lane.items.pop_front() {
                    let series = text(&item, "series");
                    let kind = series.split_once('#').map_or("", |(_, kind)| kind);
                    totals.push((kind.to_owned(), item));
                }
            }
        }
        Ok(Some((city, totals)))
    }
}

#[derive(Clone)]
enum Holds {
    Raw,
    Alerts,
    Windows(String),
}

/// The raw events, alerts and windows of a city by time.
pub(super) struct CityLanes {
    city: String,
    lanes: Vec<(Holds, Lane)>,
}

impl CityLanes {
    /// Opens all lists of a city from `from_ms` on.
    pub(super) async fn open(
        db: &Db,
        city: &str,
        kinds: &[String],
        from_ms: i64,
        view: &View,
    ) -> Result<CityLanes, StoreError> {
        let until_ms = view.range.1;
        let lane = |table: &str, index, pk, sk, consistent| Lane {
            table: table.to_owned(),
            index,
            pk,
            sk,
            consistent,
            page_max: PAGE_ITEMS_MAX,
            start: None,
            ended: false,
            items: VecDeque::new(),
        };
        let (from, last) = (format_millis(from_ms), format_millis(until_ms - 1));
        let mut lanes = Vec::new();
        if view.stored != Stored::Nothing {
            for shard in 0..view.shards {
                let pk = ("city_shard", format!("{city}#{shard}"));
                let sk = ("timestamp", from.clone(), Some(last.clone()));
                let raw = lane(&db.names.raw, Some(CITY_INDEX), pk, sk, false);
                lanes.push((Holds::Raw, raw));
            }
            // Sort keys are `<time>#<id>`: all of a time lie between it and the next.
            let pk = ("city", city.to_owned());
            let sk = ("timestamp", from, Some(format_millis(until_ms)));
            lanes.push((Holds::Alerts, lane(&db.names.alerts, None, pk, sk, true)));
        }
        for kind in kinds {
            let pk = ("series", format!("{city}#{kind}"));
            let lower = format_seconds(from_ms.saturating_add(999));
            let sk = ("window_start", lower, Some(format_seconds(until_ms - 1)));
            let windows = lane(&db.names.aggregations, Some(SERIES_INDEX), pk, sk, false);
            lanes.push((Holds::Windows(kind.clone()), windows));
        }
        let mut tasks = JoinSet::new();
        for (n, (holds, mut lane)) in lanes.into_iter().enumerate() {
            let db = db.clone();
            tasks.spawn(async move {
                let filled = lane.fill(&db).await;
                filled.map(|()| (n, holds, lane))
            });
        }
        let mut filled = Vec::new();
        while let Some(done) = tasks.join_next().await {
            filled.push(done.expect("reading a list does not panic")?);
        }
        filled.sort_by_key(|(n, _, _)| *n);
        let lanes = filled.into_iter().map(|(_, holds, lane)| (holds, lane));
        let mut out = CityLanes {
            city: city.to_owned(),
            lanes: lanes.collect(),
        };
        out.skip_unreadable(db).await?;
        Ok(out)
    }

    /// Returns the time of the next item.
    pub(super) fn next_ms(&self) -> Option<i64> {
        let fronts = self.lanes.iter().filter_map(front_ms);
        fronts.min()
    }

    /// Takes the next item, and its key.
    ///
    /// # Panics
    /// If there is none.
    pub(super) async fn take(&mut self, db: &Db) -> Result<(Key, Item), StoreError> {
        let times = self.lanes.iter().enumerate();
        let least = times
            .filter_map(|(n, lane)| Some((front_ms(lane)?, n)))
            .min();
        let (time_ms, n) = least.expect("next_ms has shown an item");
        let (holds, lane) = &mut self.lanes[n];
        let item = lane.items.pop_front().expect("its front was read");
        let city = &self.city;
        let key = match holds {
            Holds::Raw => Key::raw(city, time_ms, &text(&item, "event_id")),
            Holds::Alerts => {
                let sk = text(&item, "timestamp");
                let id = sk.split_once('#').map_or("", |(_, id)| id);
                Key::alert(city, time_ms, id)
            }
            Holds::Windows(kind) => Key::window(city, kind, time_ms),
        };
        if lane.items.is_empty() {
            lane.fill(db).await?;
        }
        self.skip_unreadable(db).await?;
        Ok((key, item))
    }

    /// Drops items whose sort key is no time: this program never wrote them.
    async fn skip_unreadable(&mut self, db: &Db) -> Result<(), StoreError> {
        for (holds, lane) in &mut self.lanes {
            while let Some(item) = lane.items.front() {
                if time_ms(holds, item).is_some() {
                    break;
                }
                tracing::warn!(table = lane.table, ?item, "left out an item without a time");
                lane.items.pop_front();
                lane.fill(db).await?;
            }
        }
        Ok(())
    }
}

fn front_ms((holds, lane): &(Holds, Lane)) -> Option<i64> {
    time_ms(holds, lane.items.front()?)
}

fn time_ms(holds: &Holds, item: &Item) -> Option<i64> {
    match holds {
        Holds::Raw => parse_timestamp(&text(item, "timestamp")),
        Holds::Alerts => parse_timestamp(text(item, "timestamp").split('#').next()?),
        Holds::Windows(_) => parse_timestamp(&text(item, "window_start")),
    }
}
