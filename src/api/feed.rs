//! What was told lately, for all listeners together: one bounded memory that each reads at its own
//! pace, so a slow one holds up nobody and nothing piles up for it.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use bytes::{BufMut as _, BytesMut};
use tokio::sync::watch;

use crate::core::event::Severity;

/// Most events remembered.
const EVENTS_MAX: usize = 4_096;
/// Most bytes of events remembered.
const BYTES_MAX: usize = 4 << 20;
/// Most bytes handed to a listener at once.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// Which listeners an event is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// All of them.
    Everybody,
    /// Those of its city.
    Window(String),
    /// Those of its city and severity.
    Alert(String, String),
}

/// What a listener wants to hear.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) city: Option<String>,
    pub(super) severity: Option<Severity>,
}

impl Filter {
    pub(super) fn wants(&self, topic: &Topic) -> bool {
        let of_city = |city: &String| self.city.as_ref().is_none_or(|wanted| wanted == city);
        match topic {
            Topic::Everybody => true,
            Topic::Window(city) => of_city(city),
            Topic::Alert(city, severity) => {
                of_city(city) && self.severity.is_none_or(|wanted| wanted.name() == severity)
            }
        }
    }
}

/// A place in the feed, as `id:` and `Last-Event-ID` write it: `<Unix ms>.<feed>.<number>`. The feed is
/// drawn anew at each start; the time is for a feed that does not know the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) ms: i64,
    pub(super) feed: u32,
    pub(super) number: u64,
}

impl Place {
    pub(super) fn parse(text: &str) -> Option<Place> {
        let mut parts = text.split('.');
        let (ms, feed, number) = (parts.next()?, parts.next()?, parts.next()?);
        let digits =
            |t: &str| !t.is_empty() && t.len() < 16 && t.bytes().all(|b| b.is_ascii_digit());
        if parts.next().is_some() || !digits(ms) || !digits(number) || feed.len() != 8 {
            return None;
        }
        Some(Place {
            ms: ms.parse().ok()?,
            feed: u32::from_str_radix(feed, 16).ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:08x}.{}", self.ms, self.feed, self.number)
    }
}

/// Returns the lines of an event.
pub(super) fn frame(event: &str, id: Option<Place>, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 64);
    if let Some(id) = id {
        text.push_str(&format!("id: {id}\n"));
    }
    text.push_str(&format!("event: {event}\ndata: {data}\n\n"));
    Bytes::from(text)
}

struct Told {
    number: u64,
    topic: Topic,
    frame: Bytes,
}

struct Memory {
    told: VecDeque<Told>,
    bytes: usize,
    /// Everything after this number is remembered.
    base: u64,
    last: Place,
    stats: Option<String>,
    status: String,
}

/// What a listener gets next.
pub(super) enum Next {
    /// These bytes; go on behind the place.
    Events(Bytes, u64),
    /// Nothing new for it; go on behind the place.
    Nothing(u64),
    /// Something between is forgotten; go on behind the place.
    Lost(Place),
}

/// The memory, and who listens.
pub(super) struct Feed {
    memory: Mutex<Memory>,
    last: watch::Sender<u64>,
    listeners: AtomicUsize,
}

impl Feed {
    pub(super) fn new() -> Feed {
        let last = Place {
            ms: 0,
            feed: fastrand::u32(..),
            number: 0,
        };
        Feed {
            memory: Mutex::new(Memory {
                told: VecDeque::new(),
                bytes: 0,
                base: 0,
                last,
                stats: None,
                status: r#"{"status":"UP"}"#.to_owned(),
            }),
            last: watch::Sender::new(0),
            listeners: AtomicUsize::new(0),
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().expect("no panic holds the feed")
    }

    pub(super) fn listeners(&self) -> &AtomicUsize {
        &self.listeners
    }

    pub(super) fn is_heard(&self) -> bool {
        self.listeners.load(Ordering::SeqCst) > 0
    }

    /// Forgets everything: nobody looked for a while, so places given out before have a gap behind
    /// them.
    pub(super) fn restart(&self, now_ms: i64) {
        let mut memory = self.memory();
        memory.last.number += 1;
        memory.last.ms = now_ms;
        memory.base = memory.last.number;
        memory.told.clear();
        memory.bytes = 0;
        memory.stats = None;
    }

    /// Tells an event. `status` has no id: it is no place to resume from.
    pub(super) fn tell(&self, event: &str, topic: Topic, data: String, now_ms: i64) {
        let mut memory = self.memory();
        memory.last.number += 1;
        memory.last.ms = memory.last.ms.max(now_ms);
        let place = memory.last;
        let id = (event != "status").then_some(place);
        let frame = frame(event, id, &data);
        match event {
            "stats" => memory.stats = Some(data),
            "status" => memory.status = data,
            _ => {}
        }
        memory.bytes += frame.len();
        memory.told.push_back(Told {
            number: place.number,
            topic,
            frame,
        });
        while (memory.told.len() > EVENTS_MAX || memory.bytes > BYTES_MAX)
            && let Some(oldest) = memory.told.pop_front()
        {
            memory.bytes -= oldest.frame.len();
            memory.base = oldest.number;
        }
        drop(memory);
        self.last.send_replace(place.number);
    }

    /// Returns where a new listener begins, and what it is told first.
    pub(super) fn greeting(&self) -> (Place, Bytes) {
        let memory = self.memory();
        let mut first = BytesMut::from("retry: 2000\n\n");
        first.put(frame("status", None, &memory.status));
        if let Some(stats) = &memory.stats {
            first.put(frame("stats", Some(memory.last), stats));
        }
        (memory.last, first.freeze())
    }

    /// Tells whether everything after `place` is remembered.
    pub(super) fn remembers(&self, place: Place) -> bool {
        let memory = self.memory();
        place.feed == memory.last.feed && (memory.base..=memory.last.number).contains(&place.number)
    }

    pub(super) fn next(&self, after: u64, filter: &Filter) -> Next {
        let memory = self.memory();
        if after < memory.base {
            return Next::Lost(memory.last);
        }
        let first = memory.told.partition_point(|told| told.number <= after);
        let mut batch = BytesMut::new();
        let mut reached = after;
        for told in memory.told.range(first..) {
            if filter.wants(&told.topic) {
                if !batch.is_empty() && batch.len() + told.frame.len() > BATCH_BYTES_MAX {
                    break;
                }
                batch.put(told.frame.clone());
            }
            reached = told.number;
        }
        if batch.is_empty() {
            Next::Nothing(reached)
        } else {
            Next::Events(batch.freeze(), reached)
        }
    }

    /// Returns what wakes a listener.
    pub(super) fn wakes(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(feed: &Feed, n: usize) {
        let data = format!("{{\"n\":{n}}}");
        feed.tell("window", Topic::Window("NYC".into()), data, 1_000);
    }

    #[test]
    fn a_place_is_written_and_read_alike() {
        let place = Place {
            ms: 1_357_106_400_123,
            feed: 0x00c0_ffee,
            number: 17,
        };
        assert_eq!(place.to_string(), "1357106400123.00c0ffee.17");
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        for bad in [
            "",
            "1.2.3",
            "x.00c0ffee.1",
            "1.00c0ffee.-1",
            "1.00c0ffee.1.1",
            "1.+0c0ffee.",
            "99999999999999999.00c0ffee.1",
        ] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn listeners_read_at_their_own_pace_and_hear_what_they_asked_for() {
        let feed = Feed::new();
        tell(&feed, 1);
        let alert = Topic::Alert("LA".into(), "high".into());
        feed.tell("alert", alert, "{}".into(), 1_000);
        let la = Filter {
            city: Some("LA".into()),
            severity: None,
        };
        let Next::Events(bytes, reached) = feed.next(0, &la) else {
            panic!("there is an alert");
        };
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(
            text.contains("event: alert") && !text.contains("window"),
            "{text}"
        );
        assert!(matches!(feed.next(reached, &la), Next::Nothing(2)));
        let critical = Filter {
            city: None,
            severity: Some(Severity::Critical),
        };
        let Next::Events(bytes, 2) = feed.next(0, &critical) else {
            panic!("there is a window");
        };
        assert!(!std::str::from_utf8(&bytes).unwrap().contains("alert"));
    }

    #[test]
    fn memory_is_bounded_and_who_is_too_slow_is_told() {
        let feed = Feed::new();
        let (start, _) = feed.greeting();
        for n in 0..=EVENTS_MAX {
            tell(&feed, n);
        }
        assert_eq!(feed.memory().told.len(), EVENTS_MAX);
        assert!(!feed.remembers(start));
        assert!(matches!(
            feed.next(start.number, &Filter::default()),
            Next::Lost(_)
        ));
        let (_, mut at) = (0, 1);
        let mut batches = 0;
        while let Next::Events(bytes, reached) = feed.next(at, &Filter::default()) {
            assert!(bytes.len() <= BATCH_BYTES_MAX);
            at = reached;
            batches += 1;
        }
        assert!(batches > 1 && at == feed.greeting().0.number);
        let big = "x".repeat(BYTES_MAX / 2);
        for _ in 0..4 {
            feed.tell("alert", Topic::Everybody, big.clone(), 1_000);
        }
        assert!(feed.memory().bytes <= BYTES_MAX);
    }

    #[test]
    fn a_pause_is_a_gap() {
        let feed = Feed::new();
        tell(&feed, 1);
        let (before, _) = feed.greeting();
        assert!(feed.remembers(before));
        feed.restart(2_000);
        assert!(!feed.remembers(before));
        assert!(feed.remembers(feed.greeting().0));
    }
}
