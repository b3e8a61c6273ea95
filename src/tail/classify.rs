//! Classifies each record of the log for `tail`: an event that passes the filter, a dead letter, a rejected record, or
//! a hidden record.

use super::filter_hint::FilterHint;
use crate::core::clock::UnixMs;
use crate::core::event::{Event, Offset, Severity};
use crate::core::parse;
use crate::core::parse::{Body, Reason};
use crate::core::watermark::MaxTime;
use crate::core::window::Rules;
use crate::kafka::reader::{Letter, LogRecord};
use crate::settings::{StartFrom, Tail};

/// The filter from the command line.
#[derive(Clone, Debug)]
pub(super) struct OptionFilter {
    cities: Vec<String>,
    types: Vec<String>,
    severities: [bool; 4],
}

impl OptionFilter {
    /// Returns the filter that the command line specifies. The filter normalizes city names and event types in the same
    /// way as the event parser.
    pub(super) fn new(args: &Tail) -> OptionFilter {
        let mut severities = [args.severities.is_empty(); 4];
        for severity in &args.severities {
            severities[severity.index()] = true;
        }
        let cities = args.cities.iter().map(|city| parse::trim(city).to_owned());
        OptionFilter {
            cities: cities.collect(),
            types: args.types.iter().map(|t| t.to_ascii_lowercase()).collect(),
            severities,
        }
    }

    fn passes(&self, event: &Event) -> bool {
        let among =
            |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
        self.severities[event.severity.index()]
            && among(&self.cities, &event.city)
            && among(&self.types, &event.event_type)
    }

    /// Returns the filter as text for the user, such as `NYC, LA · traffic`. The text is empty if the command line
    /// specifies no filter.
    pub(super) fn text(&self) -> String {
        let mut parts = Vec::new();
        for names in [&self.cities, &self.types] {
            if !names.is_empty() {
                parts.push(names.join(", "));
            }
        }
        if self.severities != [true; 4] {
            let shown = Severity::ALL.into_iter();
            let shown = shown.filter(|s| self.severities[s.index()]);
            parts.push(shown.map(|s| s.name()).collect::<Vec<_>>().join(", "));
        }
        parts.join(" · ")
    }
}

/// An event with its position in the log, and with flags that say whether the event is late or in the future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TailEvent {
    pub(super) event: Event,
    /// True if the watermark had passed the end of the event's window before the event was read. If `tail` began to
    /// read after the oldest record, it cannot recognize late events, and the flag is always false.
    pub(super) late: bool,
    /// True if the event time is too far ahead of the record's timestamp.
    pub(super) future: bool,
    pub(super) partition: i32,
    pub(super) offset: Offset,
    /// The Kafka timestamp of the record.
    pub(super) record_ms: Option<UnixMs>,
}

/// The result of classifying a record.
#[derive(Debug)]
pub(super) enum Classified {
    /// An event that passes the filter.
    Event(TailEvent),
    /// A record that is neither an event nor a heartbeat.
    Rejected(Reason),
    /// A record of the dead-letter topic (`--dlq`).
    DeadLetter(Letter),
    /// A heartbeat, or an event that does not pass the filter.
    Hidden,
}

/// Classifies the records of each partition, in the order of the partition's log.
#[derive(Debug)]
pub(super) struct Classifier {
    filter: OptionFilter,
    /// The hint about cities and the hint about event types. Each hint reports names in the filter that match no event.
    hints: [FilterHint; 2],
    hint: Option<String>,
    /// The largest event time of each partition, indexed by the partition's number. The value is `None` if `tail` began
    /// to read after the oldest record, because the watermark depends on every earlier record.
    max_times: Option<Vec<MaxTime>>,
    rules: Rules,
}

impl Classifier {
    /// Returns a classifier that has not seen any record yet.
    pub(super) fn new(args: &Tail) -> Classifier {
        let filter = OptionFilter::new(args);
        Classifier {
            hints: [
                FilterHint::new("city", &filter.cities),
                FilterHint::new("type", &filter.types),
            ],
            hint: None,
            filter,
            max_times: (args.from == StartFrom::Beginning).then(Vec::new),
            rules: Rules::default(),
        }
    }

    /// Returns true if the classifier knows which events are late.
    pub(super) fn knows_late(&self) -> bool {
        self.max_times.is_some()
    }

    /// Returns a hint if the filter contains a city or an event type that no event has had so far.
    pub(super) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Classifies the next record of the log.
    pub(super) fn classify(&mut self, record: LogRecord) -> Classified {
        let event = match record.body {
            Ok(Body::Event(event)) => event,
            Ok(Body::Heartbeat(time_ms)) => {
                self.judge_time(record.partition, record.record_ms, time_ms);
                return Classified::Hidden;
            }
            Err(reject) => return Classified::Rejected(reject.reason),
        };
        // The code checks the event time before the filter, because events that the filter hides also move the
        // watermark.
        let (late, future) = self.judge_time(record.partition, record.record_ms, event.time_ms);
        let [cities, types] = &mut self.hints;
        if cities.observe(&event.city) | types.observe(&event.event_type) {
            self.hint = cities.hint().or_else(|| types.hint());
        }
        if !self.filter.passes(&event) {
            return Classified::Hidden;
        }
        Classified::Event(TailEvent {
            event,
            late,
            future,
            partition: record.partition,
            offset: record.offset,
            record_ms: record.record_ms,
        })
    }

    /// Returns two flags: whether an event time is late, and whether the event time is too far in the future. After
    /// both checks, the function updates the watermark of the partition, unless the event time is too far in the
    /// future.
    fn judge_time(
        &mut self,
        partition: i32,
        record_ms: Option<UnixMs>,
        time_ms: UnixMs,
    ) -> (bool, bool) {
        let future = self.rules.is_future(time_ms, record_ms);
        let (Some(max_times), Ok(index)) = (&mut self.max_times, usize::try_from(partition)) else {
            return (false, future);
        };
        if max_times.len() <= index {
            max_times.resize(index + 1, MaxTime::default());
        }
        let late = max_times[index].is_late(time_ms, &self.rules);
        if !future {
            max_times[index].observe(time_ms);
        }
        (late, future)
    }
}
