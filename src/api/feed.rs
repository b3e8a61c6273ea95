//! The recent events of the stream, kept in one bounded buffer for all listeners.
//!
//! Each listener reads the buffer at its own pace, so a slow listener delays no other listener, and the server needs no
//! queue per listener.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Bytes;
use bytes::{BufMut as _, BytesMut};
use moka::future::Cache;
use tokio::sync::watch;

use crate::core::clock::UnixMs;
use crate::core::event::Severity;
use crate::store::reads::{AlertItem, Page};

/// Maximum number of events that the feed keeps.
const EVENTS_MAX: usize = 4_096;
/// Maximum total size of the events that the feed keeps, in bytes.
const BYTES_MAX: usize = 4 << 20;
/// Maximum number of bytes that a listener gets in one read.
pub(super) const BATCH_BYTES_MAX: usize = 64 << 10;
/// Time for which a list of recent alerts is cached for all listeners that resume with the same filter.
/// `RESUME_FILTERS_MAX` is the maximum number of cached lists.
const RESUME_AGE_MAX: Duration = Duration::from_secs(1);
const RESUME_FILTERS_MAX: u64 = 16;

/// The listeners that receive an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Audience {
    /// All listeners receive the event.
    Everyone,
    /// Listeners whose filter matches the given city receive the event.
    OfCity(String),
    /// Listeners whose filter matches the given city and severity receive the event.
    AlertOf(String, String),
}

/// A filter that selects the events for one listener.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamFilter {
    pub(super) city: Option<String>,
    pub(super) severity: Option<Severity>,
}

impl StreamFilter {
    fn matches(&self, audience: &Audience) -> bool {
        let of_city = |city: &String| self.city.as_ref().is_none_or(|wanted| wanted == city);
        match audience {
            Audience::Everyone => true,
            Audience::OfCity(city) => of_city(city),
            Audience::AlertOf(city, severity) => {
                of_city(city) && self.severity.is_none_or(|wanted| wanted.name() == severity)
            }
        }
    }
}

/// A position in the feed. The field `id:` and the header `Last-Event-ID` contain the position as `<Unix
/// ms>.<feed>.<number>`.
///
/// Each process chooses a random feed id when it starts. If a position comes from another process, the server uses the
/// time in the position to find the alerts that the listener missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FeedPosition {
    pub(super) ms: UnixMs,
    pub(super) feed: u32,
    pub(super) number: u64,
}

impl FeedPosition {
    pub(super) fn parse(text: &str) -> Option<FeedPosition> {
        let mut parts = text.split('.');
        let (ms, feed, number) = (parts.next()?, parts.next()?, parts.next()?);
        let digits =
            |t: &str| !t.is_empty() && t.len() < 16 && t.bytes().all(|b| b.is_ascii_digit());
        if parts.next().is_some() || !digits(ms) || !digits(number) || feed.len() != 8 {
            return None;
        }
        Some(FeedPosition {
            ms: UnixMs(ms.parse().ok()?),
            feed: u32::from_str_radix(feed, 16).ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl std::fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:08x}.{}", self.ms.0, self.feed, self.number)
    }
}

/// Returns an event in the text format of server-sent events.
pub(super) fn frame(event: &str, id: Option<FeedPosition>, data: &str) -> Bytes {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    Bytes::from(format!("{id}event: {event}\ndata: {data}\n\n"))
}

/// Returns the data of an event.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts, numbers and flags always serialize")
}

struct FeedEvent {
    number: u64,
    audience: Audience,
    frame: Bytes,
}

struct Memory {
    events: VecDeque<FeedEvent>,
    bytes: usize,
    /// The buffer contains every event whose number is higher than `base`.
    base: u64,
    last: FeedPosition,
    stats: Option<String>,
    status: String,
    listener_count: usize,
    /// True while a running poller adds events to the buffer.
    has_poller: bool,
}

/// The result of one read of the feed for a listener.
pub(super) enum FeedRead {
    /// The matching events as bytes, and the event number after which the next read starts.
    Events(Bytes, u64),
    /// No event matches the filter. The next read starts after the given event number.
    Nothing(u64),
    /// The buffer has dropped events that the listener had not read yet. The next read starts after the given position.
    Lost(FeedPosition),
}

/// A cache of the newest alerts by city and severity.
type RecentAlerts = Cache<(Option<String>, Option<Severity>), Arc<Page<AlertItem>>>;

/// The buffer of recent events, shared by the poller and all listeners.
pub(crate) struct Feed {
    memory: Mutex<Memory>,
    last: watch::Sender<u64>,
    /// The newest alerts for each filter, cached for listeners that reconnect.
    pub(super) recent_alerts: RecentAlerts,
}

impl Feed {
    pub(crate) fn new() -> Feed {
        let last = FeedPosition {
            ms: UnixMs(0),
            feed: fastrand::u32(..),
            number: 0,
        };
        Feed {
            memory: Mutex::new(Memory {
                events: VecDeque::new(),
                bytes: 0,
                base: 0,
                last,
                stats: None,
                status: r#"{"status":"UP"}"#.to_owned(),
                listener_count: 0,
                has_poller: false,
            }),
            last: watch::Sender::new(0),
            recent_alerts: Cache::builder()
                .time_to_live(RESUME_AGE_MAX)
                .max_capacity(RESUME_FILTERS_MAX)
                .build(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no panic holds the feed")
    }

    /// Counts a listener until the returned guard is dropped. The returned flag is true if the caller must start the
    /// poller.
    #[must_use]
    pub(super) fn add_listener(self: &Arc<Feed>, now_ms: UnixMs) -> (ListenerGuard, bool) {
        let mut memory = self.memory();
        memory.listener_count += 1;
        let must_start = !memory.has_poller;
        if must_start {
            memory.has_poller = true;
            memory.clear(now_ms);
        }
        (ListenerGuard(Arc::clone(self)), must_start)
    }

    pub(super) fn has_listeners(&self) -> bool {
        self.memory().listener_count > 0
    }

    /// Marks the poller as stopped, unless a listener is connected. Returns true if the poller may stop.
    ///
    /// The function checks for listeners and marks the poller as stopped under one lock. Without the lock, a listener
    /// could connect after the check and then wait for a poller that has already stopped.
    #[must_use]
    pub(super) fn try_stop_poller(&self) -> bool {
        let mut memory = self.memory();
        memory.has_poller = memory.listener_count > 0;
        !memory.has_poller
    }

    /// Adds an event to the buffer. A `status` event has no id, because a client cannot resume after a `status` event.
    pub(super) fn publish(&self, event: &str, audience: Audience, data: String, now_ms: UnixMs) {
        let mut memory = self.memory();
        memory.last.number += 1;
        memory.last.ms = memory.last.ms.max(now_ms);
        let position = memory.last;
        let id = (event != "status").then_some(position);
        let frame = frame(event, id, &data);
        match event {
            "stats" => memory.stats = Some(data),
            "status" => memory.status = data,
            _ => {}
        }
        memory.bytes += frame.len();
        memory.events.push_back(FeedEvent {
            number: position.number,
            audience,
            frame,
        });
        while (memory.events.len() > EVENTS_MAX || memory.bytes > BYTES_MAX)
            && let Some(oldest) = memory.events.pop_front()
        {
            memory.bytes -= oldest.frame.len();
            memory.base = oldest.number;
        }
        drop(memory);
        self.last.send_replace(position.number);
    }

    /// Returns the position at which a new listener starts, and the events that the listener gets first.
    pub(super) fn greeting(&self) -> (FeedPosition, Bytes) {
        let memory = self.memory();
        let mut first = BytesMut::from("retry: 2000\n\n");
        first.put(frame("status", None, &memory.status));
        if let Some(stats) = &memory.stats {
            first.put(frame("stats", Some(memory.last), stats));
        }
        (memory.last, first.freeze())
    }

    /// Returns true if the buffer contains every event after `position`.
    pub(super) fn remembers(&self, position: FeedPosition) -> bool {
        let memory = self.memory();
        position.feed == memory.last.feed
            && (memory.base..=memory.last.number).contains(&position.number)
    }

    /// Returns the events that match `filter` and whose number is higher than `after`.
    pub(super) fn read(&self, after: u64, filter: &StreamFilter) -> FeedRead {
        let memory = self.memory();
        if after < memory.base {
            return FeedRead::Lost(memory.last);
        }
        let first = memory.events.partition_point(|event| event.number <= after);
        let mut batch = BytesMut::new();
        let mut reached = after;
        for event in memory.events.range(first..) {
            if filter.matches(&event.audience) {
                if !batch.is_empty() && batch.len() + event.frame.len() > BATCH_BYTES_MAX {
                    break;
                }
                batch.put(event.frame.clone());
            }
            reached = event.number;
        }
        if batch.is_empty() {
            FeedRead::Nothing(reached)
        } else {
            FeedRead::Events(batch.freeze(), reached)
        }
    }

    /// Returns a receiver that is notified whenever an event is added.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

impl Memory {
    /// Drops all events from the buffer before a poller starts. The feed received no events
    /// while no poller was running, so a client cannot resume from a position before that time.
    fn clear(&mut self, now_ms: UnixMs) {
        self.last.number += 1;
        self.last.ms = now_ms;
        self.base = self.last.number;
        self.events.clear();
        self.bytes = 0;
        self.stats = None;
    }
}

/// Counts one listener until the guard is dropped.
pub(super) struct ListenerGuard(Arc<Feed>);

impl ListenerGuard {
    pub(super) fn feed(&self) -> &Feed {
        &self.0
    }
}

impl Drop for ListenerGuard {
    fn drop(&mut self) {
        self.0.memory().listener_count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(feed: &Feed, n: usize) {
        let data = format!("{{\"n\":{n}}}");
        feed.publish(
            "window",
            Audience::OfCity("NYC".into()),
            data,
            UnixMs(1_000),
        );
    }

    #[test]
    fn a_position_parses_from_its_own_text() {
        let position = FeedPosition {
            ms: UnixMs(1_357_106_400_123),
            feed: 0x00c0_ffee,
            number: 17,
        };
        assert_eq!(position.to_string(), "1357106400123.00c0ffee.17");
        assert_eq!(FeedPosition::parse(&position.to_string()), Some(position));
        for bad in [
            "",
            "1.2.3",
            "x.00c0ffee.1",
            "1.00c0ffee.-1",
            "1.00c0ffee.1.1",
            "1.+0c0ffee.",
            "99999999999999999.00c0ffee.1",
        ] {
            assert_eq!(FeedPosition::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn listeners_read_at_their_own_pace_and_get_what_they_filter_for() {
        let feed = Feed::new();
        publish(&feed, 1);
        let alert = Audience::AlertOf("LA".into(), "high".into());
        feed.publish("alert", alert, "{}".into(), UnixMs(1_000));
        let la = StreamFilter {
            city: Some("LA".into()),
            severity: None,
        };
        let FeedRead::Events(bytes, reached) = feed.read(0, &la) else {
            panic!("there is an alert");
        };
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(
            text.contains("event: alert") && !text.contains("window"),
            "{text}"
        );
        assert!(matches!(feed.read(reached, &la), FeedRead::Nothing(2)));
        let critical = StreamFilter {
            city: None,
            severity: Some(Severity::Critical),
        };
        let FeedRead::Events(bytes, 2) = feed.read(0, &critical) else {
            panic!("there is a window");
        };
        assert!(!std::str::from_utf8(&bytes).unwrap().contains("alert"));
    }

    #[test]
    fn memory_is_bounded_and_a_slow_listener_learns_that_it_lost_events() {
        let feed = Feed::new();
        let (start, _) = feed.greeting();
        for n in 0..=EVENTS_MAX {
            publish(&feed, n);
        }
        assert_eq!(feed.memory().events.len(), EVENTS_MAX);
        assert!(!feed.remembers(start));
        assert!(matches!(
            feed.read(start.number, &StreamFilter::default()),
            FeedRead::Lost(_)
        ));
        let (_, mut at) = (0, 1);
        let mut batches = 0;
        while let FeedRead::Events(bytes, reached) = feed.read(at, &StreamFilter::default()) {
            assert!(bytes.len() <= BATCH_BYTES_MAX);
            at = reached;
            batches += 1;
        }
        assert!(batches > 1 && at == feed.greeting().0.number);
        let big = "x".repeat(BYTES_MAX / 2);
        for _ in 0..4 {
            feed.publish("alert", Audience::Everyone, big.clone(), UnixMs(1_000));
        }
        assert!(feed.memory().bytes <= BYTES_MAX);
    }

    #[test]
    fn positions_from_before_a_pause_are_not_remembered() {
        let feed = Feed::new();
        publish(&feed, 1);
        let (before, _) = feed.greeting();
        assert!(feed.remembers(before));
        feed.memory().clear(UnixMs(2_000));
        assert!(!feed.remembers(before));
        assert!(feed.remembers(feed.greeting().0));
    }
}
