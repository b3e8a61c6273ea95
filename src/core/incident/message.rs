//! Builds the messages about incidents, with their ids, bodies and titles.

use serde_json::{Map, Value, json};

use super::outbox::MessageKind;
use super::{Incident, IncidentPhase};
use crate::time::format_millis;

/// A message about an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The kind of change that the message reports.
    pub kind: MessageKind,
    /// The number of the message. The messages to one receiver about one incident are numbered from 1.
    pub n: u32,
    /// The incident in the state that the message reports.
    pub incident: &'a Incident,
    /// The address of the web page that the message links to, if there is one.
    pub link: Option<&'a str>,
}

impl Message<'_> {
    /// Returns the id of the message: `<rule>#<incident>.<n>`. A message that is sent again has the same id.
    pub fn id(&self) -> String {
        format!("{}.{}", self.incident.name(), self.n)
    }

    /// Returns the message as the JSON body of a webhook request.
    pub fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert(
            "type".to_owned(),
            json!(format!("incident.{}", self.kind.name())),
        );
        body.extend(self.incident.fields());
        if let Some(link) = self.link {
            body.insert("link".to_owned(), json!(link));
        }
        Value::Object(body)
    }

    /// Returns the title of the message, which is one line of human-readable text.
    pub fn title(&self) -> String {
        let incident = self.incident;
        let group = incident.group_text();
        let begun = match self.kind {
            MessageKind::Opened => "Open",
            MessageKind::Updated => "Still open",
            MessageKind::Resolved => "Resolved",
        };
        let place = if group.is_empty() {
            String::new()
        } else {
            format!(" in {group}")
        };
        match incident.event_count {
            0 => format!("{begun}: {}{place}", incident.rule),
            1 => format!("{begun}: {}{place}, 1 event", incident.rule),
            n => format!("{begun}: {}{place}, {n} events", incident.rule),
        }
    }
}

impl Incident {
    /// Returns the name `<rule>#<id>`, which is unique among the incidents of all rules.
    pub fn name(&self) -> String {
        format!("{}#{}", self.rule, self.id)
    }

    /// Returns the group as human-readable text, such as `NYC, traffic`. The text is empty if the rule of the incident
    /// does not group events.
    pub fn group_text(&self) -> String {
        let names = [&self.group.city, &self.group.event_type];
        let names: Vec<&str> = names.into_iter().flatten().map(AsRef::as_ref).collect();
        names.join(", ")
    }

    /// Returns the fields of the incident as JSON, for messages and API responses.
    pub fn fields(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let mut put = |name: &str, value: Value| out.insert(name.to_owned(), value);
        put("incident", json!(&*self.id));
        put("rule", json!(&*self.rule));
        if let Some(city) = &self.group.city {
            put("city", json!(&**city));
        }
        if let Some(event_type) = &self.group.event_type {
            put("event_type", json!(&**event_type));
        }
        if let Some(severity) = self.severity {
            put("severity", json!(severity.name()));
        }
        put("event_count", json!(self.event_count));
        put("first_event", json!(format_millis(self.first_event_ms)));
        put("last_event", json!(format_millis(self.last_event_ms)));
        put("opened_at", json!(format_millis(self.opened_at_ms)));
        if let IncidentPhase::Resolved { at_ms } = self.state {
            put("resolved_at", json!(format_millis(at_ms)));
        }
        let samples = self.samples.iter().map(|sample| {
            json!({
                "event_id": &*sample.event_id,
                "city": &*sample.city,
                "event_type": &*sample.event_type,
                "severity": sample.severity.name(),
                "timestamp": format_millis(sample.time_ms),
                "description": &*sample.description,
            })
        });
        put("samples", Value::Array(samples.collect()));
        out
    }
}
