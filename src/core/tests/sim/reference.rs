//! Computes the expected content of the tables with a simple loop over the log, the *fold*. The fold shares no code
//! with the core.

use std::collections::{BTreeMap, BTreeSet};

/// A record of the simulated log.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// An event with its city, event type, severity from 0 to 3, event time, and the id that its producer set.
    Event(&'static str, &'static str, usize, i64, Option<String>),
    Heartbeat(i64),
    Bad,
    /// A control record, which has an offset but is never delivered.
    Control,
}

/// The name of a city for which the tables refuse all items.
pub(crate) const POISON: &str = "POISON";

#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) said: Said,
    pub(crate) timestamp_ms: Option<i64>,
}

impl Logged {
    /// Returns true if an event with the time `time_ms` is a future event in this record.
    pub(crate) fn is_future(&self, time_ms: i64) -> bool {
        self.timestamp_ms.is_none_or(|stamp| time_ms > stamp + SKEW)
    }
}

/// The counts of a row: events in windows, late events, and events by severity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Counts {
    pub(crate) counted: u64,
    pub(crate) late: u64,
    pub(crate) severities: [u64; 4],
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.counted += other.counted;
        self.late += other.late;
        for (mine, new) in self.severities.iter_mut().zip(other.severities) {
            *mine += new;
        }
    }
}

/// The name of a row: the series `city#type`, and the start of the window, or `None` for a totals row.
pub(crate) type RowName = (String, Option<i64>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tables {
    pub(crate) rows: BTreeMap<RowName, Counts>,
    pub(crate) raw: BTreeSet<(String, i64)>,
    pub(crate) alerts: BTreeSet<(String, i64, String)>,
    /// The topic id, partition and offset of each rejected record in the dead-letter topic.
    pub(crate) dead: BTreeSet<(String, i32, usize)>,
    /// The records in the dead-letter topic whose items the tables refused. Each entry consists of the partition, the
    /// offset, and true for an alert or false for a raw item.
    pub(crate) refused: BTreeSet<(i32, usize, bool)>,
}

/// The other results of the fold over one partition's log, in addition to the content of the tables.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The largest event time below each offset of the log.
    pub(crate) max_below: Vec<Option<i64>>,
    /// The counts of the records below each offset of the log.
    pub(crate) counted_below: Vec<Counts>,
    /// The offset of the last record of each row.
    pub(crate) last: BTreeMap<RowName, usize>,
}

pub(crate) const WINDOW: i64 = 300_000;
pub(crate) const LATENESS: i64 = 600_000;
pub(crate) const SKEW: i64 = 300_000;

/// Adds the records of one partition's log to the tables.
pub(crate) fn fold(tables: &mut Tables, topic_id: &str, partition: i32, log: &[Logged]) -> Found {
    let mut max: Option<i64> = None;
    let mut found = Found {
        max_below: vec![None],
        counted_below: vec![Counts::default()],
        ..Found::default()
    };
    let mut counted = Counts::default();
    for (offset, record) in log.iter().enumerate() {
        let time = match &record.said {
            Said::Control => None,
            Said::Bad => {
                tables.dead.insert((topic_id.to_owned(), partition, offset));
                None
            }
            Said::Heartbeat(t) => Some(*t),
            Said::Event(city, kind, severity, t, id) => {
                let start = t.div_euclid(WINDOW) * WINDOW;
                let late = max.is_some_and(|m| start + WINDOW <= m - LATENESS);
                let series = format!("{city}#{kind}");
                let totals = (series.clone(), None);
                let total = tables.rows.entry(totals.clone()).or_default();
                found.last.insert(totals, offset);
                total.severities[*severity] += 1;
                counted.severities[*severity] += 1;
                if late {
                    total.late += 1;
                    counted.late += 1;
                } else {
                    total.counted += 1;
                    counted.counted += 1;
                    let window = (series, Some(start));
                    found.last.insert(window.clone(), offset);
                    let window = tables.rows.entry(window).or_default();
                    window.counted += 1;
                    window.severities[*severity] += 1;
                }
                let id = id
                    .clone()
                    .unwrap_or_else(|| format!("city-events-{partition}-{offset}"));
                let alert = *severity >= 2;
                if *city == POISON {
                    tables.refused.insert((partition, offset, false));
                    if alert {
                        tables.refused.insert((partition, offset, true));
                    }
                } else {
                    tables.raw.insert((id.clone(), *t));
                    if alert {
                        tables.alerts.insert(((*city).to_owned(), *t, id));
                    }
                }
                Some(*t)
            }
        };
        if let Some(t) = time.filter(|t| !record.is_future(*t)) {
            max = Some(max.map_or(t, |m| m.max(t)));
        }
        found.max_below.push(max);
        found.counted_below.push(counted.clone());
    }
    found
}

impl Tables {
    /// Returns true if these tables contain every item and every acknowledged dead letter of `other`.
    pub(crate) fn holds_items_of(&self, other: &Tables) -> bool {
        other.raw.is_subset(&self.raw)
            && other.alerts.is_subset(&self.alerts)
            && other.dead.is_subset(&self.dead)
            && other.refused.is_subset(&self.refused)
    }

    /// Returns a description of how these tables differ from the expected tables `want`.
    pub(crate) fn differs_from(&self, want: &Tables) -> Option<String> {
        if self == want {
            return None;
        }
        for (key, counts) in &want.rows {
            if self.rows.get(key) != Some(counts) {
                let got = self.rows.get(key);
                return Some(format!("row {key:?}: want {counts:?}, got {got:?}"));
            }
        }
        for (key, counts) in &self.rows {
            if !want.rows.contains_key(key) {
                return Some(format!("row {key:?} should not be there: {counts:?}"));
            }
        }
        let raw: Vec<_> = want.raw.symmetric_difference(&self.raw).collect();
        let alerts: Vec<_> = want.alerts.symmetric_difference(&self.alerts).collect();
        let dead: Vec<_> = want.dead.symmetric_difference(&self.dead).collect();
        let refused: Vec<_> = want.refused.symmetric_difference(&self.refused).collect();
        Some(format!(
            "raw {raw:?}, alerts {alerts:?}, dead {dead:?}, refused {refused:?}"
        ))
    }
}
