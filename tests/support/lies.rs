//! Responses that are not DynamoDB's, or that belong to another request, as from a broken proxy, load balancer or
//! emulator.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

/// What the sender receives instead of the truth. Unless stated otherwise, the request is not forwarded, and the
/// response's own checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// 200 without a body.
    Empty,
    /// 200 with an object that is not DynamoDB's.
    ForeignObject,
    /// A failed condition that shows another row, whose fence is far ahead.
    OtherRow,
    /// A failed condition that shows this row with a fence that could not have refused the update.
    OldFence,
    /// The response to another request.
    OtherAnswer,
    /// The response with one digit changed.
    FlippedByte,
    /// The response without its end.
    Truncated,
    /// 200 with an error in the body.
    ErrorInside,
    /// A part of a batch is returned under the name of another table. The rest is written.
    ForeignUnprocessed,
}

/// A response with the header `x-amz-crc32`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) checksum: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(status: u16, body: Vec<u8>) -> Answer {
        Answer {
            status,
            checksum: crc32fast::hash(&body).to_string(),
            body,
        }
    }
}

/// Responses kept per operation, for [`Lie::OtherAnswer`].
const KEPT_MAX: usize = 8;

/// Tells one kind of lie, and keeps true responses for it.
#[derive(Debug, Default)]
pub(crate) struct Liar {
    lie: Mutex<Option<(Lie, u64)>>,
    told: AtomicU64,
    /// For each operation, what each request was about, and its response.
    answers: Mutex<BTreeMap<String, Vec<(String, Answer)>>>,
}

impl Liar {
    /// Answers `per_cent` of the suitable requests with this lie from now on.
    pub(crate) fn tell(&self, lie: Lie, per_cent: u64) {
        *self.lie.lock().unwrap() = Some((lie, per_cent));
    }

    /// Returns how many lies were told.
    pub(crate) fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    /// Returns the lie for the next request, or `None`.
    pub(crate) fn pick(&self, draw: u64) -> Option<Lie> {
        let (lie, per_cent) = (*self.lie.lock().unwrap())?;
        (draw % 100 < per_cent).then_some(lie)
    }

    /// Keeps a true response.
    pub(crate) fn remember(&self, operation: &str, request: &[u8], answer: &Answer) {
        if answer.status != 200 {
            return;
        }
        let mut answers = self.answers.lock().unwrap();
        let kept = answers.entry(operation.to_owned()).or_default();
        kept.push((about(&parse(request)), answer.clone()));
        if kept.len() > KEPT_MAX {
            kept.remove(0);
        }
    }

    /// Returns the response to a request that is not forwarded, or `None` if the lie does not suit it.
    pub(crate) fn make_up(&self, lie: Lie, operation: &str, request: &[u8]) -> Option<Answer> {
        let request = parse(request);
        let answer = match lie {
            Lie::Empty => Answer::new(200, Vec::new()),
            Lie::ForeignObject => {
                let body = json!({"status": "ok", "result": {"id": 7}});
                Answer::new(200, body.to_string().into_bytes())
            }
            Lie::ErrorInside => Answer::new(200, crate::faults::refusal("InternalServerError")),
            Lie::OtherRow => refusal(operation, &request, true)?,
            Lie::OldFence => refusal(operation, &request, false)?,
            Lie::OtherAnswer => {
                let answers = self.answers.lock().unwrap();
                let about = about(&request);
                let others = answers.get(operation)?.iter().rev();
                let mut others = others.filter(|(other, _)| *other != about);
                others.next()?.1.clone()
            }
            Lie::FlippedByte | Lie::Truncated | Lie::ForeignUnprocessed => return None,
        };
        self.told.fetch_add(1, Ordering::SeqCst);
        Some(answer)
    }

    /// Returns a true response, changed by the lie. Its checksum stays.
    pub(crate) fn twist(&self, lie: Lie, mut answer: Answer, draw: u64) -> Answer {
        let draw = usize::try_from(draw >> 8).unwrap();
        let digits = |body: &[u8]| -> Vec<usize> {
            let all = body.iter().enumerate();
            all.filter(|(_, b)| b.is_ascii_digit())
                .map(|(at, _)| at)
                .collect()
        };
        match lie {
            Lie::FlippedByte => {
                let digits = digits(&answer.body);
                if digits.is_empty() {
                    return answer;
                }
                let at = digits[draw % digits.len()];
                let was = answer.body[at];
                answer.body[at] = if was == b'9' { b'8' } else { was + 1 };
            }
            Lie::Truncated if !answer.body.is_empty() => {
                answer.body.truncate(draw % answer.body.len());
            }
            _ => return answer,
        }
        self.told.fetch_add(1, Ordering::SeqCst);
        answer
    }

    /// Returns the response to a batch of which `left` was not forwarded, as if another table had left it.
    pub(crate) fn hide_unprocessed(&self, answer: &[u8], left: &Value) -> Vec<u8> {
        let renamed = |(table, puts): (&String, &Value)| (format!("{table}-x"), puts.clone());
        let left = left.as_object().unwrap().iter().map(renamed);
        let left: serde_json::Map<String, Value> = left.collect();
        self.told
            .fetch_add(u64::from(!left.is_empty()), Ordering::SeqCst);
        crate::faults::with_unprocessed(answer, Value::Object(left))
    }
}

fn parse(request: &[u8]) -> Value {
    serde_json::from_slice(request).unwrap_or_default()
}

/// Returns what a request is about: its tables and keys. The response to a batch does not name its puts, so a batch
/// is about its table alone.
fn about(request: &Value) -> String {
    let condition = request["KeyConditionExpression"].as_str();
    let value = condition.and_then(|text| text.split(' ').nth(2));
    let value = value.map(|value| &request["ExpressionAttributeValues"][value]);
    let tables = request["RequestItems"].as_object();
    let tables = tables.into_iter().flatten().map(|(table, items)| {
        let keys = &items["Keys"];
        format!("{table} {keys}")
    });
    format!(
        "{} {} {value:?} {:?} {}",
        request["TableName"],
        request["Key"],
        tables.collect::<Vec<_>>(),
        request["IndexName"]
    )
}

/// Returns the refusal of a row update that names another row, or this row with a fence that is too low.
fn refusal(operation: &str, request: &Value, other: bool) -> Option<Answer> {
    let values = &request["ExpressionAttributeValues"];
    let (first, next) = (
        values[":first"]["N"].as_str()?,
        values[":next"]["N"].as_str()?,
    );
    if operation != "UpdateItem" {
        return None;
    }
    let mut item = request["Key"].clone();
    if other {
        for value in item.as_object_mut()?.values_mut() {
            value["S"] = json!(format!("{}0", value["S"].as_str()?));
        }
    }
    let fence = request["ExpressionAttributeNames"]["#f"].as_str()?;
    item[fence] = json!({"N": if other { next } else { first }});
    let body = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
        "Item": item,
    });
    Some(Answer::new(400, body.to_string().into_bytes()))
}
