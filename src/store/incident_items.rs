//! Converts incidents, checkpoints and silences into items of the incident table, and back.
//!
//! `docs/TABLES.md` describes the items of the incident table. A function that reads an item returns `None` if the item
//! is damaged.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::core::clock::UnixMs;
use crate::core::event::{Offset, Severity};
use crate::core::incident::audit::Base;
use crate::core::incident::fold::{Checkpoint, RuleStart};
use crate::core::incident::outbox::{MessageKind, SendOutcome, SentMessages};
use crate::core::incident::silence::Silence;
use crate::core::incident::{Group, Incident, IncidentPhase, Sample};
use crate::core::time::{format_millis, parse_timestamp};
use crate::core::watermark::MaxTime;
use crate::store::attributes::{
    CITY, DESCRIPTION, EVENT_COUNT, EVENT_ID, EVENT_TYPE, INCIDENT, Item, MAX, NEXT, OPENED_AT,
    RULE, SEVERITY, STATE, TIMESTAMP, number, string, text,
};

/// The row of an incident in the incident table.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredIncident {
    /// The incident itself.
    pub incident: Incident,
    /// The names of the receivers, each with the last message to this receiver.
    pub sent: Vec<(String, SentMessages)>,
}

/// A checkpoint, together with the resolved incidents whose last messages may still be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The position in the partition's log at which `notify` continues.
    pub checkpoint: Checkpoint,
    /// The rule and the id of each resolved incident about which `notify` must still send messages.
    pub owed: Vec<(Arc<str>, Arc<str>)>,
    /// The fingerprint of the rules that `notify` has applied since the first checkpoint in `bases`. The string is
    /// empty if an older version of `notify`, which stored no fingerprint, wrote the item.
    pub rules: String,
    /// Earlier checkpoints under the same rules, oldest first. `verify` can process the log again from any of these
    /// checkpoints.
    pub bases: Vec<StoredBase>,
}

/// An earlier checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredBase {
    /// The checkpoint without its open incidents.
    pub base: Base,
    /// The time at which `notify` made the checkpoint, by its own clock.
    pub made_ms: UnixMs,
}

const FIRST_EVENT: &str = "first_event";
const LAST_EVENT: &str = "last_event";
const RESOLVED_AT: &str = "resolved_at";
const QUIET_AT: &str = "quiet_at";
const OPENED: &str = "opened";
const SAMPLES: &str = "samples";
const START: &str = "start";
const OPEN: &str = "open";
const OWED: &str = "owed";
const RULES: &str = "rules";
const BASES: &str = "bases";
const MADE: &str = "made";
/// The values of the attribute `state`, each with a flag that is true for open incidents.
pub(super) const STATES: [(bool, &str); 2] = [(true, "open"), (false, "resolved")];

fn whole(value: impl Into<i64>) -> AttributeValue {
    AttributeValue::N(value.into().to_string())
}

fn instant(ms: UnixMs) -> AttributeValue {
    string(format_millis(ms))
}

fn instant_of(item: &Item, name: &str) -> Option<UnixMs> {
    parse_timestamp(text(item, name))
}

fn texts(names: &[(Arc<str>, Arc<str>)]) -> AttributeValue {
    let names = names
        .iter()
        .map(|(rule, id)| string(format!("{rule}#{id}")));
    AttributeValue::L(names.collect())
}

fn names_of(item: &Item, name: &str) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let split = |value: &AttributeValue| {
        let (rule, id) = value.as_s().ok()?.split_once('#')?;
        Some((rule.into(), id.into()))
    };
    item.get(name)?.as_l().ok()?.iter().map(split).collect()
}

/// Returns the attributes of an incident's row, except its key and its messages.
pub(super) fn incident_item(incident: &Incident) -> Vec<(&'static str, AttributeValue)> {
    let mut out = vec![
        (NEXT, whole(incident.next.0)),
        (OPENED, whole(incident.opened.0)),
        (
            EVENT_COUNT,
            AttributeValue::N(incident.event_count.to_string()),
        ),
        (FIRST_EVENT, instant(incident.first_event_ms)),
        (LAST_EVENT, instant(incident.last_event_ms)),
        (OPENED_AT, instant(incident.opened_at_ms)),
        (
            SAMPLES,
            AttributeValue::L(incident.samples.iter().map(|s| sample_item(s)).collect()),
        ),
    ];
    out.push((STATE, string(incident.state.name())));
    if let IncidentPhase::Resolved { at_ms } = incident.state {
        out.push((RESOLVED_AT, instant(at_ms)));
    }
    out.extend(incident.group.city.as_ref().map(|c| (CITY, string(&**c))));
    let event_type = incident.group.event_type.as_ref();
    out.extend(event_type.map(|t| (EVENT_TYPE, string(&**t))));
    out.extend(incident.severity.map(|s| (SEVERITY, string(s.name()))));
    out.extend(incident.quiet_at_ms.map(|ms| (QUIET_AT, whole(ms.0))));
    out
}

fn sample_item(sample: &Sample) -> AttributeValue {
    let fields = [
        (EVENT_ID, string(&*sample.event_id)),
        (CITY, string(&*sample.city)),
        (EVENT_TYPE, string(&*sample.event_type)),
        (SEVERITY, string(sample.severity.name())),
        (TIMESTAMP, instant(sample.time_ms)),
        (DESCRIPTION, string(&*sample.description)),
    ];
    AttributeValue::M(fields.map(|(name, value)| (name.to_owned(), value)).into())
}

fn sample_of(value: &AttributeValue) -> Option<Arc<Sample>> {
    let item = value.as_m().ok()?;
    Some(Arc::new(Sample {
        event_id: text(item, EVENT_ID).into(),
        city: text(item, CITY).into(),
        event_type: text(item, EVENT_TYPE).into(),
        severity: Severity::from_name(text(item, SEVERITY))?,
        time_ms: instant_of(item, TIMESTAMP)?,
        description: text(item, DESCRIPTION).into(),
    }))
}

/// Decodes an incident from an item.
pub(super) fn incident_of(item: &Item) -> Option<Incident> {
    let name = |name| item.contains_key(name).then(|| Arc::from(text(item, name)));
    let state = match text(item, STATE) {
        "open" => IncidentPhase::Open,
        "resolved" => IncidentPhase::Resolved {
            at_ms: instant_of(item, RESOLVED_AT)?,
        },
        _ => return None,
    };
    let severity = match item.get(SEVERITY) {
        None => None,
        Some(_) => Some(Severity::from_name(text(item, SEVERITY))?),
    };
    let samples = item.get(SAMPLES)?.as_l().ok()?.iter().map(sample_of);
    Some(Incident {
        rule: name(RULE)?,
        id: name(INCIDENT)?,
        group: Group {
            city: name(CITY),
            event_type: name(EVENT_TYPE),
        },
        state,
        severity,
        event_count: u64::try_from(number(item, EVENT_COUNT)?).ok()?,
        first_event_ms: instant_of(item, FIRST_EVENT)?,
        last_event_ms: instant_of(item, LAST_EVENT)?,
        opened_at_ms: instant_of(item, OPENED_AT)?,
        samples: samples.collect::<Option<_>>()?,
        quiet_at_ms: number(item, QUIET_AT).map(UnixMs),
        opened: Offset(number(item, OPENED)?),
        next: Offset(number(item, NEXT)?),
    })
}

/// Returns the name of the attribute that stores the last message to a receiver.
pub(super) fn sent_attribute(receiver: &str) -> String {
    format!("sent#{receiver}")
}

/// Returns the value of the attribute that stores the last message to a receiver.
pub(super) fn sent_item(sent: &SentMessages) -> HashMap<String, AttributeValue> {
    let why = match &sent.outcome {
        SendOutcome::Refused(why) => Some(string(&**why)),
        SendOutcome::Unknown | SendOutcome::Taken | SendOutcome::Silenced => None,
    };
    let mut out = HashMap::from([
        ("n".to_owned(), whole(sent.n)),
        ("kind".to_owned(), string(sent.kind.name())),
        (
            EVENT_COUNT.to_owned(),
            AttributeValue::N(sent.event_count.to_string()),
        ),
        ("begun".to_owned(), whole(sent.begun_ms.0)),
        ("outcome".to_owned(), string(sent.outcome.name())),
    ]);
    out.extend(why.map(|why| ("why".to_owned(), why)));
    out
}

/// Decodes the last message to each receiver from the attributes of an incident.
pub(super) fn sent_of(item: &Item) -> Option<Vec<(String, SentMessages)>> {
    let sent = item.iter().filter_map(|(name, value)| {
        let receiver = name.strip_prefix("sent#")?;
        Some(
            value
                .as_m()
                .ok()
                .and_then(one_sent_of)
                .map(|sent| (receiver.to_owned(), sent)),
        )
    });
    sent.collect()
}

fn one_sent_of(item: &Item) -> Option<SentMessages> {
    Some(SentMessages {
        n: u32::try_from(number(item, "n")?).ok()?,
        kind: MessageKind::from_name(text(item, "kind"))?,
        event_count: u64::try_from(number(item, EVENT_COUNT)?).ok()?,
        begun_ms: UnixMs(number(item, "begun")?),
        outcome: match text(item, "outcome") {
            "unknown" => SendOutcome::Unknown,
            "taken" => SendOutcome::Taken,
            "refused" => SendOutcome::Refused(text(item, "why").into()),
            "silenced" => SendOutcome::Silenced,
            _ => return None,
        },
    })
}

/// Returns the attributes of a checkpoint, except its key.
pub(super) fn checkpoint_item(stored: &StoredCheckpoint) -> Item {
    let at = &stored.checkpoint;
    let mut out = HashMap::from([
        (NEXT.to_owned(), whole(at.next.0)),
        (START.to_owned(), whole(at.start.next.0)),
        (OPEN.to_owned(), texts(&at.open)),
        (OWED.to_owned(), texts(&stored.owed)),
        (RULES.to_owned(), string(&*stored.rules)),
        (
            BASES.to_owned(),
            AttributeValue::L(stored.bases.iter().map(base_item).collect()),
        ),
    ]);
    out.extend(max_item(at.start));
    out
}

fn max_item(start: RuleStart) -> Option<(String, AttributeValue)> {
    let max = start.max.max_ms();
    max.map(|ms| (MAX.to_owned(), whole(ms.0)))
}

fn start_of(item: &Item) -> Option<RuleStart> {
    Some(RuleStart {
        next: Offset(number(item, START)?),
        max: MaxTime::new(number(item, MAX).map(UnixMs)),
    })
}

fn base_item(stored: &StoredBase) -> AttributeValue {
    let mut out = HashMap::from([
        (NEXT.to_owned(), whole(stored.base.next.0)),
        (START.to_owned(), whole(stored.base.start.next.0)),
        (MADE.to_owned(), whole(stored.made_ms.0)),
    ]);
    out.extend(max_item(stored.base.start));
    AttributeValue::M(out)
}

fn base_of(value: &AttributeValue) -> Option<StoredBase> {
    let item = value.as_m().ok()?;
    Some(StoredBase {
        base: Base {
            start: start_of(item)?,
            next: Offset(number(item, NEXT)?),
        },
        made_ms: UnixMs(number(item, MADE)?),
    })
}

/// Decodes a checkpoint from an item.
pub(super) fn checkpoint_of(item: &Item) -> Option<StoredCheckpoint> {
    Some(StoredCheckpoint {
        checkpoint: Checkpoint {
            start: start_of(item)?,
            next: Offset(number(item, NEXT)?),
            open: names_of(item, OPEN)?,
        },
        owed: names_of(item, OWED)?,
        rules: text(item, RULES).to_owned(),
        bases: match item.get(BASES) {
            Some(bases) => bases
                .as_l()
                .ok()?
                .iter()
                .map(base_of)
                .collect::<Option<_>>()?,
            None => Vec::new(),
        },
    })
}

/// Returns the attributes of a silence, except its key.
pub(super) fn silence_item(silence: &Silence) -> Item {
    let mut out = HashMap::from([
        ("from".to_owned(), whole(silence.from_ms.0)),
        ("until".to_owned(), whole(silence.until_ms.0)),
        ("why".to_owned(), string(&*silence.why)),
    ]);
    let names = [
        ("of_rule", &silence.rule),
        (CITY, &silence.city),
        (EVENT_TYPE, &silence.event_type),
    ];
    for (name, value) in names {
        out.extend(value.as_ref().map(|v| (name.to_owned(), string(&**v))));
    }
    out
}

/// Decodes a silence from an item.
pub(super) fn silence_of(item: &Item) -> Option<Silence> {
    let name = |name| item.contains_key(name).then(|| text(item, name).into());
    Some(Silence {
        id: text(item, INCIDENT).into(),
        rule: name("of_rule"),
        city: name(CITY),
        event_type: name(EVENT_TYPE),
        from_ms: UnixMs(number(item, "from")?),
        until_ms: UnixMs(number(item, "until")?),
        why: text(item, "why").into(),
    })
}
