//! Finds the partitions of a topic, and the first offset to read in each partition.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use super::{LogReader, REQUEST_TIMEOUT, ReadRange, ReadStart};
use crate::core::clock::UnixMs;
use crate::core::event::Offset;
use crate::kafka::partitions_of;

/// Maximum wait for one report from the Kafka client about a failed connection.
const REPORT_WAIT: Duration = Duration::from_millis(300);
/// Maximum number of reports from the Kafka client for which the reader waits.
const REPORTS_MAX: usize = 10;

/// A partition that the reader reads.
#[derive(Debug)]
pub(super) struct OpenPartition {
    /// The offset at which reading begins.
    pub(super) first: Offset,
    /// The offset at which reading ends, or `None` if reading has no end.
    pub(super) end: Option<Offset>,
    /// True if the reader has read all records that the partition contains now.
    pub(super) at_end: bool,
}

impl LogReader {
    /// Finds the first offset to read in each partition, and assigns the partitions to the client. Does not assign a
    /// partition without a record to read. Returns `None` if the topic does not exist.
    pub(super) fn assign(
        &self,
        range: &ReadRange,
        timeout: Duration,
    ) -> KafkaResult<Option<BTreeMap<i32, OpenPartition>>> {
        let metadata = self.consumer.fetch_metadata(None, timeout);
        if metadata.is_err() {
            // Shortly after a failed request, the client reports why it could not reach a broker. This report is more
            // precise than the error of the request. The client has no partitions yet, so a poll only runs callbacks.
            for _ in 0..REPORTS_MAX {
                if self.consumer.poll(REPORT_WAIT).is_none() {
                    break;
                }
            }
        }
        let Some(partitions) = partitions_of(&metadata?, &self.topic) else {
            return Ok(None);
        };
        let mut bounds = BTreeMap::new();
        for partition in partitions {
            let low_and_end =
                self.consumer
                    .fetch_watermarks(&self.topic, partition, REQUEST_TIMEOUT)?;
            bounds.insert(partition, low_and_end);
        }
        let by_time = match range.start {
            ReadStart::At(from_ms) => self.offsets_at(from_ms, &bounds)?,
            ReadStart::End | ReadStart::Beginning => None,
        };
        let (mut list, mut open) = (TopicPartitionList::new(), BTreeMap::new());
        for (partition, (low, log_end)) in bounds {
            let first = match (range.start, &by_time) {
                (ReadStart::End, _) => log_end,
                (ReadStart::At(_), Some(offsets)) => {
                    offsets.get(&partition).copied().unwrap_or(log_end)
                }
                (ReadStart::Beginning, _) | (ReadStart::At(_), None) => low,
            };
            list.add_partition_offset(&self.topic, partition, ListOffset::Offset(first))?;
            let (first, end) = (Offset(first), range.stop_at_end.then_some(Offset(log_end)));
            if end.is_none_or(|end| first < end) {
                let at_end = false;
                open.insert(partition, OpenPartition { first, end, at_end });
            }
        }
        self.consumer.assign(&list)?;
        Ok(Some(open))
    }

    /// Returns the offset of the first record at or after the time `from_ms`, for each partition that has such a
    /// record. Returns `None` if the broker cannot look up offsets by time.
    ///
    /// If the broker cannot look up offsets by time, as in librdkafka's mock cluster, the caller reads from the
    /// beginning and skips records before `from_ms`.
    fn offsets_at(
        &self,
        from_ms: UnixMs,
        bounds: &BTreeMap<i32, (i64, i64)>,
    ) -> KafkaResult<Option<BTreeMap<i32, i64>>> {
        let request = |time_ms: UnixMs| -> KafkaResult<BTreeMap<i32, i64>> {
            let mut list = TopicPartitionList::new();
            for partition in bounds.keys() {
                list.add_partition_offset(&self.topic, *partition, ListOffset::Offset(time_ms.0))?;
            }
            let answer = self.consumer.offsets_for_times(list, REQUEST_TIMEOUT)?;
            let elements = answer.elements();
            let found = elements.iter().filter_map(|e| match e.offset() {
                ListOffset::Offset(offset) if offset >= 0 => Some((e.partition(), offset)),
                _ => None,
            });
            Ok(found.collect())
        };
        let found = match request(from_ms.max(UnixMs(0))) {
            Ok(found) => found,
            Err(error)
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnsupportedFeature) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // If the broker returns no offset, either all records are older than the requested time, or the broker cannot
        // look up offsets by time. A second request, for the time 0, distinguishes the two cases, because every record
        // is at or after the time 0.
        let has_records = bounds.values().any(|(low, end)| low < end);
        if found.is_empty() && has_records && request(UnixMs(0))?.is_empty() {
            return Ok(None);
        }
        Ok(Some(found))
    }
}
