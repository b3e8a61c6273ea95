//! Builds requests for webhooks in the format of [Standard Webhooks](https://www.standardwebhooks.com).

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use url::Url;

use crate::core::clock::UnixMs;
use crate::core::incident::message::Message;

use super::{Request, seconds};

/// Returns the request for a webhook. The request contains a signature of the body for each key in `keys`. During a key
/// renewal, a receiver can verify the message with the old key or with the new key.
pub fn request(
    url: Url,
    keys: &[Vec<u8>],
    token: Option<&str>,
    message: &Message<'_>,
    now_ms: UnixMs,
) -> Request {
    let mut request = Request::json(url, token, &message.body());
    let (id, timestamp) = (message.id(), seconds(now_ms).to_string());
    let signatures: Vec<String> = keys
        .iter()
        .map(|key| sign(key, &id, &timestamp, &request.body))
        .collect();
    request.headers.push(("webhook-id", id));
    request.headers.push(("webhook-timestamp", timestamp));
    if !signatures.is_empty() {
        let signatures = signatures.join(" ");
        request.headers.push(("webhook-signature", signatures));
    }
    request
}

/// Returns the signature of `<id>.<timestamp>.<body>`.
///
/// # Panics
/// Never panics, because HMAC accepts keys of every length.
pub fn sign(key: &[u8], id: &str, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in [id, ".", timestamp, ".", body] {
        mac.update(part.as_bytes());
    }
    let signature = mac.finalize().into_bytes();
    let encoded = base64::engine::general_purpose::STANDARD.encode(signature);
    format!("v1,{encoded}")
}
