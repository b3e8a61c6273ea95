//! Reads facts about a consumer group from the brokers: its members, and the rights of this client.
//!
//! This module uses a request that works with both protocols for consumer groups. The safe API of rdkafka sends the
//! older request DescribeGroups. For a group that uses the newer protocol, the answer to DescribeGroups contains no
//! members.

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;
use rdsys::rd_kafka_resp_err_t as Code;

use super::describe::{Question, Rights, ask, read_operations, rights_of, single, unknown};
use super::{copy_text, timeout_ms};

/// Pause between two requests while the group does not have a coordinator yet.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The members of a consumer group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// The members of the group, each as `client id (host)`.
    pub names: Vec<String>,
    /// True if the group uses the protocol of Kafka 4 (`group.protocol=consumer`).
    pub is_newer: bool,
}

/// The reason why the members of a group are unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersError {
    /// The brokers do not support the request.
    Unsupported,
    /// The brokers gave no usable answer.
    Failed(String),
}

/// A pointer to librdkafka's description of a consumer group.
type Description = *const rdsys::rd_kafka_ConsumerGroupDescription_t;

/// Requests this client's rights on a consumer group from the group's coordinator. The group need not exist yet.
///
/// The call blocks for at most one second plus two times `timeout`. In a new cluster, the first request for a
/// coordinator makes Kafka create the internal topic that stores all consumer groups.
pub fn group_rights<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Rights {
    // SAFETY: `describe` passes a valid description. The call sets `count` to the length of the array.
    let read = |description: Description| unsafe {
        let mut count = 0;
        let codes = rdsys::rd_kafka_ConsumerGroupDescription_authorized_operations(
            description,
            &raw mut count,
        );
        rights_of(read_operations(codes, count))
    };
    match describe_group(client, group, timeout, true, read) {
        Ok(Ok(rights)) => rights,
        Ok(Err(Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)) => Rights::Denied,
        Ok(Err(Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE)) => Rights::Unsupported,
        Ok(Err(code)) => unknown(&message_of(code)),
        Err(reason) => unknown(&reason),
    }
}

/// Requests the members of a consumer group from the group's coordinator. The group need not exist yet.
///
/// The call blocks for at most one second plus two times `timeout`.
///
/// # Errors
/// See [`MembersError`].
pub fn group_members<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
) -> Result<Members, MembersError> {
    match describe_group(client, group, timeout, false, read_members) {
        Ok(Ok(members)) => Ok(members),
        Ok(Err(Code::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND)) => Ok(Members::default()),
        Ok(Err(Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE)) => Err(MembersError::Unsupported),
        Ok(Err(code)) => Err(MembersError::Failed(message_of(code))),
        Err(reason) => Err(MembersError::Failed(reason)),
    }
}

fn read_members(description: Description) -> Members {
    // SAFETY: `describe` passes a valid description. The members and their strings stay valid as long as the
    // description does. Each index is less than the number of members.
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

fn message_of(code: Code) -> String {
    // SAFETY: the text of an error code is a constant in librdkafka.
    unsafe { copy_text(rdsys::rd_kafka_err2str(code)) }
}

/// Repeats the request for the description of a group until the group's coordinator answers. Gives up after `timeout`.
fn describe_group<C: ClientContext, T>(
    client: &Client<C>,
    group: &str,
    timeout: Duration,
    rights: bool,
    read: impl Fn(Description) -> T,
) -> Result<Result<T, Code>, String> {
    let name = CString::new(group).map_err(|_| "its name has a zero byte".to_owned())?;
    let begin = Instant::now();
    loop {
        match describe_group_once(client, &name, timeout, rights, &read)? {
            Err(code) if is_transient(code) && begin.elapsed() < timeout => {
                std::thread::sleep(RETRY_PAUSE);
            }
            answer => return Ok(answer),
        }
    }
}

/// Returns true if the error says that the coordinator is starting, or has just moved to another broker.
fn is_transient(code: Code) -> bool {
    matches!(
        code,
        Code::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE
            | Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS
            | Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR
    )
}

/// Sends one request for the description of a group. Returns the answer, or the coordinator's error code.
fn describe_group_once<C: ClientContext, T>(
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
        // SAFETY: all objects that the function `ask` passes to this closure are valid. `names` contains one
        // NUL-terminated string, which librdkafka copies.
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
        // SAFETY: the pointer `event` is valid while this closure runs. For an event of another type, librdkafka
        // returns null. The description and its error stay valid as long as `event` does.
        unsafe {
            let result = rdsys::rd_kafka_event_DescribeConsumerGroups_result(event);
            let group = single(result, rdsys::rd_kafka_DescribeConsumerGroups_result_groups)?;
            let error = rdsys::rd_kafka_ConsumerGroupDescription_error(group);
            if !error.is_null() {
                return Ok(Err(rdsys::rd_kafka_error_code(error)));
            }
            Ok(Ok(read(group)))
        }
    };
    ask(client, &question, send, read_event)
}
