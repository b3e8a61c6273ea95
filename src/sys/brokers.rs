//! Finds a broker that answers, and finds out whether the cluster has a controller. Only the controller of a cluster
//! creates topics.
//!
//! librdkafka sends requests about topics to the controller, and waits until the cluster has a controller. However,
//! every broker can answer requests about topics, and a mock cluster never has a controller.

use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka_sys as rdsys;
use rdsys::rd_kafka_resp_err_t as Code;

use super::{copy_text, timeout_ms};

/// Facts about the cluster, as one broker reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brokers {
    /// The id of the broker that answered. If the broker list does not contain this broker, the field contains the id
    /// of another broker in the list.
    pub answering: i32,
    /// True if the cluster has a controller.
    pub has_controller: bool,
}

/// Requests the list of brokers from any broker. The call blocks for at most `timeout`.
///
/// # Errors
/// Returns a message if no broker answers in time.
pub fn brokers<C: ClientContext>(client: &Client<C>, timeout: Duration) -> Result<Brokers, String> {
    let rk = client.native_ptr();
    let mut metadata: *const rdsys::rd_kafka_metadata = std::ptr::null();
    // SAFETY: the client stays valid while it is borrowed. The call sets `metadata`, unless the call returns an error.
    // With the arguments zero and null, the request names only topics that this client already uses. A request for any
    // other topic could make the brokers create the topic.
    let error = unsafe {
        let (all, topic, timeout) = (0, std::ptr::null_mut(), timeout_ms(timeout));
        rdsys::rd_kafka_metadata(rk, all, topic, &raw mut metadata, timeout)
    };
    if error != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
        // SAFETY: the text of an error code is a constant in librdkafka.
        return Err(unsafe { copy_text(rdsys::rd_kafka_err2str(error)) });
    }
    if metadata.is_null() {
        return Err("the answer is empty".to_owned());
    }
    // SAFETY: the pointer `metadata` is valid until this block destroys the metadata. The array `brokers` has
    // `broker_cnt` elements.
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
    // SAFETY: the client is valid. The call does not block, because librdkafka has already stored the id of the
    // controller.
    let controller = unsafe { rdsys::rd_kafka_controllerid(rk, 0) };
    let answered = Some(answered).filter(|id| all.contains(id));
    let answering = answered.or_else(|| all.first().copied());
    Ok(Brokers {
        answering: answering.ok_or_else(|| "the answer names no broker".to_owned())?,
        has_controller: all.contains(&controller),
    })
}
