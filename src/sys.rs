//! The few foreign calls, each with its reason; the only unsafe code of the program.
//!
//! The C library's name service is told not to load plug-ins into a static binary, OpenSSL is held to
//! its threads, the process takes the open files it is allowed, and librdkafka is asked for topic ids
//! and its properties' names and given tokens, which its safe wrapper cannot. Nothing unsafe leaves this file: the public
//! functions take and return plain values, and every object of librdkafka's is destroyed on every path.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

use base64::Engine as _;
use rdkafka::TopicPartitionList;
use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;

/// Makes the C library resolve names from `/etc/hosts` and DNS only.
///
/// In a static binary glibc would otherwise load the host's name-service plug-ins named in
/// `/etc/nsswitch.conf`, and with them the host's libc, into this process, and crash. Must run
/// before the first name is resolved and before any other thread exists.
pub fn use_static_name_service() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
        }
        // SAFETY: both arguments are NUL-terminated constants that glibc parses and does not keep,
        // and main calls this before it starts a thread.
        let failed = unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
        debug_assert_eq!(failed, 0);
    }
}

/// Keeps OpenSSL from cleaning up behind itself when the process ends.
///
/// librdkafka's threads may still close their connections then, and would use what was freed. Must run
/// before OpenSSL is used for the first time.
pub fn keep_openssl_at_exit() {
    const OPENSSL_INIT_NO_ATEXIT: u64 = 0x0008_0000;
    unsafe extern "C" {
        fn OPENSSL_init_crypto(options: u64, settings: *const std::ffi::c_void) -> c_int;
    }
    // SAFETY: OpenSSL's documented first call; no settings.
    let done = unsafe { OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, std::ptr::null()) };
    debug_assert_eq!(done, 1);
}

/// Tells whether OpenSSL was built with threads. Without them its locks do nothing, and two
/// connections corrupt memory; `.cargo/config.toml` says how that comes about.
pub fn openssl_knows_threads() -> bool {
    unsafe extern "C" {
        fn CRYPTO_THREAD_get_current_id() -> libc::pthread_t;
    }
    // SAFETY: takes nothing and reads the thread's id, or is a constant 0 without threads.
    unsafe { CRYPTO_THREAD_get_current_id() != 0 }
}

/// Raises the number of files this process may have open to what the host allows it.
///
/// The customary 1,024 is fewer than the connections the server takes, so that stalled clients alone
/// could use them up. The standard library has no call for it.
pub fn raise_open_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls only read or write the one struct, which outlives them.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        tracing::debug!("failed to raise the limit of open files");
    }
}

/// Returns how many files this process may have open: now, and at most.
pub fn open_files() -> Option<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes the one struct, which outlives it.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 };
    known.then_some((limit.rlim_cur, limit.rlim_max))
}

/// Returns the names of librdkafka's properties that have a value of their own, so that a misspelt
/// one can be told from its nearest. The safe wrapper does not show them.
pub fn kafka_properties() -> Vec<String> {
    let mut out = Vec::new();
    // SAFETY: both objects are made, read and destroyed here; each dump is an array of as many
    // NUL-terminated strings as its count says, names and values by turns, and is freed with it.
    unsafe {
        let global = rdsys::rd_kafka_conf_new();
        let topic = rdsys::rd_kafka_topic_conf_new();
        let mut count = 0;
        let dump = rdsys::rd_kafka_conf_dump(global, &raw mut count);
        copy_names(dump, count, &mut out);
        rdsys::rd_kafka_conf_dump_free(dump, count);
        let dump = rdsys::rd_kafka_topic_conf_dump(topic, &raw mut count);
        copy_names(dump, count, &mut out);
        rdsys::rd_kafka_conf_dump_free(dump, count);
        rdsys::rd_kafka_topic_conf_destroy(topic);
        rdsys::rd_kafka_conf_destroy(global);
    }
    out
}

/// Copies every second string.
///
/// # Safety
/// `dump` is an array of `count` NUL-terminated strings.
unsafe fn copy_names(dump: *mut *const c_char, count: usize, out: &mut Vec<String>) {
    for at in (0..count).step_by(2) {
        // SAFETY: the caller's promise.
        out.push(unsafe { copy_text(*dump.add(at)) });
    }
}

/// Returns what the last fetch said a partition's log ends with; `None` before the first. Asks nobody.
/// The safe wrapper only has the call that asks.
pub fn known_log_end<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partition: i32,
) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client is live while it is borrowed; the name is NUL-terminated and only read, and
    // both numbers outlive the call.
    let error = unsafe {
        rdsys::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            name.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    let known = error == rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0;
    known.then_some(high)
}

/// Stops this process as Ctrl-Z would, and returns once it goes on.
///
/// For who catches that signal to put the terminal in order first. It is raised again with its
/// default effect, so that the system still ignores it where nobody could continue the process.
pub fn stop_here() {
    // SAFETY: both structs are plain data and outlive the calls; the former handler is put back.
    unsafe {
        let mut default: libc::sigaction = std::mem::zeroed();
        let mut former: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        if libc::sigaction(libc::SIGTSTP, &raw const default, &raw mut former) == 0 {
            libc::raise(libc::SIGTSTP);
            libc::sigaction(libc::SIGTSTP, &raw const former, std::ptr::null_mut());
        }
    }
}

/// Stops the job this process belongs to, as Ctrl-Z does where the terminal still listens to it.
pub fn stop_job() {
    // SAFETY: takes two numbers; 0 is the own process group.
    let sent = unsafe { libc::kill(0, libc::SIGTSTP) };
    debug_assert_eq!(sent, 0);
}

/// The signals that Ctrl-Z and `fg` send.
pub const STOP_AND_GO: [i32; 2] = [libc::SIGTSTP, libc::SIGCONT];

/// A topic's id in Kafka's own textual form: URL-safe base64 without padding, 22 characters.
///
/// librdkafka's own string of an id is standard base64 and differs where it has `+` or `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicId(String);

impl TopicId {
    /// Returns the id with these 128 bits; `None` for zero, which stands for no id.
    pub fn from_bits(most_significant: i64, least_significant: i64) -> Option<TopicId> {
        if most_significant == 0 && least_significant == 0 {
            return None;
        }
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&most_significant.to_be_bytes());
        bytes[8..].copy_from_slice(&least_significant.to_be_bytes());
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        Some(TopicId(text))
    }

    /// Returns the 22 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TopicId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

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
    /// The brokers refused the question, for example for lack of rights.
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

/// Asks the brokers for a topic's id and partition count; `Ok(None)` if they know no such topic.
///
/// Blocks for at most twice `timeout` (and a second), for two small requests. Works with the client of any consumer, producer or
/// admin client. Needed because librdkafka follows a topic that was made again under the same name
/// without a word, and its safe wrapper has no DescribeTopics.
///
/// # Errors
/// See [`TopicError`].
pub fn topic_facts<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<TopicFacts>, TopicError> {
    let unreachable = |reason: &str| TopicError::Unreachable {
        topic: topic.to_owned(),
        reason: reason.to_owned(),
    };
    let name = CString::new(topic).map_err(|_| unreachable("its name holds a zero byte"))?;
    let timeout_ms = c_int::try_from(timeout.as_millis())
        .unwrap_or(c_int::MAX - 1_000)
        .clamp(1, c_int::MAX - 1_000);
    let rk = client.native_ptr();
    let mut names = [name.as_ptr()];
    // SAFETY: `names` holds one NUL-terminated string, which the function copies.
    let collection = Owned(
        unsafe { rdsys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()) },
        rdsys::rd_kafka_TopicCollection_destroy,
    );
    let operation = rdsys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: `rk` is a live client for as long as `client` is borrowed.
    let options = Owned(
        unsafe { rdsys::rd_kafka_AdminOptions_new(rk, operation) },
        rdsys::rd_kafka_AdminOptions_destroy,
    );
    // SAFETY: as above. A queue of our own, so that no other event can come out of it.
    let queue = Owned(
        unsafe { rdsys::rd_kafka_queue_new(rk) },
        rdsys::rd_kafka_queue_destroy,
    );
    if options.0.is_null() || queue.0.is_null() || collection.0.is_null() {
        return Err(unreachable("librdkafka is out of memory"));
    }
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: `options` is live; `text` is writable for the length given.
    let error = unsafe {
        rdsys::rd_kafka_AdminOptions_set_request_timeout(
            options.0,
            timeout_ms,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    if error != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(unreachable("librdkafka refuses the timeout"));
    }
    // librdkafka would ask the controller. Any broker knows, and the one that has just answered is
    // the one most likely to again (librdkafka's mock cluster names a controller it does not have).
    let broker = answering_broker(rk, timeout_ms).map_err(|reason| unreachable(&reason))?;
    // SAFETY: as for the timeout.
    let error = unsafe {
        rdsys::rd_kafka_AdminOptions_set_broker(options.0, broker, text.as_mut_ptr(), text.len())
    };
    if error != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(unreachable("librdkafka refuses the broker"));
    }
    // SAFETY: all four are live; the call copies collection and options, and keeps its own
    // reference to the queue until it has put exactly one event there.
    unsafe { rdsys::rd_kafka_DescribeTopics(rk, collection.0, options.0, queue.0) };
    // SAFETY: `queue` is live. A late event goes with the queue when that is destroyed.
    let event = Owned(
        unsafe { rdsys::rd_kafka_queue_poll(queue.0, timeout_ms + 1_000) },
        rdsys::rd_kafka_event_destroy,
    );
    if event.0.is_null() {
        return Err(unreachable("no answer in time"));
    }
    // SAFETY: `event` is live; its error text lives as long as it and is copied here.
    unsafe {
        if rdsys::rd_kafka_event_error(event.0)
            != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            let reason = copy_text(rdsys::rd_kafka_event_error_string(event.0));
            return Err(unreachable(&reason));
        }
    }
    // SAFETY: `event` is live; null is returned for an event of another type.
    let result = unsafe { rdsys::rd_kafka_event_DescribeTopics_result(event.0) };
    if result.is_null() {
        return Err(unreachable("an answer to another question"));
    }
    let mut count = 0;
    // SAFETY: `result` is live as long as `event`; `count` is set to the length of the array.
    let topics = unsafe { rdsys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count) };
    if topics.is_null() || count != 1 {
        return Err(unreachable("an answer about another number of topics"));
    }
    // SAFETY: the array has one element, a description that lives as long as `event`.
    unsafe { read_description(*topics, topic) }
}

/// Gives a client a token for SASL/OAUTHBEARER that ends at `end_ms`, in Unix milliseconds.
///
/// The safe wrapper does so only for clients whose callbacks it serves, and an admin client is none.
///
/// # Errors
/// librdkafka's words, where the client logs in otherwise or the token is past its end.
pub fn set_token<C: ClientContext>(
    client: &Client<C>,
    token: &str,
    end_ms: i64,
) -> Result<(), String> {
    let token = CString::new(token).map_err(|e| e.to_string())?;
    let mut text: [c_char; 256] = [0; 256];
    // SAFETY: the client is live; all texts end in NUL and are copied; there are no extensions;
    // `text` is writable for the length given.
    let error = unsafe {
        rdsys::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            end_ms,
            c"citystream".as_ptr(),
            std::ptr::null_mut(),
            0,
            text.as_mut_ptr(),
            text.len(),
        )
    };
    if error == rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: librdkafka has written a text that ends in NUL.
    Err(unsafe { copy_text(text.as_ptr()) })
}

/// Asks for the brokers, no topics, and returns the id of the one that answered, or of another.
fn answering_broker(rk: *mut rdsys::rd_kafka_t, timeout_ms: c_int) -> Result<i32, String> {
    let mut metadata: *const rdsys::rd_kafka_metadata = std::ptr::null();
    // SAFETY: the caller's client is live; `metadata` is set where no error is returned. Zero and
    // null: only topics this client uses already, so that none is made by asking.
    let error = unsafe {
        rdsys::rd_kafka_metadata(rk, 0, std::ptr::null_mut(), &raw mut metadata, timeout_ms)
    };
    if error != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        // SAFETY: the text of a code is a constant of librdkafka's.
        return Err(unsafe { copy_text(rdsys::rd_kafka_err2str(error)) });
    }
    if metadata.is_null() {
        return Err("an answer without content".to_owned());
    }
    // SAFETY: `metadata` is live until it is destroyed below; `brokers` has `broker_cnt` elements.
    let id = unsafe {
        let found = &*metadata;
        let others = if found.brokers.is_null() {
            &[]
        } else {
            std::slice::from_raw_parts(
                found.brokers,
                usize::try_from(found.broker_cnt).unwrap_or(0),
            )
        };
        let known = |id: i32| others.iter().any(|broker| broker.id == id);
        let answered = Some(found.orig_broker_id).filter(|id| known(*id));
        let id = answered.or_else(|| others.first().map(|broker| broker.id));
        rdsys::rd_kafka_metadata_destroy(metadata);
        id
    };
    id.ok_or_else(|| "the cluster names no broker".to_owned())
}

/// Reads one description.
///
/// # Safety
/// `description` points to a live `rd_kafka_TopicDescription_t`.
unsafe fn read_description(
    description: *const rdsys::rd_kafka_TopicDescription_t,
    topic: &str,
) -> Result<Option<TopicFacts>, TopicError> {
    use rdsys::rd_kafka_resp_err_t as Code;
    // SAFETY: the caller's promise; what the calls return lives as long as the description.
    let (code, reason, id, partitions) = unsafe {
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
        (code, reason, id, partitions)
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
        _ => return Err(TopicError::Refused { topic, reason }),
    }
    let Some(id) = id else {
        return Err(TopicError::NoId { topic });
    };
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    Ok(Some(TopicFacts { id, partitions }))
}

/// Returns what stands beside a partition's committed offset, byte for byte; empty if nothing does.
///
/// Needed because the safe wrapper panics on metadata that is not UTF-8, and any tool can commit
/// such to our group.
pub fn commit_metadata(list: &TopicPartitionList, topic: &str, partition: i32) -> Vec<u8> {
    let Ok(topic) = CString::new(topic) else {
        return Vec::new();
    };
    // SAFETY: `list` owns a live list, and what is found in it lives as long; the metadata, if not
    // null, points to as many bytes as its size says, copied here.
    unsafe {
        let found =
            rdsys::rd_kafka_topic_partition_list_find(list.ptr(), topic.as_ptr(), partition);
        if found.is_null() || (*found).metadata.is_null() {
            return Vec::new();
        }
        let bytes = (*found).metadata.cast::<u8>();
        std::slice::from_raw_parts(bytes, (*found).metadata_size).to_vec()
    }
}

/// Copies a C string; "" for null.
///
/// # Safety
/// `text` is null or NUL-terminated.
unsafe fn copy_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}

/// An object of librdkafka's that is destroyed when it goes out of scope; may be null.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by the constructor that belongs to this destructor, and not shared.
            unsafe { (self.1)(self.0) }
        }
    }
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
    fn openssl_was_built_with_threads() {
        assert!(openssl_knows_threads());
    }

    #[test]
    fn librdkafka_names_its_properties() {
        let names = kafka_properties();
        // One of the client and one of a topic.
        for name in ["fetch.min.bytes", "request.required.acks"] {
            assert!(names.iter().any(|n| n == name), "{name}");
        }
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

    #[test]
    fn ids_are_url_safe_and_zero_is_none() {
        // 0xfbff… holds both characters in which the two alphabets differ.
        let id = TopicId::from_bits(-0x0400_0000_0000_0001, -1).unwrap();
        assert_eq!(id.as_str(), "-____________________w");
        assert_eq!(TopicId::from_bits(0, 0), None);
        let id = TopicId::from_bits(0, 1).unwrap();
        assert_eq!(id.as_str(), "AAAAAAAAAAAAAAAAAAAAAQ");
    }
}
