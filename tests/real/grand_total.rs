//! Tests of the grand total in the progress items. It equals the sum over all series, and `serve` uses it when there
//! are too many series.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use citystream::core::keys::{SUMS, totals_shard};
use serde_json::Value;

use crate::role::wait_for;
use crate::tables;
use crate::world::{World, file_lines};

const EVENTS: usize = 9_000;

/// Requests the grand total from a new `serve`.
fn stats(world: &World) -> Value {
    let mut serve = world.start("serve", &[]);
    serve.is_ready(200, "");
    let stats = wait_for("the stats", || {
        let (status, body) = serve.get("/api/v1/stats")?;
        (status == 200).then(|| serde_json::from_str(&body).unwrap())
    });
    assert_eq!(serve.terminate().0, Some(0), "{}", serve.err());
    stats
}

/// Returns the sums over all progress items: events, late events, and low to critical.
fn kept(world: &World) -> [u64; 6] {
    let mut sums = [0; 6];
    let items = tables::progress(world.services, world.name);
    for (log_key, item) in &items {
        assert_eq!(item["sums_next"], item["next"], "{log_key}");
        for (sum, name) in sums.iter_mut().zip(SUMS) {
            *sum += item[name].parse::<u64>().unwrap();
        }
    }
    sums
}

/// Puts series without events whose rows are wide, like those of a topic with very many partitions. Each takes one
/// read unit, and all lie in one item collection, so that reading them reaches the bound.
fn add_wide_series(world: &World, count: usize) {
    let client = world.services.dynamodb();
    let series = (0..).map(|n| format!("Nowhere {n}#traffic"));
    let series = series.filter(|series| totals_shard(series) == "totals#0");
    let put = |series: String| {
        let text = AttributeValue::S;
        let zero = || AttributeValue::N("0".to_owned());
        let mut item: HashMap<String, AttributeValue> = HashMap::from([
            ("shard".to_owned(), text("totals#0".to_owned())),
            ("series".to_owned(), text(series)),
            ("width".to_owned(), text("x".repeat(7_900))),
        ]);
        item.extend(SUMS.map(|name| (name.to_owned(), zero())));
        let put = PutRequest::builder().set_item(Some(item));
        let put = put.build().unwrap();
        WriteRequest::builder().put_request(put).build()
    };
    let puts: Vec<WriteRequest> = series.take(count).map(put).collect();
    for chunk in puts.chunks(25) {
        let table = format!("{}-totals", world.name);
        let write = client
            .batch_write_item()
            .request_items(table, chunk.to_vec());
        let written = world.services.block_on(write.send()).unwrap();
        assert!(written.unprocessed_items.unwrap_or_default().is_empty());
    }
}

/// Changes the sums in a progress item, and expects `verify` to name it.
fn a_wrong_item_is_found(world: &World) {
    let (log_key, item) = tables::progress(world.services, world.name)
        .into_iter()
        .find(|(_, item)| item["event_count"] != "0")
        .unwrap();
    let more = item["event_count"].parse::<u64>().unwrap() + 1;
    let low = item["severity_low"].parse::<u64>().unwrap() + 1;
    let set = world
        .services
        .dynamodb()
        .update_item()
        .table_name(format!("{}-totals", world.name))
        .key("shard", AttributeValue::S("progress".to_owned()))
        .key("series", AttributeValue::S(log_key))
        .update_expression("SET event_count = :more, severity_low = :low")
        .expression_attribute_values(":more", AttributeValue::N(more.to_string()))
        .expression_attribute_values(":low", AttributeValue::N(low.to_string()));
    world.services.block_on(set.send()).unwrap();
    let mut verify = world.start("verify", &[]);
    assert_eq!(verify.end(), Some(1), "{}", verify.err());
    let out = verify.out();
    assert!(out.contains("1 progress item wrong"), "{out}");
    let first = out
        .lines()
        .find(|line| line.starts_with("wrong progress item of partition"));
    assert!(
        first.is_some_and(|line| line.contains(&format!("{more} events"))),
        "{out}"
    );
}

#[test]
#[ignore = "needs scripts/test-real"]
fn the_grand_total_equals_the_series_and_replaces_them_when_there_are_too_many() {
    let world = World::new("grand-total");
    world.init();
    let lines = file_lines();
    // The second consumer continues with the sums in the first one's commits.
    for part in lines[..EVENTS].chunks(EVENTS / 2) {
        world.produce(part);
        world.consume_to_the_end();
    }

    let by_series = stats(&world);
    assert_eq!(by_series["total_events_processed"], EVENTS, "{by_series}");
    assert_eq!(by_series["summed_over"], Value::Null, "{by_series}");
    let [events, late, low, medium, high, critical] = kept(&world);
    assert_eq!(events + late, EVENTS as u64);
    assert_eq!(low + medium + high + critical, EVENTS as u64);
    assert_eq!(by_series["late_events"], late, "{by_series}");
    assert_eq!(by_series["high_severity_alerts"], high, "{by_series}");
    assert_eq!(by_series["critical_alerts"], critical, "{by_series}");
    assert!(late > 0 && high > 0 && critical > 0, "{by_series}");

    let mut verify = world.start("verify", &["--output", "json"]);
    let code = verify.end();
    let report: Value = serde_json::from_str(verify.out().trim()).unwrap();
    assert_eq!(code, Some(0), "{report}");
    let items = tables::progress(world.services, world.name).len();
    assert_eq!(report["compared"]["progress_items"], items, "{report}");

    add_wide_series(&world, 900);
    let by_partition = stats(&world);
    assert_eq!(by_partition["summed_over"], "partitions", "{by_partition}");
    for name in [
        "total_events_processed",
        "late_events",
        "high_severity_alerts",
        "critical_alerts",
    ] {
        assert_eq!(by_partition[name], by_series[name], "{by_partition}");
    }

    a_wrong_item_is_found(&world);
}
