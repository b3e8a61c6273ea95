//! The contents of the tables as values that tests compare.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::reference::Counts;

/// The contents of the tables, in the tables' own notation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Keys are the series and the start of the window, or `None` for totals.
    pub(crate) rows: BTreeMap<(String, Option<String>), Counts>,
    pub(crate) raw: BTreeSet<(String, String)>,
    pub(crate) alerts: BTreeSet<(String, String)>,
    /// Keys are the partition and the offset.
    pub(crate) dead: BTreeSet<(i32, i64)>,
}

/// Fails with the first difference instead of printing both sides.
pub(crate) fn same(got: &Snapshot, want: &Snapshot) {
    for (key, counts) in &want.rows {
        assert_eq!(got.rows.get(key), Some(counts), "row {key:?}");
    }
    let only = |a: &BTreeSet<(String, String)>, b: &BTreeSet<(String, String)>| {
        a.difference(b).take(3).cloned().collect::<Vec<_>>()
    };
    assert_eq!(got.rows.len(), want.rows.len(), "rows that nothing gave");
    for (name, a, b) in [
        ("raw", &got.raw, &want.raw),
        ("alerts", &got.alerts, &want.alerts),
    ] {
        assert_eq!(only(a, b), [], "{name} items that nothing gave");
        assert_eq!(only(b, a), [], "{name} items that are missing");
    }
    assert_eq!(got.dead, want.dead, "dead letters");
}

pub(crate) fn s(item: &HashMap<String, AttributeValue>, name: &str) -> String {
    item[name].as_s().unwrap().clone()
}

pub(crate) fn n(item: &HashMap<String, AttributeValue>, name: &str) -> u64 {
    let Some(value) = item.get(name) else {
        return 0;
    };
    value.as_n().unwrap().parse().unwrap()
}

pub(crate) fn counts(item: &HashMap<String, AttributeValue>) -> Counts {
    let names = ["low", "medium", "high", "critical"];
    Counts {
        counted: n(item, "event_count"),
        late: n(item, "late_count"),
        severities: names.map(|name| n(item, &format!("severity_{name}"))),
    }
}
