//! Each kind of damage to a table is found and named.

use aws_sdk_dynamodb::types::AttributeValue;
use citystream::core::audit::{Mismatch, Sums};
use citystream::core::clock::UnixMs;
use citystream::core::plan::RawRows;
use citystream::verify::compare::CompareOptions;

use super::{ALL, Item, agrees, counted, delete, n, put, s, verify};
use crate::world::World;

/// One change to a table, and how `verify` must report it.
struct Damage {
    what: &'static str,
    table: String,
    /// The item before the change, and `None` for an invented item.
    before: Option<Item>,
    /// The item after the change, and `None` for a deleted item.
    after: Option<Item>,
    kind: Mismatch,
    /// The kind of row that the report names.
    row: &'static str,
    /// Words of the report's text.
    words: &'static str,
}

impl Damage {
    fn deleted(row: &'static str, table: &str, item: &Item, words: &'static str) -> Damage {
        Damage {
            what: "deleted",
            table: table.to_owned(),
            before: Some(item.clone()),
            after: None,
            kind: Mismatch::Missing,
            row,
            words,
        }
    }

    fn invented(row: &'static str, table: &str, item: Item, words: &'static str) -> Damage {
        Damage {
            what: "invented",
            table: table.to_owned(),
            before: None,
            after: Some(item),
            kind: Mismatch::Extra,
            row,
            words,
        }
    }

    /// A change of an item's attributes, by default one that makes the row wrong.
    fn changed(
        what: &'static str,
        row: &'static str,
        table: &str,
        item: &Item,
        changes: &[(&str, AttributeValue)],
        words: &'static str,
    ) -> Damage {
        Damage {
            what,
            table: table.to_owned(),
            before: Some(item.clone()),
            after: Some(with(item, changes)),
            kind: Mismatch::Wrong,
            row,
            words,
        }
    }

    async fn apply(&self, world: &World) {
        match (&self.before, &self.after) {
            (_, Some(after)) => put(world, &self.table, after).await,
            (Some(before), None) => delete(world, &self.table, before).await,
            (None, None) => unreachable!("a damage changes something"),
        }
    }

    async fn undo(&self, world: &World) {
        match (&self.before, &self.after) {
            (Some(before), _) => put(world, &self.table, before).await,
            (None, Some(after)) => delete(world, &self.table, after).await,
            (None, None) => unreachable!("a damage changes something"),
        }
    }
}

/// Returns the item with other attributes.
fn with(item: &Item, changes: &[(&str, AttributeValue)]) -> Item {
    let mut item = item.clone();
    for (name, value) in changes {
        item.insert((*name).to_owned(), value.clone());
    }
    item
}

fn count(item: &Item, name: &str) -> i64 {
    item[name].as_n().unwrap().parse().unwrap()
}

/// Returns an item of the series `NYC#traffic`.
async fn of_nyc(world: &World, table: &str) -> Item {
    let items = world.items(table).await;
    let of_nyc = |item: &&Item| item.get("series").is_some_and(|v| *v == s("NYC#traffic"));
    items.iter().find(of_nyc).unwrap().clone()
}

async fn damages_of_raw_rows(world: &World) -> Vec<Damage> {
    let (row, table) = ("raw event", &world.names.raw);
    let item = &world.items(table).await[7];
    let late = AttributeValue::Bool(true);
    vec![
        Damage::deleted(row, table, item, "the log has it at"),
        Damage::changed(
            "changed",
            row,
            table,
            item,
            &[("severity", s("none"))],
            "something else",
        ),
        Damage::changed(
            "made late",
            row,
            table,
            item,
            &[("late", late)],
            "something else",
        ),
        Damage::invented(
            row,
            table,
            with(item, &[("event_id", s("invented"))]),
            "no such event",
        ),
    ]
}

async fn damages_of_alerts(world: &World) -> Vec<Damage> {
    let (row, table) = ("alert", &world.names.alerts);
    let item = &world.items(table).await[3];
    let invented = with(
        item,
        &[("timestamp", s("2013-01-01T07:00:00.000Z#invented"))],
    );
    vec![
        Damage::deleted(row, table, item, "the log has it at"),
        Damage::invented(row, table, invented, "no such event"),
    ]
}

async fn damages_of_windows(world: &World) -> Vec<Damage> {
    let (row, table) = ("window", &world.names.aggregations);
    let item = &of_nyc(world, table).await;
    let fence = item.keys().find(|k| k.starts_with("next#")).unwrap();
    let topic_id = fence.split('#').nth(1).unwrap();
    let (first_77, next_77) = (
        format!("first#{topic_id}#77"),
        format!("next#{topic_id}#77"),
    );
    let once_more = n(count(item, "event_count") + 1);
    let invented = [
        ("partition_key", s("NYC#traffic#2013-01-01T00:00:00Z")),
        ("window_start", s("2013-01-01T00:00:00Z")),
        ("window_end", s("2013-01-01T00:05:00Z")),
    ];
    let later_fence = [(fence.as_str(), n(count(item, fence) + 1))];
    let foreign_fence = [(next_77.as_str(), n(5)), (first_77.as_str(), n(4))];
    let half_a_fence = [(next_77.as_str(), n(5))];
    let changed =
        |what, changes: &[_], words| Damage::changed(what, row, table, item, changes, words);
    vec![
        changed(
            "count raised",
            &[("event_count", once_more)],
            "event_count is",
        ),
        changed(
            "severity lowered",
            &[("severity_low", n(-1))],
            "severity_low is -1",
        ),
        Damage::deleted(row, table, item, "the log has"),
        Damage::invented(row, table, with(item, &invented), "by the log 0"),
        Damage {
            kind: Mismatch::Fence,
            ..changed("fence moved forward", &later_fence, "no record of it")
        },
        Damage {
            kind: Mismatch::Fence,
            ..changed("fence of another partition", &foreign_fence, "partition 77")
        },
        changed("half a fence", &half_a_fence, "broken"),
    ]
}

async fn damages_of_totals(world: &World) -> Vec<Damage> {
    let (row, table) = ("totals", &world.names.totals);
    let item = &of_nyc(world, table).await;
    let late = [("late_count", n(1_000))];
    let invented = [
        ("shard", s("totals#3")),
        ("series", s("Nowhere#traffic")),
        ("city", s("Nowhere")),
    ];
    vec![
        Damage::changed("changed", row, table, item, &late, "late_count is 1000"),
        Damage::deleted(row, table, item, "the log has"),
        Damage::invented(row, table, with(item, &invented), "by the log 0"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_damage_is_found_and_named() {
    let world = counted(1_200, RawRows::All).await;
    let mut damages = damages_of_raw_rows(&world).await;
    damages.extend(damages_of_alerts(&world).await);
    damages.extend(damages_of_windows(&world).await);
    damages.extend(damages_of_totals(&world).await);
    assert_eq!(damages.len(), 16);
    for damage in damages {
        let what = format!("{} {}", damage.row, damage.what);
        damage.apply(&world).await;
        let report = verify(&world, &ALL).await;
        let found = &report.outcome.differences;
        assert_eq!(found.len(), 1, "{what}: {found:#?}");
        let detail = &found[0].detail;
        let got = (found[0].kind, found[0].key.kind());
        assert_eq!(got, (damage.kind, damage.row), "{what}: {detail}");
        assert!(detail.contains(damage.words), "{what}: {detail}");
        assert!(!report.agrees());
        damage.undo(&world).await;
    }
    agrees(&world, &ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_outside_the_range_are_not_compared() {
    let world = counted(1_200, RawRows::All).await;
    let window = of_nyc(&world, &world.names.aggregations).await;
    delete(&world, &world.names.aggregations, &window).await;
    let start: jiff::Timestamp = window["window_start"].as_s().unwrap().parse().unwrap();
    let inside_ms = Some(UnixMs(start.as_millisecond() + 1));
    let after = CompareOptions {
        from_ms: inside_ms,
        ..ALL
    };
    let compared = agrees(&world, &after).await.outcome.compared;
    assert!(compared["window"] > 0, "{compared:?}");
    let until = CompareOptions {
        until_ms: inside_ms,
        ..ALL
    };
    let report = verify(&world, &until).await;
    let Sums { log, tables } = report.events();
    let missing = count(&window, "event_count");
    assert_eq!(log - tables, missing, "{}", report.summary());
}
