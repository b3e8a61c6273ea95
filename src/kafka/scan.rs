//! Reads assigned partitions without a consumer group, and checks every gap between two records.
//!
//! librdkafka may skip records, so the scan checks the offset of every record. If an offset is higher than expected, a
//! [`SecondReader`] reads the offsets in between. If the [`SecondReader`] finds a skipped record, the scan moves the
//! Kafka client back to this record. docs/ARCHITECTURE.md describes the check of gaps in detail. All calls block.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::Offset as ListOffset;

use crate::core::event::Offset;
use crate::core::gap::{Gap, Verdict};
use crate::kafka::context::Context;
use crate::kafka::second_read::{SecondReader, warn_if_skipped};
use crate::shutdown::Shutdown;

/// Maximum wait for a seek.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a second read that returned no answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The result of [`Scan::poll`].
pub(crate) enum Scanned<'a> {
    /// The next record of a partition.
    Record(BorrowedMessage<'a>),
    /// The scan has read all records of the given partition.
    End(i32),
    /// No record has arrived in time, or the scan has moved the Kafka client back to skipped records.
    Nothing,
}

/// A scan of the partitions that a Kafka client reads.
pub(crate) struct Scan<'a> {
    client: &'a BaseConsumer<Context>,
    second: &'a SecondReader,
    topic: &'a str,
    shutdown: &'a Shutdown,
    /// The next offset to read in each partition that is not closed.
    next: BTreeMap<i32, Offset>,
}

impl<'a> Scan<'a> {
    /// Returns a scan that reads with `client`. The caller must first assign the partitions of `topic` to `client`, at
    /// the offsets in `next`.
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

    /// Returns true if every partition is closed.
    pub(crate) fn is_done(&self) -> bool {
        self.next.is_empty()
    }

    /// Returns the next offset to read in `partition`, or `None` if the partition is closed.
    pub(crate) fn position(&self, partition: i32) -> Option<Offset> {
        self.next.get(&partition).copied()
    }

    /// Closes a partition. The scan then ignores all further records of this partition.
    pub(crate) fn close(&mut self, partition: i32) {
        self.next.remove(&partition);
    }

    /// Waits for the next record for at most the duration `wait`. A call that checks a gap may take longer.
    ///
    /// # Errors
    /// Returns the errors of the Kafka client, and [`KafkaError::Seek`] if the scan cannot move the client back.
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

    /// Returns true if the log has no record between the partition's position and the offset `to`. Returns `false`
    /// after a shutdown, or if the Kafka client has skipped a record. If the client has skipped a record, the function
    /// also moves the client back to the partition's position.
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
                    warn_if_skipped(partition, gap, verdict);
                    let from = ListOffset::Offset(from.0);
                    self.client
                        .seek(self.topic, partition, from, SEEK_TIMEOUT)?;
                    return Ok(false);
                }
                Verdict::OutOfRange => {
                    tracing::warn!(
                        partition,
                        from = from.0,
                        to = to.0,
                        "Kafka removed records before they were read"
                    );
                    return Ok(true);
                }
                Verdict::Unknown => std::thread::sleep(RETRY_PAUSE),
            }
        }
        Ok(false)
    }
}
