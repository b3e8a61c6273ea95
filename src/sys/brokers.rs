//! Asks which broker answers, and whether the cluster has a controller, which creates topics.
//!
//! librdkafka sends questions about topics to the controller, and waits until there is one. But every
//! broker knows the answer, and a mock cluster never has a controller.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;
use rdsys::rd_kafka_resp_err_t as Code;

use super::copy_text;
use super::describe::timeout_ms;

/// What a broker reports about the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brokers {
    /// Id of the broker that answered, or of another one if that broker is not in the list.
    pub answering: i32,
    /// The cluster has a controller.
    pub has_controller: bool,
}

/// Asks any broker for the list of brokers. Blocks for at most `timeout`.
///
/// # Errors
/// A message if no broker answers in time.
pub fn brokers<C: ClientContext>(client: &Client<C>, timeout: Duration) -> Result<Brokers, String> {
    let rk = client.native_ptr();
    let mut metadata: *const rdsys::rd_kafka_metadata = std::ptr::null();
    // SAFETY: the client is live while it is borrowed. `metadata` is set unless an error is returned.
    // With zero and null the request names only topics that this client uses already. Naming another
    // topic could create it.
    let error = unsafe {
        let (all, topic, timeout) = (0, std::ptr::null_mut(), timeout_ms(timeout));
        rdsys::rd_kafka_metadata(rk, all, topic, &raw mut metadata, timeout)
    };
    if error != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        // SAFETY: the text of a code is a constant of librdkafka.
        return Err(unsafe { copy_text(rdsys::rd_kafka_err2str(error)) });
    }
    if metadata.is_null() {
        return Err("the answer is empty".to_owned());
    }
    // SAFETY: `metadata` is live until it is destroyed here. `brokers` has `broker_cnt` elements.
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
    // SAFETY: the client is live. The call does not wait, because librdkafka has just stored the answer.
    let controller = unsafe { rdsys::rd_kafka_controllerid(rk, 0) };
    let answered = Some(answered).filter(|id| all.contains(id));
    let answering = answered.or_else(|| all.first().copied());
    Ok(Brokers {
        answering: answering.ok_or_else(|| "the answer names no broker".to_owned())?,
        has_controller: all.contains(&controller),
    })
}
