//! Reads facts about a topic from the brokers: its id, its partitions, and the rights of this client.
//!
//! librdkafka does not report that a topic was deleted and created again under the same name. The safe API of rdkafka
//! has no function for DescribeTopics. Each function of this module finds a broker that answers, and then sends one
//! small, read-only request.

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;
use rdsys::rd_kafka_resp_err_t as Code;

use super::brokers::brokers;
use super::topic_id::TopicId;
use super::{Owned, copy_text, timeout_ms};

/// Facts about a topic, as the brokers report them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// The id of the topic. The id changes when the topic is deleted and created again.
    pub id: TopicId,
    /// The number of partitions of the topic.
    pub partitions: i32,
}

/// The reason why a topic could not be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No usable answer arrived in time. A later attempt may succeed.
    #[error("failed to ask Kafka about topic {topic}: {reason}")]
    Unreachable {
        /// The name of the topic.
        topic: String,
        /// The message of librdkafka.
        reason: String,
    },
    /// This client has no right on the topic, not even the right to describe it.
    #[error("Kafka refuses to describe topic {topic}: {reason}")]
    Denied {
        /// The name of the topic.
        topic: String,
        /// The message of the brokers.
        reason: String,
    },
    /// The brokers refused the request for a reason other than a missing right.
    #[error("Kafka refuses to describe topic {topic}: {reason}")]
    Refused {
        /// The name of the topic.
        topic: String,
        /// The message of the brokers.
        reason: String,
    },
    /// The topic has no id. Topic ids require Kafka 2.8 with KRaft, or with the inter-broker protocol 2.8.
    #[error("topic {topic} has no id; the brokers must run Kafka 2.8 or later")]
    NoId {
        /// The name of the topic.
        topic: String,
    },
}

/// An operation on Kafka that needs a right. The enum contains only operations that the roles use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Fetch records. For a consumer group, this right allows joining the group and committing offsets.
    Read,
    /// Send records. For a transactional id, this right allows using the id.
    Write,
    /// Create a topic.
    Create,
    /// Delete a topic.
    Delete,
    /// Check whether the topic or the consumer group exists.
    Describe,
    /// Read the settings of a topic.
    DescribeConfigs,
}

impl Operation {
    /// Returns the name that `kafka-acls.sh` uses for the operation.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Read => "Read",
            Operation::Write => "Write",
            Operation::Create => "Create",
            Operation::Delete => "Delete",
            Operation::Describe => "Describe",
            Operation::DescribeConfigs => "DescribeConfigs",
        }
    }

    /// Returns the operation with the code `code` in Kafka's protocol, or `None` if no role needs the operation.
    fn of_code(code: u32) -> Option<Operation> {
        use rdsys::rd_kafka_AclOperation_t as Acl;
        [
            (Acl::RD_KAFKA_ACL_OPERATION_READ, Operation::Read),
            (Acl::RD_KAFKA_ACL_OPERATION_WRITE, Operation::Write),
            (Acl::RD_KAFKA_ACL_OPERATION_CREATE, Operation::Create),
            (Acl::RD_KAFKA_ACL_OPERATION_DELETE, Operation::Delete),
            (Acl::RD_KAFKA_ACL_OPERATION_DESCRIBE, Operation::Describe),
            (
                Acl::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
                Operation::DescribeConfigs,
            ),
        ]
        .into_iter()
        .find(|(known, _)| *known as u32 == code)
        .map(|(_, operation)| operation)
    }
}

/// The rights of this client on a topic or a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The client may perform exactly the listed operations.
    Listed(BTreeSet<Operation>),
    /// The client may perform no operation at all, including Describe.
    Denied,
    /// The brokers do not report rights. Kafka before version 2.3 and emulators of Kafka do not report rights.
    Unsupported,
    /// The brokers did not answer.
    Unknown {
        /// The reason why the brokers did not answer.
        reason: String,
    },
}

/// Requests the id and the partition count of a topic. Returns `Ok(None)` if the topic does not exist.
///
/// The call sends two small requests, and blocks for at most one second plus two times `timeout`. `client` may belong
/// to a consumer, a producer or an admin client.
///
/// # Errors
/// See [`TopicError`].
pub fn topic_facts<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<TopicFacts>, TopicError> {
    let described = describe_topic(client, topic, timeout, false)?;
    Ok(described.map(|(facts, _)| facts))
}

/// Requests the facts that [`topic_facts`] returns, together with the rights of this client on the topic.
///
/// # Errors
/// See [`TopicError`].
pub fn topic_facts_and_rights<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<(TopicFacts, Rights)>, TopicError> {
    let described = describe_topic(client, topic, timeout, true)?;
    Ok(described.map(|(facts, rights)| (facts, rights_of(rights))))
}

pub(super) fn rights_of(operations: Option<BTreeSet<Operation>>) -> Rights {
    match operations {
        Some(operations) => Rights::Listed(operations),
        None => Rights::Unsupported,
    }
}

pub(super) fn unknown(reason: &str) -> Rights {
    Rights::Unknown {
        reason: reason.to_owned(),
    }
}

type Described = (TopicFacts, Option<BTreeSet<Operation>>);

fn describe_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
    rights: bool,
) -> Result<Option<Described>, TopicError> {
    let unreachable = |reason: String| TopicError::Unreachable {
        topic: topic.to_owned(),
        reason,
    };
    let name =
        CString::new(topic).map_err(|_| unreachable("its name has a zero byte".to_owned()))?;
    let mut names = [name.as_ptr()];
    // SAFETY: the array `names` contains one NUL-terminated string, which librdkafka copies.
    let collection = Owned(
        unsafe { rdsys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()) },
        rdsys::rd_kafka_TopicCollection_destroy,
    );
    if collection.0.is_null() {
        return Err(unreachable("librdkafka is out of memory".to_owned()));
    }
    let question = Question {
        operation: rdsys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        timeout_ms: timeout_ms(timeout),
        // By default, librdkafka sends the request to the controller, but a mock cluster has no controller. Every
        // broker can describe a topic. The broker that has just answered is the most likely to answer again.
        broker: Some(brokers(client, timeout).map_err(unreachable)?.answering),
        rights,
    };
    let send = |rk, options, queue| {
        // SAFETY: all objects that the function `ask` passes to this closure are valid. librdkafka copies the topic
        // collection and the options.
        unsafe { rdsys::rd_kafka_DescribeTopics(rk, collection.0, options, queue) };
    };
    let read = |event| {
        // SAFETY: the pointer `event` is a valid event of librdkafka while this closure runs. For an event of another
        // type, librdkafka returns null. The description stays valid as long as `event` does.
        unsafe {
            let result = rdsys::rd_kafka_event_DescribeTopics_result(event);
            let description = single(result, rdsys::rd_kafka_DescribeTopics_result_topics)?;
            Ok(read_description(description, topic))
        }
    };
    ask(client, &question, send, read).map_err(unreachable)?
}

/// The parameters of a request to the brokers.
pub(super) struct Question {
    pub(super) operation: rdsys::rd_kafka_admin_op_t,
    pub(super) timeout_ms: c_int,
    /// The broker that receives the request. If the value is `None`, librdkafka chooses the broker.
    pub(super) broker: Option<i32>,
    /// True if the answer should include the rights of this client.
    pub(super) rights: bool,
}

/// Sends a request and waits for its answer. Returns the result of `read`.
///
/// `send` receives the client, the options and the queue, which stay valid while `send` runs. The librdkafka function
/// that `send` calls puts exactly one event into the queue. Until librdkafka has put the event into the queue,
/// librdkafka keeps its own reference to the queue. `read` receives the event, which stays valid while `read` runs.
pub(super) fn ask<C: ClientContext, T>(
    client: &Client<C>,
    question: &Question,
    send: impl FnOnce(
        *mut rdsys::rd_kafka_t,
        *const rdsys::rd_kafka_AdminOptions_t,
        *mut rdsys::rd_kafka_queue_t,
    ),
    read: impl FnOnce(*mut rdsys::rd_kafka_event_t) -> Result<T, String>,
) -> Result<T, String> {
    let rk = client.native_ptr();
    let options = make_options(client, question)?;
    // SAFETY: the pointer `rk` is valid while `client` is borrowed. The queue never yields a second event, because only
    // one request uses the queue.
    let queue = Owned(
        unsafe { rdsys::rd_kafka_queue_new(rk) },
        rdsys::rd_kafka_queue_destroy,
    );
    if queue.0.is_null() {
        return Err("librdkafka is out of memory".to_owned());
    }
    send(rk, options.0, queue.0);
    // SAFETY: `queue` is valid. If the answer arrives after the timeout, librdkafka destroys the answer together with
    // the queue.
    let event = Owned(
        unsafe { rdsys::rd_kafka_queue_poll(queue.0, question.timeout_ms + 1_000) },
        rdsys::rd_kafka_event_destroy,
    );
    if event.0.is_null() {
        return Err("no answer in time".to_owned());
    }
    // SAFETY: `event` is valid. The error text stays valid as long as the event does, and this block copies the text.
    unsafe {
        if rdsys::rd_kafka_event_error(event.0) != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(copy_text(rdsys::rd_kafka_event_error_string(event.0)));
        }
    }
    read(event.0)
}

/// Returns the options of a request in the form that librdkafka expects.
fn make_options<C: ClientContext>(
    client: &Client<C>,
    question: &Question,
) -> Result<Owned<rdsys::rd_kafka_AdminOptions_t>, String> {
    // SAFETY: the client stays valid while it is borrowed.
    let options = Owned(
        unsafe { rdsys::rd_kafka_AdminOptions_new(client.native_ptr(), question.operation) },
        rdsys::rd_kafka_AdminOptions_destroy,
    );
    if options.0.is_null() {
        return Err("librdkafka is out of memory".to_owned());
    }
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: `options` is valid. The call receives the buffer `text` together with the length of the buffer.
    let error = unsafe {
        rdsys::rd_kafka_AdminOptions_set_request_timeout(
            options.0,
            question.timeout_ms,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    if error != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err("librdkafka refuses the timeout".to_owned());
    }
    if let Some(broker) = question.broker {
        // SAFETY: `options` is valid. The call receives the buffer `text` together with the length of the buffer.
        let error = unsafe {
            rdsys::rd_kafka_AdminOptions_set_broker(
                options.0,
                broker,
                text.as_mut_ptr(),
                text.len(),
            )
        };
        if error != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err("librdkafka refuses the broker".to_owned());
        }
    }
    if question.rights {
        // SAFETY: `options` is valid. The call returns null or an error, and this block destroys the error.
        let error = Owned(
            unsafe { rdsys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1) },
            rdsys::rd_kafka_error_destroy,
        );
        if !error.0.is_null() {
            return Err("librdkafka cannot ask for rights".to_owned());
        }
    }
    Ok(options)
}

/// Returns the description from an answer that must contain exactly one description.
///
/// # Safety
/// `result` must be null or a valid argument of `list`.
pub(super) unsafe fn single<R, T>(
    result: *const R,
    list: unsafe extern "C" fn(*const R, *mut usize) -> *mut *const T,
) -> Result<*const T, String> {
    if result.is_null() {
        return Err("the answer is for another request".to_owned());
    }
    let mut count = 0;
    // SAFETY: the caller guarantees that `result` is valid. The call sets `count` to the length of the array.
    let found = unsafe { list(result, &raw mut count) };
    if found.is_null() || count != 1 {
        return Err(format!(
            "the answer has {count} descriptions instead of one"
        ));
    }
    // SAFETY: the array contains exactly one element.
    Ok(unsafe { *found })
}

/// Reads an array of operations. Returns `None` if the pointer is null. A null pointer means that the brokers do not
/// report rights.
///
/// # Safety
/// `codes` must be null or point to an array of `count` operations.
pub(super) unsafe fn read_operations(
    codes: *const rdsys::rd_kafka_AclOperation_t,
    count: usize,
) -> Option<BTreeSet<Operation>> {
    if codes.is_null() {
        return None;
    }
    // The code reads the operations as numbers, because an unknown number would be an invalid value of the Rust enum.
    // SAFETY: the caller guarantees that the array is valid. The enum has the same layout as `u32`.
    let codes = unsafe { std::slice::from_raw_parts(codes.cast::<u32>(), count) };
    Some(
        codes
            .iter()
            .filter_map(|c| Operation::of_code(*c))
            .collect(),
    )
}

/// Reads the description of one topic.
///
/// # Safety
/// `description` must point to a live `rd_kafka_TopicDescription_t`.
unsafe fn read_description(
    description: *const rdsys::rd_kafka_TopicDescription_t,
    topic: &str,
) -> Result<Option<Described>, TopicError> {
    // SAFETY: the caller guarantees that the description is valid. The returned objects stay valid as long as the
    // description does.
    let (code, reason, id, partitions, rights) = unsafe {
        let error = rdsys::rd_kafka_TopicDescription_error(description);
        let (code, reason) = if error.is_null() {
            (Code::RD_KAFKA_RESP_ERR_NO_ERROR, String::new())
        } else {
            let text = copy_text(rdsys::rd_kafka_error_string(error));
            (rdsys::rd_kafka_error_code(error), text)
        };
        let uuid = rdsys::rd_kafka_TopicDescription_topic_id(description);
        let id = if uuid.is_null() {
            None
        } else {
            TopicId::from_bits(
                rdsys::rd_kafka_Uuid_most_significant_bits(uuid),
                rdsys::rd_kafka_Uuid_least_significant_bits(uuid),
            )
        };
        let mut partitions = 0;
        rdsys::rd_kafka_TopicDescription_partitions(description, &raw mut partitions);
        let mut count = 0;
        let codes =
            rdsys::rd_kafka_TopicDescription_authorized_operations(description, &raw mut count);
        let rights = read_operations(codes, count);
        (code, reason, id, partitions, rights)
    };
    let topic = topic.to_owned();
    match code {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID => return Ok(None),
        Code::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE
        | Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
        | Code::RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE => {
            return Err(TopicError::Unreachable { topic, reason });
        }
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => {
            return Err(TopicError::Denied { topic, reason });
        }
        _ => return Err(TopicError::Refused { topic, reason }),
    }
    let Some(id) = id else {
        return Err(TopicError::NoId { topic });
    };
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    Ok(Some((TopicFacts { id, partitions }, rights)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::mocking::MockCluster;

    fn consumer(brokers: &str) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", "g")
            .set_log_level(rdkafka::config::RDKafkaLogLevel::Emerg)
            .create()
            .unwrap()
    }

    #[test]
    fn every_topic_has_its_own_id_in_kafkas_form() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("a", 6, 1).unwrap();
        cluster.create_topic("b", 2, 1).unwrap();
        let consumer = consumer(&cluster.bootstrap_servers());
        let facts = |topic| topic_facts(consumer.client(), topic, Duration::from_secs(10)).unwrap();
        let (a, b) = (facts("a").unwrap(), facts("b").unwrap());
        assert_eq!((a.partitions, b.partitions), (6, 2));
        assert_ne!(a.id, b.id);
        assert_eq!(facts("a"), Some(a.clone()));
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(a.id.as_str().len() == 22 && a.id.as_str().chars().all(legal));
        assert_eq!(facts("missing"), None);
    }

    #[test]
    fn unreachable_brokers_are_not_a_missing_topic() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let consumer = consumer(&address);
        let error = topic_facts(consumer.client(), "a", Duration::from_millis(200))
            .expect_err("nobody there");
        assert!(matches!(error, TopicError::Unreachable { .. }), "{error}");
    }
}
