//! The events that `dev` sends: synthetic ones, a file, or the built-in events of January 2013.

use crate::core::replay::Replay;
use crate::core::synth_faults::{Faults, Stream};
use crate::dev::{PARTITIONS, history};
use crate::exit::SettingsError;
use crate::produce;
use crate::produce::credit::Credit;
use crate::produce::input::Input;
use crate::produce::producer::EventProducer;
use crate::produce::pump::{self, EventSource, Plan, PumpError};
use crate::settings::{Dev, Rate};
use crate::shutdown::Shutdown;
use crate::telemetry::unix_ms;

/// Number of invalid lines of the input that are logged.
const BAD_LINES_LOGGED_MAX: u32 = 10;
/// The real events that `--replay` plays without `--input`.
const JANUARY: &[u8] = include_bytes!("../../data/city-events-2013-01.ndjson.gz");
/// Time between two heartbeats of synthetic events.
const HEARTBEAT_MS: i64 = 60_000;

/// Everything that is needed to send the events.
pub(crate) struct Sending {
    /// The events.
    source: EventSource,
    /// Length of the history to send first, in milliseconds; 0 for none.
    history_ms: i64,
    rate: Rate,
    is_synthetic: bool,
}

impl Sending {
    /// Opens the source. With `is_new`, a history precedes synthetic events.
    ///
    /// # Errors
    /// If the settings contradict each other, or the input cannot be opened.
    pub(crate) fn open(args: &Dev, is_new: bool) -> anyhow::Result<Sending> {
        let history_ms = args.history_ms().map_err(SettingsError)?;
        if history_ms > 0 && args.history.is_some() && !is_new {
            tracing::warn!("no history is sent, because --data-dir has tables already");
        }
        let is_synthetic = args.is_synthetic();
        let rate = match args.rate {
            Some(rate) => rate,
            None if is_synthetic => produce::rate_of_interval(args.interval),
            None => Rate::Max,
        };
        Ok(Sending {
            source: open_source(args)?,
            history_ms: if is_new { history_ms } else { 0 },
            rate,
            is_synthetic,
        })
    }

    /// Sends all events, and returns at the end of the source or at `shutdown`. Blocks.
    ///
    /// # Errors
    /// If the producer fails, or the input cannot be read.
    pub(crate) fn run(
        self,
        producer: &EventProducer,
        credit: Credit,
        shutdown: &Shutdown,
    ) -> Result<(), PumpError> {
        if self.history_ms > 0 {
            let span = (unix_ms(), self.history_ms, self.rate);
            let events = history::send_history(producer, &credit, PARTITIONS, span, shutdown)?;
            tracing::info!(events, "sent the history");
        }
        let plan = Plan {
            rate: self.rate,
            count: None,
            patient: true,
            heartbeat_ms: self.is_synthetic.then_some(HEARTBEAT_MS),
            credit: Some(credit),
        };
        let mut logged = 0;
        let pumped = pump::run(
            self.source,
            producer,
            &plan,
            shutdown,
            &mut |line, reject| {
                if logged < BAD_LINES_LOGGED_MAX {
                    tracing::warn!(line, reason = %reject.reason, detail = reject.detail, "skipped an invalid line");
                } else if logged == BAD_LINES_LOGGED_MAX {
                    tracing::warn!("further invalid lines are skipped without a message");
                }
                logged += 1;
            },
        );
        producer.finish(shutdown);
        let counts = producer.deliveries().counts();
        let (sent, bad) = (counts.acknowledged, counts.bad);
        if sent == 0 && bad > 0 {
            tracing::warn!(
                bad,
                "the file has no valid event; docs/EVENTS.md describes the format"
            );
        } else {
            tracing::info!(sent, bad, "the source has ended");
        }
        pumped.map(drop)
    }
}

fn open_source(args: &Dev) -> anyhow::Result<EventSource> {
    let replay = match args.replay {
        Some(speed) => Replay::at_speed(Some(speed)).restamped(unix_ms(), None),
        None => Replay::default(),
    };
    Ok(match &args.input {
        Some(path) => EventSource::Input(produce::open(path)?, replay),
        None if args.replay.is_some() => EventSource::Input(Input::from_reader(JANUARY)?, replay),
        None => EventSource::Synthetic(Stream::new(fastrand::u64(..), Faults::default())),
    })
}
