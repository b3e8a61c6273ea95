//! What the tables must hold: a plain fold over the log, sharing no code with the core.

use std::collections::{BTreeMap, BTreeSet};

/// A record of the simulated log.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// city, type, severity 0–3, event time, own id
    Event(&'static str, &'static str, usize, i64, Option<String>),
    Heartbeat(i64),
    Bad,
}

#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) said: Said,
    pub(crate) timestamp_ms: Option<i64>,
}

/// Counts of a row: counted, late, by severity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) counted: u64,
    pub(crate) late: u64,
    pub(crate) severities: [u64; 4],
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    /// `city#type`, window start or none for totals
    pub(crate) rows: BTreeMap<(String, Option<i64>), Counts>,
    pub(crate) raw: BTreeSet<(String, i64)>,
    pub(crate) alerts: BTreeSet<(String, i64, String)>,
    /// topic id, partition, offset
    pub(crate) dead: BTreeSet<(String, i32, usize)>,
}

pub(crate) const WINDOW: i64 = 300_000;
pub(crate) const LATENESS: i64 = 600_000;
pub(crate) const SKEW: i64 = 300_000;

/// Folds one partition's log into the tables; returns the largest event time below each offset.
pub(crate) fn fold(
    tables: &mut Tables,
    topic_id: &str,
    partition: i32,
    log: &[Logged],
) -> Vec<Option<i64>> {
    let mut max: Option<i64> = None;
    let mut below = vec![None];
    for (offset, record) in log.iter().enumerate() {
        let is_future = |t: i64| match record.timestamp_ms {
            None => true,
            Some(stamp) => t > stamp + SKEW,
        };
        match &record.said {
            Said::Bad => {
                tables.dead.insert((topic_id.to_owned(), partition, offset));
            }
            Said::Heartbeat(t) => {
                if !is_future(*t) {
                    max = Some(max.map_or(*t, |m| m.max(*t)));
                }
            }
            Said::Event(city, kind, severity, t, id) => {
                let start = t.div_euclid(WINDOW) * WINDOW;
                let late = max.is_some_and(|m| start + WINDOW <= m - LATENESS);
                let series = format!("{city}#{kind}");
                let total = tables.rows.entry((series.clone(), None)).or_default();
                total.severities[*severity] += 1;
                if late {
                    total.late += 1;
                } else {
                    total.counted += 1;
                    let window = tables.rows.entry((series, Some(start))).or_default();
                    window.counted += 1;
                    window.severities[*severity] += 1;
                }
                let id = id
                    .clone()
                    .unwrap_or_else(|| format!("city-events-{partition}-{offset}"));
                tables.raw.insert((id.clone(), *t));
                if *severity >= 2 {
                    tables.alerts.insert(((*city).to_owned(), *t, id));
                }
                if !is_future(*t) {
                    max = Some(max.map_or(*t, |m| m.max(*t)));
                }
            }
        }
        below.push(max);
    }
    below
}
