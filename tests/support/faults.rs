//! Faults of requests to DynamoDB, drawn from a seed.
//!
//! A client inside a test's process (`tests/it/faulty.rs`) and a proxy in front of a real table
//! (`tests/real/proxy.rs`) apply them. They throttle, answer 500, leave parts of a batch unprocessed, are slow, lose
//! the request or its response, let a write land after its sender has given up, or are silent.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// A fault of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Throttled,
    ServerError,
    LostRequest,
    LostAnswer,
    LandsLate,
    Unprocessed,
    Slow,
}

const FAULTS: [Fault; 7] = [
    Fault::Throttled,
    Fault::ServerError,
    Fault::LostRequest,
    Fault::LostAnswer,
    Fault::LandsLate,
    Fault::Unprocessed,
    Fault::Slow,
];

/// Shared between a test and the code that breaks its requests.
#[derive(Debug)]
pub(crate) struct Faults {
    state: Mutex<u64>,
    per_cent: AtomicU32,
    held: AtomicBool,
    poison: Mutex<Option<String>>,
    seen: [AtomicU64; FAULTS.len()],
}

impl Faults {
    /// Breaks `per_cent` of all requests. `seed` decides which.
    pub(crate) fn new(seed: u64, per_cent: u32) -> Arc<Faults> {
        Arc::new(Faults {
            state: Mutex::new(seed),
            per_cent: AtomicU32::new(per_cent),
            held: AtomicBool::new(false),
            poison: Mutex::new(None),
            seen: Default::default(),
        })
    }

    /// With `true`, nothing is answered from now on, until a call with `false`.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
    }

    /// Waits while nothing is answered.
    pub(crate) async fn held(&self) {
        while self.held.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Refuses every batch that contains this text as invalid from now on.
    pub(crate) fn refuse(&self, text: &str) {
        *self.poison.lock().unwrap() = Some(text.to_owned());
    }

    /// Returns whether a batch must be refused as invalid.
    pub(crate) fn refuses(&self, body: &[u8]) -> bool {
        let body = String::from_utf8_lossy(body);
        let poison = self.poison.lock().unwrap();
        poison.as_ref().is_some_and(|text| body.contains(text))
    }

    /// Returns how often each fault happened.
    pub(crate) fn seen(&self) -> Vec<(Fault, u64)> {
        let count = |(f, n): (&Fault, &AtomicU64)| (*f, n.load(Ordering::SeqCst));
        FAULTS.iter().zip(&self.seen).map(count).collect()
    }

    /// SplitMix64.
    pub(crate) fn draw(&self) -> u64 {
        let mut state = self.state.lock().unwrap();
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Draws a time shorter than `ms_max` milliseconds.
    pub(crate) fn pause(&self, ms_max: u64) -> Duration {
        Duration::from_millis(self.draw() % ms_max)
    }

    /// Draws the fault of the next request.
    pub(crate) fn pick(&self, batch: bool) -> Option<Fault> {
        if self.draw() % 100 >= u64::from(self.per_cent.load(Ordering::SeqCst)) {
            return None;
        }
        let at = usize::try_from(self.draw() % FAULTS.len() as u64).unwrap();
        if FAULTS[at] == Fault::Unprocessed && !batch {
            return None;
        }
        self.seen[at].fetch_add(1, Ordering::SeqCst);
        Some(FAULTS[at])
    }

    /// Removes puts from a batch, but never all of them. Returns the rest, and the removed puts.
    pub(crate) fn leave_out(&self, body: &[u8]) -> (Vec<u8>, Value) {
        let mut body: Value = serde_json::from_slice(body).unwrap();
        let mut left = json!({});
        for (table, puts) in body["RequestItems"].as_object_mut().unwrap() {
            let puts = puts.as_array_mut().unwrap();
            let keep = 1 + usize::try_from(self.draw()).unwrap() % puts.len();
            if keep < puts.len() {
                left[table] = puts.drain(keep..).collect();
            }
        }
        (body.to_string().into_bytes(), left)
    }
}

/// Returns the response to a batch with the removed puts as unprocessed.
pub(crate) fn with_unprocessed(answer: &[u8], left: Value) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(answer).unwrap();
    // An error has no unprocessed items.
    if body.get("UnprocessedItems").is_some() {
        body["UnprocessedItems"] = left;
    }
    body.to_string().into_bytes()
}

/// Returns the body of an error.
pub(crate) fn refusal(code: &str) -> Vec<u8> {
    let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
    let body = json!({"__type": kind, "message": "made up by a test"});
    body.to_string().into_bytes()
}
