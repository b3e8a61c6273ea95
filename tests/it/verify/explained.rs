//! `verify --explain` shows a window record by record.

use std::sync::{Arc, Mutex};

use citystream::core::clock::UnixMs;
use citystream::exit::Exit;
use citystream::settings::{VerifyOutput, WindowName};
use citystream::shutdown::Shutdown;
use citystream::telemetry::Metrics;
use citystream::verify::explain::explain_window;

use super::{delete, s, source};
use crate::reference::Said;
use crate::world::{BASE_MS, World};

fn window(city: &str, event_type: &str, start_ms: i64) -> WindowName {
    WindowName {
        city: city.to_owned(),
        event_type: event_type.to_owned(),
        start_ms: UnixMs(start_ms),
    }
}

/// Returns the result of the command and what it printed.
async fn explained(
    world: &World,
    window: WindowName,
    output: VerifyOutput,
) -> (anyhow::Result<Exit>, String) {
    let out: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (metrics, stop) = (Metrics::new(), Shutdown::default());
    let pipe = Arc::clone(&out);
    let exit = explain_window(&source(world), window, output, pipe, &metrics, &stop).await;
    let text = String::from_utf8(out.lock().unwrap().clone()).unwrap();
    (exit, text)
}

/// Returns a world with one event in the window NYC#traffic, one late event for it, a rejected one, and others.
async fn world() -> World {
    let world = World::new(1).await;
    world.event(0, "NYC", "traffic", 2, BASE_MS);
    world.event(0, "NYC", "weather", 2, BASE_MS + 1_000);
    let bad = r#"{"city":"NYC","event_type":"traffic","severity":"awful","timestamp":"2013-01-01T06:01:00Z"}"#;
    world.send(0, Said::Bad, BASE_MS, Some(bad.as_bytes()), &[]);
    let other = r#"{"city":"LA","event_type":"traffic","severity":"awful","timestamp":"2013-01-01T06:01:00Z"}"#;
    world.send(0, Said::Bad, BASE_MS, Some(other.as_bytes()), &[]);
    world.event(0, "NYC", "traffic", 0, BASE_MS + 900_000);
    world.event(0, "NYC", "traffic", 3, BASE_MS + 2_000);
    world.flush();
    let member = world.member(&["--stop-at-end"], None).await;
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_is_explained_record_by_record() {
    let world = world().await;
    let name = || window("NYC", "traffic", BASE_MS);
    let (exit, text) = explained(&world, name(), VerifyOutput::Text).await;
    assert_eq!(exit.unwrap(), Exit::Done);
    let lines: Vec<&str> = text.lines().collect();
    let counted = "partition 0  offset 0         counted";
    assert!(lines[0].starts_with(counted), "{text}");
    assert_eq!(lines[3], "window NYC#traffic#2013-01-01T06:00:00Z");
    for (line, words) in [
        (1, "rejected  (bad_severity"),
        (2, "offset 5"),
        (2, "late"),
        (
            2,
            "2013-01-01T06:05:00.000Z because of the record at offset 4",
        ),
    ] {
        assert!(lines[line].contains(words), "{words}: {text}");
    }
    let fence = "fence of partition 0: first 0, next 1";
    assert!(text.contains(fence), "{text}");
    assert!(text.ends_with("log and tables agree\n"), "{text}");

    let (_, json) = explained(&world, name(), VerifyOutput::Json).await;
    let last: serde_json::Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    assert_eq!(last["log"]["event_count"], 1, "{last}");
    let not_counted = (&last["late"], &last["rejected"]);
    assert_eq!(not_counted, (&1.into(), &1.into()), "{last}");

    let windows = world.items(&world.names.aggregations).await;
    let key = s("NYC#traffic#2013-01-01T06:00:00Z");
    let row = windows.iter().find(|i| i["partition_key"] == key);
    delete(&world, &world.names.aggregations, row.unwrap()).await;
    let (exit, text) = explained(&world, name(), VerifyOutput::Text).await;
    assert_eq!(exit.unwrap(), Exit::Failed, "{text}");
    assert!(text.contains("there is no such row"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_that_does_not_exist_is_reported_with_a_hint() {
    let world = world().await;
    for (name, hint) in [
        (
            window("NYC", "trafic", BASE_MS),
            "did you mean NYC#traffic?",
        ),
        (
            window("nyc", "traffic", BASE_MS),
            "did you mean NYC#traffic?",
        ),
        (
            window("NYC", "weather", 0),
            "NYC#weather has events, in other",
        ),
        (
            window("Atlantis", "tides", BASE_MS),
            "neither log nor tables",
        ),
    ] {
        let (exit, text) = explained(&world, name.clone(), VerifyOutput::Text).await;
        assert_eq!(exit.unwrap(), Exit::Failed, "{text}");
        assert!(text.contains("neither log nor tables"), "{text}");
        assert!(text.contains(hint), "{text}");
        let (exit, json) = explained(&world, name, VerifyOutput::Json).await;
        assert_eq!(exit.unwrap(), Exit::Failed, "{json}");
        assert!(json.contains(r#""verdict":"no_such_row""#), "{json}");
    }
    let crooked = window("NYC", "traffic", BASE_MS + 1_000);
    let (exit, _) = explained(&world, crooked, VerifyOutput::Text).await;
    let error = exit.expect_err("no window starts there");
    assert_eq!(Exit::of(&error), Exit::Settings);
    let nearest = "2013-01-01T06:00:00Z";
    assert!(error.to_string().contains(nearest), "{error}");
}
