//! Reads the assigned partitions up to the end of the requested range.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, Timestamp};

use super::start::OpenPartition;
use super::{
    Callback, Letter, LogReader, LogRecord, POLL, ReadRange, ReadStart, ReadStep, ReaderError,
    plain,
};
use crate::core::clock::UnixMs;
use crate::core::event::Offset;
use crate::core::parse::parse_record;
use crate::kafka::REACH_REMEDY;
use crate::kafka::record::heartbeat_values;
use crate::kafka::scan::{Scan, Scanned};
use crate::shutdown::Shutdown;
use crate::sys;
use crate::telemetry::{LogLimit, unix_ms};

/// Time between two reports of the number of records that the reader must still read.
const LAG_EVERY: Duration = Duration::from_millis(250);
/// Timeout of the request that checks whether a broker is reachable again.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// Time for which the reader continues to read a quiet partition after the time `until_ms`, in milliseconds. Records
/// with an earlier timestamp may still arrive during this time.
const UNTIL_GRACE_MS: i64 = 1_000;

/// One run of a [`LogReader`], with the partitions that the run has not finished yet.
pub(super) struct Reading<'a> {
    reader: &'a LogReader,
    range: &'a ReadRange,
    scan: Scan<'a>,
    open: BTreeMap<i32, OpenPartition>,
    brokers_away: bool,
    log_limit: LogLimit,
    step: Callback<'a>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        reader: &'a LogReader,
        range: &'a ReadRange,
        scan: Scan<'a>,
        open: BTreeMap<i32, OpenPartition>,
        log_limit: LogLimit,
        step: Callback<'a>,
    ) -> Reading<'a> {
        Reading {
            reader,
            range,
            scan,
            open,
            brokers_away: false,
            log_limit,
            step,
        }
    }

    pub(super) fn run(mut self, shutdown: &Shutdown) -> Result<(), ReaderError> {
        let mut lag_at = Instant::now();
        while !self.open.is_empty() && !shutdown.is_triggered() {
            let flow = match self.scan.poll(POLL) {
                Ok(Scanned::Record(message)) => self.process_message(&message),
                Ok(Scanned::End(partition)) => self.process_end(partition),
                Ok(Scanned::Nothing) => (self.step)(ReadStep::Idle),
                Err(error) => self.process_error(error)?,
            };
            if flow.is_break() {
                break;
            }
            if Instant::now() >= lag_at {
                lag_at = Instant::now() + LAG_EVERY;
                if self.report_lag().is_break() {
                    break;
                }
            }
            self.close_after_until();
        }
        Ok(())
    }

    fn process_message(&mut self, message: &BorrowedMessage<'_>) -> ControlFlow<()> {
        let (partition, offset) = (message.partition(), Offset(message.offset()));
        let Some(open) = self.open.get_mut(&partition) else {
            return ControlFlow::Continue(());
        };
        open.at_end = false;
        let end = open.end;
        let record_ms = message.timestamp().to_millis().map(UnixMs);
        let too_new = self
            .range
            .until_ms
            .zip(record_ms)
            .is_some_and(|(until_ms, record_ms)| record_ms >= until_ms);
        if end.is_some_and(|end| offset.next() >= end) || too_new {
            self.close(partition);
        }
        if end.is_some_and(|end| offset >= end) || too_new {
            return ControlFlow::Continue(());
        }
        // A record after the start offset may be older than the start time, because timestamps that producers set may
        // be out of order.
        if let (ReadStart::At(from_ms), Some(record_ms)) = (self.range.start, record_ms)
            && record_ms < from_ms
        {
            return ControlFlow::Continue(());
        }
        (self.step)(if self.reader.letters {
            ReadStep::Letter(letter(message))
        } else {
            ReadStep::Record(record(message))
        })
    }

    fn process_end(&mut self, partition: i32) -> ControlFlow<()> {
        self.brokers_away = false;
        if let Some(open) = self.open.get_mut(&partition) {
            open.at_end = true;
            if open.end.is_some() {
                self.close(partition);
            }
        }
        ControlFlow::Continue(())
    }

    fn process_error(&mut self, error: KafkaError) -> Result<ControlFlow<()>, ReaderError> {
        if matches!(
            error,
            KafkaError::MessageConsumptionFatal(_) | KafkaError::Seek(_)
        ) {
            return Err(ReaderError::Read(error));
        }
        match error.rdkafka_error_code() {
            // The reader never joins a group, so it needs no right on the group.
            Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {}
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                self.brokers_away = true;
                let waiting = self
                    .reader
                    .explain(&self.log_limit, &plain(&error), REACH_REMEDY);
                return Ok((self.step)(ReadStep::Waiting(waiting)));
            }
            _ => {
                self.reader
                    .explain(&self.log_limit, &plain(&error), REACH_REMEDY);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn report_lag(&mut self) -> ControlFlow<()> {
        // Without new records, a broker that is reachable again sends nothing. Therefore, the reader requests metadata
        // to find out whether a broker is reachable again.
        if self.brokers_away {
            let answer = self.reader.consumer.fetch_metadata(None, PROBE_TIMEOUT);
            self.brokers_away = answer.is_err();
        }
        if self.brokers_away {
            return ControlFlow::Continue(());
        }
        let lag = self.lag();
        (self.step)(ReadStep::Behind(lag))
    }

    /// Returns the number of records that the reader must still read. The function sends no request, because the log
    /// ends come from the last fetches.
    fn lag(&self) -> u64 {
        let of_partition = |(partition, open): (&i32, &OpenPartition)| {
            let next = self.scan.position(*partition).filter(|_| !open.at_end)?;
            let client = self.reader.consumer.client();
            let end = sys::known_log_end(client, &self.reader.topic, *partition)?;
            u64::try_from(end - next.0).ok()
        };
        self.open.iter().filter_map(of_partition).sum()
    }

    /// Closes the partitions that the reader has read to their end, if the time `until_ms` and the grace period are
    /// over.
    fn close_after_until(&mut self) {
        let until_ms = self.range.until_ms;
        if until_ms.is_none_or(|until_ms| unix_ms() < until_ms.saturating_add(UNTIL_GRACE_MS)) {
            return;
        }
        let ended = self.open.iter().filter(|(_, open)| open.at_end);
        for partition in ended.map(|(partition, _)| *partition).collect::<Vec<_>>() {
            self.close(partition);
        }
    }

    /// Stops reading a partition, so that its further records do not delay the other partitions.
    fn close(&mut self, partition: i32) {
        self.open.remove(&partition);
        self.scan.close(partition);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.reader.topic, partition);
        if let Err(error) = self.reader.consumer.pause(&list) {
            tracing::debug!(partition, %error, "failed to pause a partition");
        }
    }
}

fn record(message: &BorrowedMessage<'_>) -> LogRecord {
    let body = parse_record(message.payload(), heartbeat_values(message));
    let value = message.payload().filter(|_| body.is_err());
    LogRecord {
        partition: message.partition(),
        offset: Offset(message.offset()),
        record_ms: message.timestamp().to_millis().map(UnixMs),
        by_broker: matches!(message.timestamp(), Timestamp::LogAppendTime(_)),
        value: value.map(Box::from),
        body,
    }
}

fn letter(message: &BorrowedMessage<'_>) -> Letter {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let text = |h: Header<'_, &[u8]>| {
            let value = String::from_utf8_lossy(h.value.unwrap_or_default());
            (h.key.to_owned(), value.into_owned())
        };
        headers.iter().map(text).collect()
    });
    Letter {
        partition: message.partition(),
        offset: Offset(message.offset()),
        record_ms: message.timestamp().to_millis().map(UnixMs),
        headers,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
    }
}
