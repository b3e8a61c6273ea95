//! Contains the callbacks that librdkafka calls for the consumer's Kafka client, mainly during a rebalance of the
//! group.
//!
//! librdkafka calls the callbacks on the polling thread. The group uses the cooperative protocol. Therefore, an
//! assignment names only the added partitions, and a revoke names only the removed partitions. The consumer continues
//! to read all other partitions. Sources:
//!
//! - The protocol is KIP-429,
//!   <https://cwiki.apache.org/confluence/display/KAFKA/KIP-429%3A+Kafka+Consumer+Incremental+Rebalance+Protocol>.
//! - The requirements for a rebalance callback are described at `rd_kafka_conf_set_rebalance_cb` in
//!   <https://github.com/confluentinc/librdkafka/blob/v2.12.1/src/rdkafka.h>.
//!
//! | event | steps |
//! |---|---|
//! | assign | assign at offset 0, pause, report; [`Consumer::begin`](super::Consumer::begin) seeks and resumes later |
//! | revoke | report, wait for the drain (bounded), commit, give up |
//! | lost | report, give up |

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, mpsc};
use std::time::Duration;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::mpsc::UnboundedSender;

use super::ConsumerEvent;
use super::inquiry::commit;
use crate::core::event::Offset;
use crate::kafka::client_errors::ClientErrors;
use crate::kafka::context::Context;
use crate::kafka::epochs::Epochs;
use crate::kafka::{is_topic_missing, membership};
use crate::telemetry::join_list;

/// The librdkafka context of the Kafka client that is a member of the group.
pub(crate) struct GroupContext {
    base: Context,
    topic: String,
    events: UnboundedSender<ConsumerEvent>,
    /// The partitions that the consumer reads now, each with the number of its assignment. The poller drops the records
    /// of all other partitions.
    active: Mutex<BTreeMap<i32, u64>>,
    /// The leader epochs of the last records of each partition. A partition stays in this map after it has left
    /// `active`, because a commit during a revoke needs its epochs.
    epochs: Mutex<BTreeMap<i32, Epochs>>,
    drain_max: Duration,
}

impl GroupContext {
    pub(super) fn new(
        config: &ClientConfig,
        topic: String,
        drain_max: Duration,
        events: UnboundedSender<ConsumerEvent>,
    ) -> GroupContext {
        GroupContext {
            base: Context::new(config),
            topic,
            events,
            active: Mutex::new(BTreeMap::new()),
            epochs: Mutex::default(),
            drain_max,
        }
    }

    pub(super) fn errors(&self) -> &ClientErrors {
        self.base.errors()
    }

    pub(super) fn take_end_of_log(&self) -> Option<Offset> {
        self.base.take_end_of_log()
    }

    pub(super) fn send(&self, event: ConsumerEvent) {
        if self.events.send(event).is_err() {
            tracing::debug!("the receiver of the consumer's events is gone");
        }
    }

    pub(super) fn active(&self) -> MutexGuard<'_, BTreeMap<i32, u64>> {
        self.active.lock().expect("no panic holds the lock")
    }

    pub(super) fn epochs(&self) -> MutexGuard<'_, BTreeMap<i32, Epochs>> {
        self.epochs.lock().expect("no panic holds the lock")
    }

    /// Makes the consumer drop all further records of the partitions in `list`. Returns the numbers of these
    /// partitions.
    fn deactivate(&self, list: &TopicPartitionList) -> Vec<i32> {
        let elements = list.elements_for_topic(&self.topic);
        let partitions: Vec<i32> = elements.iter().map(|e| e.partition()).collect();
        self.active().retain(|p, _| !partitions.contains(p));
        partitions
    }

    fn process_assign_partitions(
        &self,
        client: &BaseConsumer<GroupContext>,
        list: &mut TopicPartitionList,
    ) {
        // 1. Assign the partitions at a numeric offset. Without an offset, librdkafka would start at the group's
        // committed offset. Only the start rule of this program can check whether this offset is valid (INV-3). For a
        // logical offset such as "end", librdkafka requests the numeric offset from the broker, and could then skip
        // records. If the broker's answer arrives after a seek, librdkafka 2.12 repeats the request half a second
        // later. The second answer makes librdkafka jump to the end of the log, so it skips all records before the end
        // (`rd_kafka_toppar_handle_Offset` in rdkafka_partition.c). A test in `consumer/tests.rs` fails if librdkafka
        // jumps to the end of the log after a seek.
        //
        // 2. Pause the partitions, so that the client fetches nothing from offset 0.
        let result = list
            .set_all_offsets(KafkaOffset::Offset(0))
            .and_then(|()| client.incremental_assign(list))
            .and_then(|()| client.pause(list));
        if let Err(error) = result {
            tracing::warn!(%error, "failed to apply an assignment");
        }
        // 3. Drop records that the client fetched under an earlier assignment, because their offsets may be before the
        // restart point of the new assignment.
        let partitions = self.deactivate(list);
        // 4. Report the assignment to the shell, which finds the restart points. The consumer thread cannot find them
        // itself: the requests block, and the thread must keep polling.
        tracing::info!(partitions = join_list(&partitions), "partitions assigned");
        self.errors().broker_answered();
        self.send(ConsumerEvent::Assigned(partitions));
    }

    fn process_revoke_partitions(
        &self,
        client: &BaseConsumer<GroupContext>,
        list: &TopicPartitionList,
    ) {
        // 1. Stop sending records of the revoked partitions, so that these partitions can finish draining.
        let partitions = self.deactivate(list);
        // A lost partition may already have another owner (`rd_kafka_assignment_lost` in rdkafka.h), so Kafka would
        // refuse a commit. The next owner starts at the last committed offset and reads the later records again. The
        // fences reject updates with records that the rows already count (INV-2).
        let lost = client.assignment_lost();
        tracing::info!(
            partitions = join_list(&partitions),
            lost,
            "partitions revoked"
        );
        let (answer, drained) = mpsc::channel();
        self.send(ConsumerEvent::Revoked {
            partitions,
            lost,
            answer,
        });
        // 2. Wait until the partitions have drained. The wait is at most `drain_max`, because all other members of the
        // group wait for this member.
        if !lost
            && let Ok(parts) = drained.recv_timeout(self.drain_max)
            && !parts.is_empty()
        {
            // 3. Commit the boundaries of the partitions (INV-1), so that the next owner starts there. The client sends
            // the commit before its next JoinGroup request, on the same connection. The commit is asynchronous, because
            // a wait for the coordinator's answer could delay the whole group.
            if let Err(error) = commit(client, &self.topic, &parts, CommitMode::Async) {
                tracing::warn!(%error, "failed to commit on revoke");
            }
        }
        // 4. Give the partitions up. librdkafka then joins the group again.
        if let Err(error) = client.incremental_unassign(list) {
            tracing::warn!(%error, "failed to give up partitions");
        }
    }
}

impl ClientContext for GroupContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(code) = membership::parse_refused_member(facility, message) {
            self.send(ConsumerEvent::MemberRefused(code));
        }
        self.base.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The callback ignores an error about a missing topic, because the poller gets the same error from the poll and
        // reports it.
        if !is_topic_missing(&error) {
            self.base.error(error, reason);
        }
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn generate_oauth_token(
        &self,
        config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.base.generate_oauth_token(config)
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(
        &self,
        client: &BaseConsumer<GroupContext>,
        err: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.process_assign_partitions(client, list);
            }
            // This arm handles revokes and errors. After an error, librdkafka also expects the member to give up all
            // partitions.
            _ => self.process_revoke_partitions(client, list),
        }
    }
}
