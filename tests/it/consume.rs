//! Tests of whole consumers on an embedded broker and an embedded database.
//!
//! Each test compares the tables at the end with a plain fold over the log.

use citystream::api::ops::Probe as _;
use citystream::core::clock::UnixMs;
use citystream::core::plan::RawRows;
use citystream::exit::Exit;
use dynoxide::Database;

use crate::faults::Faults;
use crate::member::Member;
use crate::reference::Said;
use crate::snapshot::same;
use crate::world::{BASE_MS, Letter, World, data_lines, is_settings};

const CITIES: [&str; 4] = ["NYC", "LA", "SF", "Chicago"];
const KINDS: [&str; 2] = ["traffic", "weather"];
pub(crate) const GROUP: &str = "citystream";

/// Sends event number `n` of a stream with some disorder: every tenth event is old, and some of those are late.
pub(crate) fn nth(world: &World, partition: usize, n: i64) {
    let now = BASE_MS + n * 7_000;
    let back = if n % 10 == 9 {
        n % 3 * 700_000
    } else {
        n % 5 * 1_000
    };
    let at = usize::try_from(n).unwrap();
    let (city, kind) = (CITIES[at % 4], KINDS[at / 4 % 2]);
    world.event(partition, city, kind, at / 8 % 4, now - back);
}

fn partition_of(line: &str, partitions: usize) -> usize {
    crc32fast::hash(line.as_bytes()) as usize % partitions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_events_with_30_per_cent_failing_requests_equal_the_fold() {
    let world = World::new(3).await;
    for line in data_lines(3_000) {
        world.line(partition_of(&line, 3), &line);
    }
    world.flush();
    let faults = Faults::new(7, 30);
    let member = world
        .member(&["--stop-at-end", "--row-interval", "20ms"], Some(&faults))
        .await;
    let metrics = member.metrics.clone();
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    let ledger = metrics.ledger.lock().unwrap().clone();
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.consumed, ledger.already_counted), (3_000, 0));
    assert!(ledger.late > 0, "{ledger:?}");
    for (fault, count) in faults.seen() {
        assert!(count > 0, "{fault:?} never happened");
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_groups_on_the_same_tables_count_every_event_once() {
    // Both groups read every record, as a zombie and its successor do for a moment.
    let world = World::new(2).await;
    let (one, two) = (Faults::new(1, 20), Faults::new(2, 20));
    let args = |group| ["--row-interval", "5ms", "--group", group];
    let a = world.member(&args("a"), Some(&one)).await;
    let b = world.member(&args("b"), Some(&two)).await;
    // Both members start on an empty log. A member that joins later would start at the progress items of the other
    // group.
    for member in [&a, &b] {
        member
            .until("it has begun", |m| m.status.ready().is_ok())
            .await;
    }
    for n in 0..600 {
        nth(&world, usize::try_from(n % 2).unwrap(), n);
    }
    world.flush();
    for member in [&a, &b] {
        let is_done = |m: &Member| m.ledger().consumed == 600 && m.ledger().in_flight == 0;
        member.until("all is read and settled", is_done).await;
    }
    let (ma, mb) = (a.metrics.clone(), b.metrics.clone());
    assert_eq!(a.stop().await.unwrap(), Exit::Done);
    assert_eq!(b.stop().await.unwrap(), Exit::Done);
    let ledgers = [ma, mb].map(|m| m.ledger.lock().unwrap().clone());
    let counted: u64 = ledgers.iter().map(|l| l.counted + l.late).sum();
    let already: u64 = ledgers.iter().map(|l| l.already_counted).sum();
    // After a lost response, no member knows whose update took effect. The rows know.
    assert_eq!(counted + already, 1_200, "{ledgers:?}");
    assert!(already > 0, "{ledgers:?}");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_under_load_change_nothing() {
    let world = World::new(2).await;
    let mut n = 0;
    for round in 0..4 {
        let member = world.member(&["--row-interval", "5ms"], None).await;
        let want = 100 + round * 20;
        for _ in 0..want {
            nth(&world, usize::try_from(n % 2).unwrap(), n);
            n += 1;
        }
        world.flush();
        member
            .until("it takes records", |m| m.ledger().consumed > 40)
            .await;
        let metrics = member.metrics.clone();
        assert_eq!(member.stop().await.unwrap(), Exit::Done);
        let ledger = metrics.ledger.lock().unwrap().clone();
        assert_eq!(
            (ledger.given_up, ledger.already_counted),
            (0, 0),
            "a clean stop leaves nothing to read again: {ledger:?}"
        );
    }
    let last = world.member(&["--stop-at-end"], None).await;
    assert_eq!(last.end().await.unwrap(), Exit::Done);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_gives_equal_aggregates() {
    let lines = data_lines(400);
    // One log is counted in pieces with stops between. The other is counted at once, years later.
    let live = World::new(2).await;
    for piece in lines.chunks(200) {
        for line in piece {
            live.line(partition_of(line, 2), line);
        }
        live.flush();
        let member = live.member(&["--stop-at-end"], None).await;
        assert_eq!(member.end().await.unwrap(), Exit::Done);
    }
    let replay = World::new(2).await;
    for line in &lines {
        replay.line(partition_of(line, 2), line);
    }
    replay.flush();
    let member = replay
        .member(&["--stop-at-end", "--row-interval", "0ms"], None)
        .await;
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    same(&replay.got().await, &live.got().await);
    live.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fast_clocks_idle_partitions_and_heartbeats_follow_the_rules_of_event_time() {
    // Only one of six partitions has events. The others hold nothing back.
    let world = World::new(6).await;
    world.event(4, "NYC", "traffic", 3, BASE_MS);
    // This event is a day ahead of its record.
    let ahead = BASE_MS + 86_400_000;
    let value = format!(
        r#"{{"city":"NYC","event_type":"traffic","severity":"high","timestamp":"{}"}}"#,
        citystream::core::time::format_millis(UnixMs(ahead))
    );
    let said = Said::Event("NYC", "traffic", 2, ahead, None);
    world.send(4, said, BASE_MS, Some(value.as_bytes()), &[]);
    for n in 0..10 {
        world.event(4, "NYC", "traffic", 0, BASE_MS + n * 1_000);
    }
    // A heartbeat passes the end of the window after traffic has stopped, so the next event for that window is late.
    let beat = BASE_MS + 900_000;
    let header = beat.to_string();
    let headers = [("citystream-heartbeat", header.as_str())];
    world.send(4, Said::Heartbeat(beat), beat, None, &headers);
    world.event(4, "NYC", "traffic", 3, BASE_MS + 1);
    world.flush();
    let member = world.member(&["--stop-at-end"], None).await;
    let metrics = member.metrics.clone();
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    let ledger = metrics.ledger.lock().unwrap().clone();
    assert_eq!((ledger.counted, ledger.late, ledger.heartbeats), (12, 1, 1));
    assert_eq!(metrics.events_future.get(), 1);
    world.check().await;
    let flagged = |items: &[std::collections::HashMap<_, _>], name: &str| {
        items.iter().filter(|i| i.contains_key(name)).count()
    };
    let raw = world.raw_items().await;
    assert_eq!((flagged(&raw, "late"), flagged(&raw, "future")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_events_of_one_second_without_ids_are_two_items_and_two_alerts() {
    let world = World::new(1).await;
    world.event(0, "NYC", "incident", 3, BASE_MS);
    world.event(0, "NYC", "incident", 3, BASE_MS);
    world.flush();
    let member = world.member(&["--stop-at-end"], None).await;
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    let got = world.got().await;
    assert_eq!((got.raw.len(), got.alerts.len()), (2, 2));
    same(&got, &world.want());
}

/// Checks the headers, key and value of a dead letter.
fn is_dead_letter(letter: &Letter, reason: &str, offset: usize, value: &[u8]) {
    assert_eq!(letter.header("reason"), reason, "{letter:?}");
    assert_eq!(letter.header("source_offset"), offset.to_string());
    assert_eq!(letter.value.as_deref().unwrap_or_default(), value);
    assert_eq!(letter.key.as_deref(), Some(&b"a key"[..]));
    let names: Vec<&str> = letter.headers.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        names,
        [
            "trace",
            "reason",
            "reason",
            "detail",
            "source_topic",
            "source_topic_id",
            "source_partition",
            "source_offset",
            "source_timestamp"
        ],
        "its own first, then ours"
    );
    assert_eq!(letter.headers[1].1, "its own");
    assert_eq!(letter.header("source_topic_id").len(), 22);
}

/// Returns one record for each way to be bad, with its reject reason.
fn bad_values() -> Vec<(&'static str, Vec<u8>)> {
    let with = |name: &str, value: &str| {
        let mut fields = vec![
            ("city", r#""NYC""#),
            ("event_type", r#""traffic""#),
            ("severity", r#""low""#),
            ("timestamp", r#""2013-01-01T06:00:00Z""#),
        ];
        fields.retain(|(key, _)| *key != name);
        if !value.is_empty() {
            fields.push((name, value));
        }
        let text = fields.iter().map(|(k, v)| format!(r#""{k}":{v}"#));
        format!("{{{}}}", text.collect::<Vec<_>>().join(",")).into_bytes()
    };
    let quoted = |n: usize| format!("\"{}\"", "x".repeat(n));
    vec![
        ("empty", Vec::new()),
        ("not_json", b"  ".to_vec()),
        ("not_json", b"[]".to_vec()),
        ("not_json", b"{".to_vec()),
        ("not_json", b"\xef\xbb\xbf{}".to_vec()),
        ("not_json", with("x", r#"{"a":1,"a":2}"#)),
        ("not_json", with("x", r#""\ud800""#)),
        ("not_json", with("x", "NaN")),
        ("not_json", with("x", "1e999")),
        ("not_utf8", b"\xff\xfe".to_vec()),
        ("too_large", with("x", &quoted(65_536))),
        ("missing_field", with("city", "")),
        ("missing_field", b"{}".to_vec()),
        ("bad_city", with("city", r##""a#b""##)),
        ("bad_city", with("city", "null")),
        ("bad_event_type", with("event_type", r#""1st""#)),
        ("bad_severity", with("severity", r#""urgent""#)),
        ("bad_timestamp", with("timestamp", r#""yesterday""#)),
        ("bad_timestamp", with("timestamp", "1357020000")),
        ("bad_description", with("description", &quoted(4_097))),
        ("bad_event_id", with("event_id", r#""""#)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_between_good_ones_go_unchanged_to_the_dead_letter_topic() {
    let bad = bad_values();
    let world = World::new(1).await;
    for (n, (_, value)) in (0..).zip(&bad) {
        world.event(0, "NYC", "traffic", 0, BASE_MS + n);
        let headers = [("trace", "t-1"), ("reason", "its own")];
        world.send(0, Said::Bad, BASE_MS + n, Some(value), &headers);
    }
    // A null value without a heartbeat header, and one with two such headers.
    world.send(0, Said::Bad, BASE_MS, None, &[]);
    let twice = [("citystream-heartbeat", "1"), ("citystream-heartbeat", "2")];
    world.send(0, Said::Bad, BASE_MS, None, &twice);
    world.event(0, "NYC", "traffic", 0, BASE_MS + 99);
    world.flush();
    let member = world.member(&["--stop-at-end"], None).await;
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    world.check().await;
    let mut letters = tokio::task::block_in_place(|| world.letters());
    assert_eq!(letters.len(), bad.len() + 2);
    // Dead letters are sent concurrently, so their order is random.
    letters.sort_by_key(|l| l.header("source_offset").parse::<i64>().unwrap());
    for (n, ((reason, value), letter)) in bad.iter().zip(&letters).enumerate() {
        is_dead_letter(letter, reason, 2 * n + 1, value);
    }
    let last: Vec<&str> = letters[bad.len()..]
        .iter()
        .map(|l| l.header("reason"))
        .collect();
    assert_eq!(last, ["empty", "bad_heartbeat"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_the_table_refuses_goes_to_the_dead_letter_topic_and_stays_counted() {
    let world = World::new(1).await;
    for n in 0..60 {
        world.event(0, "NYC", "traffic", 2, BASE_MS + n);
        if n == 30 {
            let line = r#"{"city":"NYC","event_type":"traffic","severity":"high","timestamp":"2013-01-01T06:00:01Z","event_id":"poison"}"#;
            world.line(0, line);
        }
    }
    world.flush();
    let faults = Faults::new(5, 0);
    faults.refuse("poison");
    let member = world.member(&["--stop-at-end"], Some(&faults)).await;
    let metrics = member.metrics.clone();
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    assert_eq!(metrics.ledger.lock().unwrap().counted, 61);
    let (got, mut want) = (world.got().await, world.want());
    want.raw.retain(|(id, _)| id != "poison");
    want.alerts.retain(|(_, key)| !key.ends_with("#poison"));
    want.dead.insert((0, 31));
    same(&got, &want);
    let letters = tokio::task::block_in_place(|| world.letters());
    assert_eq!(letters.len(), 2, "its raw item and its alert");
    for letter in &letters {
        assert_eq!(letter.header("reason"), "refused_by_table");
        let value = letter.value.as_deref().unwrap_or_default();
        assert!(
            String::from_utf8_lossy(value).contains("poison"),
            "{letter:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_log_of_the_same_name_is_counted_from_its_beginning() {
    // The tables outlive two topics. The second log is shorter than the first, and the third is longer.
    let db = Database::memory().unwrap();
    let mut all = 0;
    for count in [40, 15, 60] {
        let world = World::with(db.clone(), 2, 1, RawRows::All).await;
        for n in 0..count {
            world.event(
                usize::try_from(n % 2).unwrap(),
                "NYC",
                "traffic",
                1,
                BASE_MS + n,
            );
        }
        world.flush();
        let member = world.member(&["--stop-at-end"], None).await;
        let metrics = member.metrics.clone();
        assert_eq!(member.end().await.unwrap(), Exit::Done);
        assert_eq!(metrics.fence_conflicts.get(), 0);
        all += u64::try_from(count).unwrap();
        let got = world.got().await;
        assert_eq!(got.rows[&("NYC#traffic".to_owned(), None)].counted, all);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_to_the_end_that_is_stopped_early_fails() {
    let world = World::new(1).await;
    for n in 0..100 {
        nth(&world, 0, n);
    }
    world.flush();
    let faults = Faults::new(3, 0);
    faults.hold(true);
    let member = world.member(&["--stop-at-end"], Some(&faults)).await;
    member
        .until("it reads", |m| {
            m.ledger().consumed > 0 || m.status.ready().is_err()
        })
        .await;
    faults.hold(false);
    let error = member.stop().await.unwrap_err();
    assert!(error.to_string().contains("stopped before"), "{error:#}");
    let member = world.member(&["--stop-at-end"], None).await;
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_another_tool_exits_2_with_the_remedy() {
    let world = World::new(1).await;
    for n in 0..10 {
        nth(&world, 0, n);
    }
    world.flush();
    tokio::task::block_in_place(|| world.foreign_commit(GROUP, 0, 5));
    let member = world.member(&[], None).await;
    let error = member.end().await.expect_err("it stops");
    assert!(is_settings(&error), "{error:#}");
    let text = format!("{error:#}");
    assert!(
        text.contains("partition 0") && text.contains("--delete-offsets"),
        "{text}"
    );
    assert!(world.got().await.rows.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_beyond_the_log_stops_with_the_lost_range() {
    // This is how a restored broker looks: the log is shorter than the committed offset.
    let world = World::new(1).await;
    for n in 0..10 {
        nth(&world, 0, n);
    }
    world.flush();
    let member = world
        .member(&["--group", "first", "--stop-at-end"], None)
        .await;
    assert_eq!(member.end().await.unwrap(), Exit::Done);
    let metadata = tokio::task::block_in_place(|| world.commit_text("first"));
    tokio::task::block_in_place(|| world.commit_with("second", 25, &metadata));
    let member = world.member(&["--group", "second"], None).await;
    let error = member.end().await.expect_err("it stops");
    assert!(is_settings(&error), "{error:#}");
    let text = format!("{error:#}");
    assert!(text.contains("records 10 to 25"), "{text}");
}
