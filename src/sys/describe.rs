//! What the brokers say about topics: which log a topic is, and what this client may do.
//!
//! librdkafka follows a topic that was made again under the same name without a word, and its safe
//! wrapper has no DescribeTopics. Each question is one small request (and one
//! before it that finds a broker that answers), changes nothing and is answered or given up in time.

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;
use rdsys::rd_kafka_resp_err_t as Code;

use super::brokers::brokers;
use super::topic_id::TopicId;
use super::{Owned, copy_text};

/// What the brokers say about a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its id; changes when the topic is deleted and made again.
    pub id: TopicId,
    /// Number of its partitions.
    pub partitions: i32,
}

/// Why a topic could not be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No usable answer in time; asking again may help.
    #[error("failed to ask Kafka about topic {topic}: {reason}")]
    Unreachable {
        /// The topic.
        topic: String,
        /// librdkafka's words.
        reason: String,
    },
    /// This client has no right on the topic, not even to see it.
    #[error("Kafka refuses to describe topic {topic}: {reason}")]
    Denied {
        /// The topic.
        topic: String,
        /// The brokers' words.
        reason: String,
    },
    /// The brokers refused the question for another reason.
    #[error("Kafka refuses to describe topic {topic}: {reason}")]
    Refused {
        /// The topic.
        topic: String,
        /// The brokers' words.
        reason: String,
    },
    /// The topic has no id: brokers before Kafka 2.8, or without KRaft or inter-broker protocol 2.8.
    #[error("topic {topic} has no id; the brokers must run Kafka 2.8 or later")]
    NoId {
        /// The topic.
        topic: String,
    },
}

/// Something that rights are given for, as far as any role needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Fetch records; for a group, join it and commit.
    Read,
    /// Send records; for a transactional id, use it.
    Write,
    /// Make a topic.
    Create,
    /// Delete a topic.
    Delete,
    /// See that it is there.
    Describe,
    /// See its settings.
    DescribeConfigs,
}

impl Operation {
    /// Returns the name that Kafka's tool for rights knows it by.
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

    /// Returns the operation of one of Kafka's codes; `None` for those that no role needs.
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

/// What this client may do with a topic or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// These, and nothing else.
    Told(BTreeSet<Operation>),
    /// Nothing, not even see it.
    Denied,
    /// These brokers tell nobody: Kafka before 2.3, and what only speaks like Kafka.
    Untold,
    /// No answer.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// Asks the brokers for a topic's id and partition count; `Ok(None)` if they know no such topic.
///
/// Blocks for at most twice `timeout` (and a second), for two small requests. Works with the client of
/// any consumer, producer or admin client.
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

/// Asks as [`topic_facts`] does, and in the same question what this client may do with the topic.
///
/// # Errors
/// See [`TopicError`].
pub fn topic_facts_and_rights<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<(TopicFacts, Rights)>, TopicError> {
    let described = describe_topic(client, topic, timeout, true)?;
    Ok(described.map(|(facts, rights)| (facts, told(rights))))
}

pub(super) fn told(operations: Option<BTreeSet<Operation>>) -> Rights {
    match operations {
        Some(operations) => Rights::Told(operations),
        None => Rights::Untold,
    }
}

pub(super) fn unknown(reason: &str) -> Rights {
    Rights::Unknown {
        reason: reason.to_owned(),
    }
}

pub(super) fn timeout_ms(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis())
        .unwrap_or(c_int::MAX - 1_000)
        .clamp(1, c_int::MAX - 1_000)
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
        CString::new(topic).map_err(|_| unreachable("its name holds a zero byte".to_owned()))?;
    let mut names = [name.as_ptr()];
    // SAFETY: `names` holds one NUL-terminated string, which the function copies.
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
        // librdkafka would ask the controller. Any broker knows, and the one that has just answered is
        // the one most likely to again (librdkafka's mock cluster names a controller it does not have).
        broker: Some(brokers(client, timeout).map_err(unreachable)?.answering),
        rights,
    };
    let send = |rk, options, queue| {
        // SAFETY: `ask` hands over live objects; the call copies collection and options.
        unsafe { rdsys::rd_kafka_DescribeTopics(rk, collection.0, options, queue) };
    };
    let read = |event| {
        // SAFETY: `event` is live while this runs; null is returned for an event of another type. The
        // description lives as long as `event`.
        unsafe {
            let result = rdsys::rd_kafka_event_DescribeTopics_result(event);
            let description = only(result, rdsys::rd_kafka_DescribeTopics_result_topics)?;
            Ok(read_description(description, topic))
        }
    };
    ask(client, &question, send, read).map_err(unreachable)?
}

/// How something is asked.
pub(super) struct Question {
    pub(super) operation: rdsys::rd_kafka_admin_op_t,
    pub(super) timeout_ms: c_int,
    /// Who is asked; `None` leaves it to librdkafka.
    pub(super) broker: Option<i32>,
    /// Whether the answer is to tell what this client may do.
    pub(super) rights: bool,
}

/// Asks, waits for the one event that answers, and returns what `read` makes of it.
///
/// `send` gets the client, the options and the queue, all live while it runs; what it calls keeps its
/// own reference to the queue until it has put exactly one event there. `read` gets that event, live
/// while it runs. An error is librdkafka's words, or ours.
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
    // SAFETY: `rk` is a live client for as long as `client` is borrowed.
    let options = Owned(
        unsafe { rdsys::rd_kafka_AdminOptions_new(rk, question.operation) },
        rdsys::rd_kafka_AdminOptions_destroy,
    );
    // SAFETY: as above. A queue of our own, so that no other event can come out of it.
    let queue = Owned(
        unsafe { rdsys::rd_kafka_queue_new(rk) },
        rdsys::rd_kafka_queue_destroy,
    );
    if options.0.is_null() || queue.0.is_null() {
        return Err("librdkafka is out of memory".to_owned());
    }
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: `options` is live; `text` is writable for the length given.
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
        // SAFETY: as for the timeout.
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
        // SAFETY: `options` is live; what is returned is null or an error to be destroyed.
        let error = Owned(
            unsafe { rdsys::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1) },
            rdsys::rd_kafka_error_destroy,
        );
        if !error.0.is_null() {
            return Err("librdkafka cannot ask for rights".to_owned());
        }
    }
    send(rk, options.0, queue.0);
    // SAFETY: `queue` is live. A late event goes with the queue when that is destroyed.
    let event = Owned(
        unsafe { rdsys::rd_kafka_queue_poll(queue.0, question.timeout_ms + 1_000) },
        rdsys::rd_kafka_event_destroy,
    );
    if event.0.is_null() {
        return Err("no answer in time".to_owned());
    }
    // SAFETY: `event` is live; its error text lives as long as it and is copied here.
    unsafe {
        if rdsys::rd_kafka_event_error(event.0) != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(copy_text(rdsys::rd_kafka_event_error_string(event.0)));
        }
    }
    read(event.0)
}

/// Returns the one description that an answer holds.
///
/// # Safety
/// `result` is null or what `list` lists.
pub(super) unsafe fn only<R, T>(
    result: *const R,
    list: unsafe extern "C" fn(*const R, *mut usize) -> *mut *const T,
) -> Result<*const T, String> {
    if result.is_null() {
        return Err("an answer to another question".to_owned());
    }
    let mut count = 0;
    // SAFETY: the caller's promise; `count` is set to the length of the array.
    let found = unsafe { list(result, &raw mut count) };
    if found.is_null() || count != 1 {
        return Err(format!("an answer about {count} instead of one"));
    }
    // SAFETY: the array has one element.
    Ok(unsafe { *found })
}

/// Reads an array of operations; `None` for null, which stands for nothing told.
///
/// # Safety
/// `codes` is null or an array of `count` operations.
pub(super) unsafe fn read_operations(
    codes: *const rdsys::rd_kafka_AclOperation_t,
    count: usize,
) -> Option<BTreeSet<Operation>> {
    if codes.is_null() {
        return None;
    }
    // As numbers: one that this version of librdkafka does not know would be no value of the enum.
    // SAFETY: the caller's promise; the enum has the size and form of a u32.
    let codes = unsafe { std::slice::from_raw_parts(codes.cast::<u32>(), count) };
    Some(
        codes
            .iter()
            .filter_map(|c| Operation::of_code(*c))
            .collect(),
    )
}

/// Reads one description.
///
/// # Safety
/// `description` points to a live `rd_kafka_TopicDescription_t`.
unsafe fn read_description(
    description: *const rdsys::rd_kafka_TopicDescription_t,
    topic: &str,
) -> Result<Option<Described>, TopicError> {
    // SAFETY: the caller's promise; what the calls return lives as long as the description.
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
    fn b8_a_topic_has_an_id_in_kafkas_form_and_each_its_own() {
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
    fn brokers_that_are_away_are_not_a_missing_topic() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let consumer = consumer(&address);
        let error = topic_facts(consumer.client(), "a", Duration::from_millis(200))
            .expect_err("nobody there");
        assert!(matches!(error, TopicError::Unreachable { .. }), "{error}");
    }
}
