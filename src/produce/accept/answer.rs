//! The response to an HTTP request that sends events. The response reports the outcome of each line of the request.

use serde::Serialize;
use utoipa::ToSchema;

use crate::core::parse::Reject;
use crate::produce::receipts::EventOutcome;

/// Maximum number of characters in the detail of a rejected line. A longer detail is cut off, because the detail may
/// quote the whole invalid value.
const DETAIL_CHARS_MAX: usize = 200;
/// Maximum size in bytes of the result of one request line, not counting the text fields of the result.
const RESULT_BYTES: usize = 160;

/// A line of the request body, with the result of checking its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of the line in NDJSON, or of the element in a JSON array.
    pub(super) number: u64,
    /// `Ok` with the event id that the client set, if any, or `Err` with the reason why the event is invalid.
    pub(super) verdict: Result<Option<Box<str>>, Reject>,
}

impl Line {
    /// Returns a line with an invalid event.
    pub(super) fn rejected(number: u64, mut reject: Reject) -> Line {
        if let Some((end, _)) = reject.detail.char_indices().nth(DETAIL_CHARS_MAX) {
            reject.detail.truncate(end);
            reject.detail.push('…');
        }
        Line {
            number,
            verdict: Err(reject),
        }
    }

    /// Returns the maximum size in bytes of the line's result. Escape sequences in JSON can double the size of a text.
    pub(super) fn result_bytes_max(&self, topic: &str) -> usize {
        let text_bytes = match &self.verdict {
            Ok(Some(id)) => id.len(),
            Ok(None) => topic.len() + 32,
            Err(reject) => reject.detail.len(),
        };
        RESULT_BYTES + 2 * text_bytes
    }
}

/// The outcome of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LineStatus {
    /// All replicas have the event.
    Accepted,
    /// The event is invalid, and was not sent.
    Rejected,
    /// The event was sent, but Kafka has not acknowledged it. The event may already be in the topic, or may still
    /// arrive in the topic.
    Unknown,
    /// The event is valid, but was not sent.
    NotSent,
}

/// The outcome of one line of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct LineResult {
    /// The number of the line in NDJSON, or of the element in a JSON array, counted from 1.
    pub(crate) line: u64,
    /// The outcome of the event.
    pub(crate) status: LineStatus,
    /// The reason for which the event was rejected, one of `empty`, `too_large`, `not_utf8`, `not_json`,
    /// `missing_field`, `bad_city`, `bad_event_type`, `bad_severity`, `bad_timestamp`, `bad_description` or
    /// `bad_event_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    /// What is wrong, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// The event's own id, or `<topic>-<partition>-<offset>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_id: Option<String>,
    /// The partition that has the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<i32>,
    /// The offset of the event in its partition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<i64>,
}

/// The outcome of the events in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Accepted)]
pub(crate) struct Accepted {
    /// Number of events that all replicas have.
    pub(crate) accepted: u64,
    /// Number of lines with an invalid event.
    pub(crate) rejected: u64,
    /// Number of events whose outcome is unknown; absent if it is 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) unknown: u64,
    /// Number of events that were not sent; absent if it is 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) not_sent: u64,
    /// The results of the rejected lines, in the order of the request. The list contains the results of all lines if
    /// the request sets `verbose`, or if Kafka has not acknowledged every valid event.
    pub(crate) results: Vec<LineResult>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes the count by reference
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Accepted {
    /// Returns the response to a request with the given lines. `outcomes` lists the outcomes of the valid lines, in
    /// their order. An event without an outcome was not sent. If Kafka has not acknowledged an event yet, the line has
    /// the status "unknown".
    pub(super) fn new(
        lines: Vec<Line>,
        outcomes: &[EventOutcome],
        topic: &str,
        is_verbose: bool,
    ) -> Accepted {
        let mut outcomes = outcomes.iter();
        let mut answer = Accepted::default();
        for line in lines {
            let result = match line.verdict {
                Err(reject) => rejected_result(line.number, reject),
                Ok(id) => {
                    let outcome = outcomes.next().copied().unwrap_or(EventOutcome::NotSent);
                    event_result(line.number, id, outcome, topic)
                }
            };
            *answer.count_mut(result.status) += 1;
            answer.results.push(result);
        }
        if answer.is_complete() && !is_verbose {
            answer
                .results
                .retain(|result| result.status == LineStatus::Rejected);
        }
        answer
    }

    fn count_mut(&mut self, status: LineStatus) -> &mut u64 {
        match status {
            LineStatus::Accepted => &mut self.accepted,
            LineStatus::Rejected => &mut self.rejected,
            LineStatus::Unknown => &mut self.unknown,
            LineStatus::NotSent => &mut self.not_sent,
        }
    }

    /// Returns true if Kafka has acknowledged every valid event.
    pub(super) fn is_complete(&self) -> bool {
        self.unknown == 0 && self.not_sent == 0
    }
}

fn rejected_result(line: u64, reject: Reject) -> LineResult {
    LineResult {
        reason: Some(reject.reason.name()),
        detail: Some(reject.detail),
        ..empty_result(line, LineStatus::Rejected)
    }
}

fn event_result(line: u64, id: Option<Box<str>>, outcome: EventOutcome, topic: &str) -> LineResult {
    let (status, partition, offset) = match outcome {
        EventOutcome::Acknowledged { partition, offset } => {
            (LineStatus::Accepted, Some(partition), offset)
        }
        EventOutcome::Pending | EventOutcome::Unknown => (LineStatus::Unknown, None, None),
        EventOutcome::NotSent => (LineStatus::NotSent, None, None),
    };
    let place = partition.zip(offset);
    LineResult {
        event_id: match (id, place) {
            (Some(id), _) => Some(id.into_string()),
            (None, Some((partition, offset))) => Some(format!("{topic}-{partition}-{offset}")),
            (None, None) => None,
        },
        partition,
        offset,
        ..empty_result(line, status)
    }
}

fn empty_result(line: u64, status: LineStatus) -> LineResult {
    LineResult {
        line,
        status,
        reason: None,
        detail: None,
        event_id: None,
        partition: None,
        offset: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::parse::Reason;

    fn valid(number: u64, id: Option<&str>) -> Line {
        Line {
            number,
            verdict: Ok(id.map(Into::into)),
        }
    }

    fn invalid(number: u64) -> Line {
        let reject = Reject {
            reason: Reason::BadSeverity,
            detail: "\"bad\"".to_owned(),
        };
        Line::rejected(number, reject)
    }

    fn acknowledged(partition: i32, offset: i64) -> EventOutcome {
        EventOutcome::Acknowledged {
            partition,
            offset: Some(offset).filter(|offset| *offset >= 0),
        }
    }

    fn answer(lines: Vec<Line>, outcomes: &[EventOutcome], is_verbose: bool) -> String {
        let answer = Accepted::new(lines, outcomes, "city-events", is_verbose);
        serde_json::to_string(&answer).unwrap()
    }

    #[test]
    fn rejected_lines_are_always_named_and_accepted_ones_on_request() {
        let lines = vec![valid(1, None), invalid(2), valid(4, Some("a\"b"))];
        let outcomes = [acknowledged(3, 811), acknowledged(0, 7)];
        let rejected =
            r#"{"line":2,"status":"rejected","reason":"bad_severity","detail":"\"bad\""}"#;
        assert_eq!(
            answer(lines.clone(), &outcomes, false),
            format!(r#"{{"accepted":2,"rejected":1,"results":[{rejected}]}}"#)
        );
        let first = r#"{"line":1,"status":"accepted","event_id":"city-events-3-811","partition":3,"offset":811}"#;
        let last = r#"{"line":4,"status":"accepted","event_id":"a\"b","partition":0,"offset":7}"#;
        assert_eq!(
            answer(lines, &outcomes, true),
            format!(r#"{{"accepted":2,"rejected":1,"results":[{first},{rejected},{last}]}}"#)
        );
    }

    #[test]
    fn every_line_is_named_if_one_is_not_accepted() {
        let lines: Vec<Line> = (1..=5).map(|number| valid(number, None)).collect();
        let outcomes = [
            acknowledged(1, 2),
            EventOutcome::Unknown,
            EventOutcome::Pending,
            EventOutcome::NotSent,
        ];
        let answer = Accepted::new(lines, &outcomes, "city-events", false);
        let statuses: Vec<LineStatus> = answer.results.iter().map(|result| result.status).collect();
        let (unknown, not_sent) = (LineStatus::Unknown, LineStatus::NotSent);
        let want = [LineStatus::Accepted, unknown, unknown, not_sent, not_sent];
        assert_eq!(statuses, want);
        assert!(!answer.is_complete());
        assert_eq!(
            (answer.accepted, answer.unknown, answer.not_sent),
            (1, 2, 2)
        );
        let text = serde_json::to_string(&answer).unwrap();
        assert!(text.contains(r#"{"line":2,"status":"unknown"}"#), "{text}");
        assert!(text.contains(r#"{"line":4,"status":"not_sent"}"#), "{text}");
    }

    #[test]
    fn an_event_whose_offset_is_unknown_is_accepted_without_it() {
        let answer = answer(vec![valid(1, None)], &[acknowledged(2, -1)], true);
        assert!(
            answer.contains(r#"[{"line":1,"status":"accepted","partition":2}]"#),
            "{answer}"
        );
    }

    #[test]
    fn results_are_not_larger_than_announced() {
        let topic = "t".repeat(249);
        let long = Reject {
            reason: Reason::BadEventType,
            detail: "\"\\é".repeat(1_000),
        };
        let lines = vec![
            valid(u64::MAX, Some(&"\"".repeat(128))),
            valid(u64::MAX, None),
            Line::rejected(u64::MAX, long),
        ];
        let bytes_max: usize = lines.iter().map(|line| line.result_bytes_max(&topic)).sum();
        let outcomes = [
            acknowledged(i32::MAX, i64::MAX),
            acknowledged(i32::MAX, i64::MAX),
        ];
        let answer = Accepted::new(lines, &outcomes, &topic, true);
        let bytes = serde_json::to_string(&answer.results).unwrap().len();
        assert!(bytes <= bytes_max, "{bytes} > {bytes_max}");
        let detail = answer.results[2].detail.as_ref().unwrap();
        assert_eq!(detail.chars().count(), DETAIL_CHARS_MAX + 1);
    }
}
