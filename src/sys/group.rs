//! What the brokers say about a consumer group: its members, and what this client may do with it.
//!
//! Both group protocols are asked about. DescribeGroups, which the safe wrapper sends, shows a group of
//! the newer protocol as an empty one.

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;
use rdsys::rd_kafka_resp_err_t as Code;

use super::copy_text;
use super::describe::{Question, Rights, ask, only, read_operations, timeout_ms, told, unknown};

/// Time between two questions to a coordinator that is not there yet.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Each as `client id (host)`.
    pub names: Vec<String>,
    /// The group uses the protocol of Kafka 4 (`group.protocol=consumer`).
    pub is_newer: bool,
}

/// Why the members of a group are not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersError {
    /// These brokers do not answer such questions.
    Untold,
    /// No usable answer.
    Failed(String),
}

/// What a group's coordinator is asked for.
type Description = *const rdsys::rd_kafka_ConsumerGroupDescription_t;

/// Asks the group's coordinator what this client may do with a group, which need not exist.
///
/// Blocks for at most twice `timeout` and a second: where nobody has used a group yet, the coordinators
/// are only made by asking for one.
pub fn group_rights<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Rights {
    // SAFETY: `describe` hands over a live description; `count` is set to the length of the array.
    let read = |description: Description| unsafe {
        let mut count = 0;
        let codes = rdsys::rd_kafka_ConsumerGroupDescription_authorized_operations(
            description,
            &raw mut count,
        );
        told(read_operations(codes, count))
    };
    match describe(client, group, timeout, true, read) {
        Ok(Ok(rights)) => rights,
        Ok(Err(Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)) => Rights::Denied,
        Ok(Err(Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE)) => Rights::Untold,
        Ok(Err(code)) => unknown(&words(code)),
        Err(reason) => unknown(&reason),
    }
}

/// Asks the group's coordinator for the members of a group, which need not exist.
///
/// Blocks for at most twice `timeout` and a second.
///
/// # Errors
/// See [`MembersError`].
pub fn group_members<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Members, MembersError> {
    match describe(client, group, timeout, false, read_members) {
        Ok(Ok(members)) => Ok(members),
        Ok(Err(Code::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND)) => Ok(Members::default()),
        Ok(Err(Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE)) => Err(MembersError::Untold),
        Ok(Err(code)) => Err(MembersError::Failed(words(code))),
        Err(reason) => Err(MembersError::Failed(reason)),
    }
}

fn read_members(description: Description) -> Members {
    // SAFETY: `describe` hands over a live description; its members and their texts live as long as it,
    // and each index is below the count.
    unsafe {
        let count = rdsys::rd_kafka_ConsumerGroupDescription_member_count(description);
        let members = (0..count)
            .map(|index| rdsys::rd_kafka_ConsumerGroupDescription_member(description, index));
        let names = members.map(|member| {
            let client_id = copy_text(rdsys::rd_kafka_MemberDescription_client_id(member));
            let host = copy_text(rdsys::rd_kafka_MemberDescription_host(member));
            format!("{client_id} ({host})")
        });
        let newer = rdsys::rd_kafka_consumer_group_type_t::RD_KAFKA_CONSUMER_GROUP_TYPE_CONSUMER;
        Members {
            names: names.collect(),
            is_newer: rdsys::rd_kafka_ConsumerGroupDescription_type(description) == newer,
        }
    }
}

fn words(code: Code) -> String {
    // SAFETY: the text of a code is a constant of librdkafka's.
    unsafe { copy_text(rdsys::rd_kafka_err2str(code)) }
}

/// Asks until a coordinator answers, for at most `timeout`.
fn describe<C: ClientContext, T>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
    rights: bool,
    read: impl Fn(Description) -> T,
) -> Result<Result<T, Code>, String> {
    let name = CString::new(group).map_err(|_| "its name holds a zero byte".to_owned())?;
    let begin = Instant::now();
    loop {
        match describe_once(client, &name, timeout, rights, &read)? {
            Err(code) if is_passing(code) && begin.elapsed() < timeout => {
                std::thread::sleep(RETRY_PAUSE);
            }
            answer => return Ok(answer),
        }
    }
}

/// Tells whether a coordinator is in the making, or has just moved.
fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE
            | Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS
            | Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR
    )
}

/// Returns what the group's coordinator says of it, or its error code.
fn describe_once<C: ClientContext, T>(
    client: &Client<C>,
    name: &CStr,
    timeout: Duration,
    rights: bool,
    read: &impl Fn(Description) -> T,
) -> Result<Result<T, Code>, String> {
    let question = Question {
        operation: rdsys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
        timeout_ms: timeout_ms(timeout),
        broker: None,
        rights,
    };
    let send = |rk, options, queue| {
        let mut names = [name.as_ptr()];
        // SAFETY: `ask` hands over live objects; `names` holds one NUL-terminated string, which the
        // function copies.
        unsafe {
            rdsys::rd_kafka_DescribeConsumerGroups(
                rk,
                names.as_mut_ptr(),
                names.len(),
                options,
                queue,
            );
        }
    };
    let read_event = |event| {
        // SAFETY: `event` is live while this runs; null is returned for an event of another type. The
        // description lives as long as `event`, and so does its error.
        unsafe {
            let result = rdsys::rd_kafka_event_DescribeConsumerGroups_result(event);
            let group = only(result, rdsys::rd_kafka_DescribeConsumerGroups_result_groups)?;
            let error = rdsys::rd_kafka_ConsumerGroupDescription_error(group);
            if !error.is_null() {
                return Ok(Err(rdsys::rd_kafka_error_code(error)));
            }
            Ok(Ok(read(group)))
        }
    };
    ask(client, &question, send, read_event)
}
