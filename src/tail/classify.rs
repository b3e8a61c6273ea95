//! What a record says to whoever watches: an event that passes the filter and how it stands in
//! time, a rejection, or nothing to show.

use super::filter_hint::Absent;
use crate::core::event::{Event, Offset};
use crate::core::parse;
use crate::core::parse::{Body, Reason};
use crate::core::watermark::MaxTime;
use crate::core::window::Rules;
use crate::kafka::reader::{Letter, Record};
use crate::settings::{From, Tail};

/// Which events are shown.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    cities: Vec<String>,
    types: Vec<String>,
    severities: [bool; 4],
}

impl Filter {
    /// Returns what the options ask for.
    pub(super) fn new(args: &Tail) -> Filter {
        let mut severities = [args.severities.is_empty(); 4];
        for severity in &args.severities {
            severities[severity.index()] = true;
        }
        Filter {
            cities: args
                .cities
                .iter()
                .map(|city| parse::trim(city).to_owned())
                .collect(),
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

    /// Returns the filter as it was asked for, such as `NYC, LA · traffic`; empty if all passes.
    pub(super) fn text(&self) -> String {
        let mut parts = Vec::new();
        if !self.cities.is_empty() {
            parts.push(self.cities.join(", "));
        }
        if !self.types.is_empty() {
            parts.push(self.types.join(", "));
        }
        if self.severities != [true; 4] {
            let severities = crate::core::event::Severity::ALL;
            let names = severities
                .into_iter()
                .filter(|s| self.severities[s.index()]);
            parts.push(names.map(|s| s.name()).collect::<Vec<_>>().join(", "));
        }
        parts.join(" · ")
    }
}

/// An event and where it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// The event.
    pub(super) event: Event,
    /// It came after its window was over; told only where reading began with the oldest record.
    pub(super) late: bool,
    /// Its time is too far ahead of its record to be believed.
    pub(super) future: bool,
    /// Its partition.
    pub(super) partition: i32,
    /// Its place there.
    pub(super) offset: Offset,
    /// The record's Kafka timestamp in Unix milliseconds.
    pub(super) record_ms: Option<i64>,
}

/// What a record says.
#[derive(Debug)]
pub(super) enum Said {
    /// An event that passes.
    Event(Sighting),
    /// Neither event nor heartbeat.
    Rejected(Reason),
    /// A dead letter; only where those are read.
    Letter(Letter),
    /// A heartbeat, or an event that does not pass.
    Nothing,
}

/// Judges records in the order of their log.
#[derive(Debug)]
pub(super) struct Intake {
    filter: Filter,
    /// Cities and types that were asked for and not seen yet.
    absent: [Absent; 2],
    hint: Option<String>,
    /// The largest time of each partition; kept only when read from the beginning, since lateness
    /// depends on everything before.
    times: Option<Vec<MaxTime>>,
    rules: Rules,
}

impl Intake {
    /// Returns the state before the first record.
    pub(super) fn new(args: &Tail) -> Intake {
        let filter = Filter::new(args);
        Intake {
            absent: [
                Absent::new("city", &filter.cities),
                Absent::new("type", &filter.types),
            ],
            hint: None,
            filter,
            times: (args.from == From::Beginning).then(Vec::new),
            rules: Rules::default(),
        }
    }

    /// Tells whether late events are told from others.
    pub(super) fn knows_late(&self) -> bool {
        self.times.is_some()
    }

    /// Returns what to say about a city or type that was asked for and that no event had so far.
    pub(super) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Takes the next record.
    pub(super) fn take(&mut self, record: Record) -> Said {
        let event = match record.body {
            Ok(Body::Event(event)) => event,
            Ok(Body::Heartbeat(time_ms)) => {
                self.judge(record.partition, record.record_ms, time_ms);
                return Said::Nothing;
            }
            Err(reject) => return Said::Rejected(reject.reason),
        };
        // Events that are not shown move the watermark all the same.
        let (late, future) = self.judge(record.partition, record.record_ms, event.time_ms);
        let [cities, types] = &mut self.absent;
        if cities.see(&event.city) | types.see(&event.event_type) {
            self.hint = cities.hint().or_else(|| types.hint());
        }
        if !self.filter.passes(&event) {
            return Said::Nothing;
        }
        Said::Event(Sighting {
            event,
            late,
            future,
            partition: record.partition,
            offset: record.offset,
            record_ms: record.record_ms,
        })
    }

    /// Judges a time by the partition's watermark as it stood, late and future, then lets it move
    /// the watermark.
    fn judge(&mut self, partition: i32, record_ms: Option<i64>, time_ms: i64) -> (bool, bool) {
        let future = self.rules.is_future(time_ms, record_ms);
        let (Some(times), Ok(index)) = (&mut self.times, usize::try_from(partition)) else {
            return (false, future);
        };
        if times.len() <= index {
            times.resize(index + 1, MaxTime::default());
        }
        let late = times[index].is_late(time_ms, &self.rules);
        if !future {
            times[index].observe(time_ms);
        }
        (late, future)
    }
}
