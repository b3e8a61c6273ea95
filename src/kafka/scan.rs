//! Reads assigned partitions without a group, and confirms every gap between two records.
//!
//! librdkafka may skip records, so the scan does not trust a record whose offset is not the next one. It asks
//! [`SecondReader`] for what is in between, and moves the client back if that was a record
//! (docs/ARCHITECTURE.md describes the check). All calls block.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::Offset as ListOffset;

use crate::core::event::Offset;
use crate::core::gap::{Gap, Verdict};
use crate::kafka::context::Context;
use crate::kafka::second_read::{SecondReader, report};
use crate::shutdown::Shutdown;

/// Longest wait of a seek.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a second read without an answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What [`Scan::poll`] found.
pub(crate) enum Scanned<'a> {
    /// The next record of a partition.
    Record(BorrowedMessage<'a>),
    /// All records of this partition have been read.
    End(i32),
    /// No record arrived in time, or the client was moved back to records that it had skipped.
    Nothing,
}

/// A scan of the partitions that are assigned to a client.
pub(crate) struct Scan<'a> {
    client: &'a BaseConsumer<Context>,
    second: &'a SecondReader,
    topic: &'a str,
    shutdown: &'a Shutdown,
    /// The offset after the last record, by partition that is still read.
    next: BTreeMap<i32, Offset>,
}

impl<'a> Scan<'a> {
    /// Returns a scan of `client`, which has been assigned partitions of `topic` at the offsets in `next`.
    pub(crate) fn new(
        client: &'a BaseConsumer<Context>,
        second: &'a SecondReader,
        topic: &'a str,
        shutdown: &'a Shutdown,
        next: BTreeMap<i32, Offset>,
    ) -> Scan<'a> {
        Scan {
            client,
            second,
            topic,
            shutdown,
            next,
        }
    }

    /// Returns whether every partition has been closed.
    pub(crate) fn is_done(&self) -> bool {
        self.next.is_empty()
    }

    /// Returns the offset after the last record of `partition`, unless it has been closed.
    pub(crate) fn position(&self, partition: i32) -> Option<Offset> {
        self.next.get(&partition).copied()
    }

    /// Ignores what still arrives from `partition`.
    pub(crate) fn close(&mut self, partition: i32) {
        self.next.remove(&partition);
    }

    /// Waits at most `wait` for the next record. Takes longer while a gap is checked.
    ///
    /// # Errors
    /// The client's errors, and [`KafkaError::Seek`] if it cannot be moved back.
    pub(crate) fn poll(&mut self, wait: Duration) -> KafkaResult<Scanned<'a>> {
        match self.client.poll(wait) {
            None => Ok(Scanned::Nothing),
            Some(Ok(message)) => {
                let (partition, offset) = (message.partition(), Offset(message.offset()));
                if !self.passes(partition, offset)? {
                    return Ok(Scanned::Nothing);
                }
                self.next.insert(partition, offset.next());
                Ok(Scanned::Record(message))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let end = self.client.context().take_end_of_log().unwrap_or(Offset(0));
                if !self.passes(partition, end)? {
                    return Ok(Scanned::Nothing);
                }
                if let Some(next) = self.next.get_mut(&partition) {
                    *next = end.max(*next);
                }
                Ok(Scanned::End(partition))
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// Returns whether the log has no record between the position of `partition` and `to`. If the client
    /// skipped one, moves the client back and returns `false`; also after a request to stop.
    fn passes(&self, partition: i32, to: Offset) -> KafkaResult<bool> {
        let Some(from) = self.position(partition) else {
            return Ok(false);
        };
        if to <= from {
            return Ok(true);
        }
        let gap = Gap { from, to };
        while !self.shutdown.is_triggered() {
            let verdict = gap.verdict(self.second.read(partition, gap));
            match verdict {
                Verdict::Real => return Ok(true),
                Verdict::Skipped { .. } => {
                    report(partition, gap, verdict);
                    let from = ListOffset::Offset(from.0);
                    self.client
                        .seek(self.topic, partition, from, SEEK_TIMEOUT)?;
                    return Ok(false);
                }
                Verdict::OutOfRange => {
                    tracing::warn!(partition, %from, %to, "kafka removed records before they were read");
                    return Ok(true);
                }
                Verdict::Unknown => std::thread::sleep(RETRY_PAUSE),
            }
        }
        Ok(false)
    }
}
