//! The events that `dev` sends: synthetic events, the events of a file, or the built-in events of January 2013.

use crate::core::replay::Replay;
use crate::core::synth_faults::{Faults, Stream};
use crate::dev::{PARTITIONS, history};
use crate::exit::SettingsError;
use crate::produce;
use crate::produce::credit::Credit;
use crate::produce::input::{Input, InputFormatRules};
use crate::produce::producer::EventProducer;
use crate::produce::pump::{self, EventSource, PumpError, SendPlan};
use crate::settings::{Dev, Rate};
use crate::shutdown::Shutdown;
use crate::telemetry::unix_ms;

/// Maximum number of invalid input lines that are logged.
const BAD_LINES_LOGGED_MAX: u32 = 10;
/// The recorded events of January 2013, which `--replay` sends if `--input` is not given.
const JANUARY: &[u8] = include_bytes!("../../data/city-events-2013-01.ndjson.gz");
/// Time between two heartbeats of synthetic events.
const HEARTBEAT_MS: i64 = 60_000;

/// The source of the events, and the settings with which `dev` sends them.
pub(crate) struct SendOptions {
    /// The source of the events that `dev` sends.
    source: EventSource,
    /// Length of the history that `dev` sends first, in milliseconds, or 0 for no history.
    history_ms: i64,
    rate: Rate,
    is_synthetic: bool,
}

impl SendOptions {
    /// Opens the source of the events. If `is_new` is true, `dev` sends a history before synthetic events.
    ///
    /// # Errors
    /// Returns an error if the options contradict each other or the input cannot be opened.
    pub(crate) fn open(args: &Dev, is_new: bool) -> anyhow::Result<SendOptions> {
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
        Ok(SendOptions {
            source: open_source(args)?,
            history_ms: if is_new { history_ms } else { 0 },
            rate,
            is_synthetic,
        })
    }

    /// Sends events until the source ends or `shutdown` is triggered. The function blocks the calling thread.
    ///
    /// # Errors
    /// Returns an error if the producer fails or the input cannot be read.
    pub(crate) fn run(
        self,
        producer: &EventProducer,
        credit: Credit,
        shutdown: &Shutdown,
    ) -> Result<(), PumpError> {
        // HTTP requests can send events as soon as the producer has reached Kafka, even while the history is being
        // sent.
        if producer.wait_for_topic(shutdown, true)?.is_none() {
            return Ok(());
        }
        if self.history_ms > 0 {
            let span = (unix_ms(), self.history_ms, self.rate);
            let events = history::send_history(producer, &credit, PARTITIONS, span, shutdown)?;
            tracing::info!(events, "sent the history");
        }
        let plan = SendPlan {
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
        Some(path) => EventSource::Input(produce::open(path, &InputFormatRules::Ndjson)?, replay),
        None if args.replay.is_some() => {
            let input = Input::from_reader(JANUARY, &InputFormatRules::Ndjson)?;
            EventSource::Input(input, replay)
        }
        None => EventSource::Synthetic(Stream::new(fastrand::u64(..), Faults::default())),
    })
}
