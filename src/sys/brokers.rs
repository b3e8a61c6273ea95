//! Which broker answers, and whether there is a controller, the one that makes topics.
//!
//! librdkafka sends questions about topics to the controller and waits for it to come, where any broker
//! knows the answer, and where none ever comes: its mock cluster names a controller it does not have.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;
use rdsys::rd_kafka_resp_err_t as Code;

use super::copy_text;
use super::describe::timeout_ms;

/// What a broker says of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brokers {
    /// The id of the broker that answered, or of another.
    pub answering: i32,
    /// There is a controller.
    pub has_controller: bool,
}

/// Asks any broker about all brokers, and about no topic. Blocks for at most `timeout`.
///
/// # Errors
/// librdkafka's words, or ours, where none answers in time.
pub fn brokers<C: ClientContext>(client: &Client<C>, timeout: Duration) -> Result<Brokers, String> {
    let rk = client.native_ptr();
    let mut metadata: *const rdsys::rd_kafka_metadata = std::ptr::null();
    // SAFETY: the client is live while it is borrowed; `metadata` is set where no error is returned.
    // Zero and null: only topics this client uses already, so that none is made by asking.
    let error = unsafe {
        let (all, topic, timeout) = (0, std::ptr::null_mut(), timeout_ms(timeout));
        rdsys::rd_kafka_metadata(rk, all, topic, &raw mut metadata, timeout)
    };
    if error != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        // SAFETY: the text of a code is a constant of librdkafka's.
        return Err(unsafe { copy_text(rdsys::rd_kafka_err2str(error)) });
    }
    if metadata.is_null() {
        return Err("an answer without content".to_owned());
    }
    // SAFETY: `metadata` is live until it is destroyed here; `brokers` has `broker_cnt` elements.
    let (answered, all) = unsafe {
        let found = &*metadata;
        let brokers: &[rdsys::rd_kafka_metadata_broker] = if found.brokers.is_null() {
            &[]
        } else {
            let count = usize::try_from(found.broker_cnt).unwrap_or(0);
            std::slice::from_raw_parts(found.brokers, count)
        };
        let all: Vec<i32> = brokers.iter().map(|broker| broker.id).collect();
        let answered = found.orig_broker_id;
        rdsys::rd_kafka_metadata_destroy(metadata);
        (answered, all)
    };
    // SAFETY: the client is live. No time to wait: what was just answered is remembered.
    let controller = unsafe { rdsys::rd_kafka_controllerid(rk, 0) };
    let answered = Some(answered).filter(|id| all.contains(id));
    let answering = answered.or_else(|| all.first().copied());
    Ok(Brokers {
        answering: answering.ok_or_else(|| "the cluster names no broker".to_owned())?,
        has_controller: all.contains(&controller),
    })
}
