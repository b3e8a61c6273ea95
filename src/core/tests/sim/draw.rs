//! Generates random numbers and random logs from a seed.

use citystream_core::clock::UnixMs;
use citystream_core::event::{Event, Offset, Severity};
use citystream_core::parse::{Body, Reason};
use citystream_core::worker::{Content, Record, Rejected};

use crate::reference::{Logged, POISON, Said};

/// The random number generator SplitMix64, which is small and returns the same numbers on every platform.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) + 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const CITIES: [&str; 3] = ["NYC", "LA", "SF"];
const KINDS: [&str; 2] = ["traffic", "weather"];

/// Returns the id of topic number `n`. All topics of a run have the same name.
pub(crate) fn topic_id(n: usize) -> String {
    format!("topic-id-{n}")
}

/// Returns a random log for a partition. Some events are out of order, late, ahead of the timestamp of their record,
/// sent twice, or refused by the table. In addition to events, the log contains heartbeats, invalid records, records
/// without a timestamp, and control records.
pub(crate) fn log(rng: &mut Rng) -> Vec<Logged> {
    let mut now = 1_357_000_000_000;
    (0..rng.below(60))
        .map(|_| {
            now += rng.below(200_000) as i64;
            let t = match rng.below(10) {
                0 => now - rng.below(3_000_000) as i64,
                1 => now + rng.below(900_000) as i64,
                _ => now - rng.below(60_000) as i64,
            };
            // Some producers send the same event twice, with the same id and time.
            let own = rng.one_in(5).then(|| rng.below(6));
            let t = own.map_or(t, |n| 1_357_000_000_000 + n as i64 * 400_000);
            let id = own.map(|n| format!("own-{n}"));
            let said = match rng.below(36) {
                0..=2 => Said::Bad,
                3..=5 => Said::Heartbeat(now - rng.below(1_000) as i64),
                6 => Said::Control,
                7 => Said::Event(POISON, KINDS[0], rng.below(4), t, None),
                _ => Said::Event(
                    CITIES[rng.below(3)],
                    KINDS[rng.below(2)],
                    rng.below(4),
                    t,
                    id,
                ),
            };
            Logged {
                said,
                timestamp_ms: (!rng.one_in(20)).then_some(now),
            }
        })
        .collect()
}

/// Returns a record as a Kafka client delivers it, or `None` for a control record, which is never delivered.
pub(crate) fn record(
    topic: usize,
    partition: i32,
    offset: usize,
    logged: &Logged,
) -> Option<Record> {
    let content = match &logged.said {
        Said::Control => return None,
        Said::Bad => Content::Rejected(Box::new(Rejected {
            reason: Reason::NotJson,
            detail: topic_id(topic),
            key: None,
            value: None,
            headers: Vec::new(),
            partition,
            offset: Offset(offset as i64),
            timestamp_ms: logged.timestamp_ms.map(UnixMs),
        })),
        Said::Heartbeat(ms) => Content::Valid(Body::Heartbeat(UnixMs(*ms))),
        Said::Event(city, kind, severity, time_ms, id) => Content::Valid(Body::Event(Event {
            city: (*city).into(),
            event_type: (*kind).into(),
            severity: Severity::ALL[*severity],
            time_ms: UnixMs(*time_ms),
            // The description of an event is the topic id, so that every stored event shows which log it comes from.
            description: topic_id(topic).into(),
            event_id: id.as_deref().map(Into::into),
            extra: None,
        })),
    };
    Some(Record {
        offset: Offset(offset as i64),
        timestamp_ms: logged.timestamp_ms.map(UnixMs),
        bytes: 100,
        content,
    })
}
