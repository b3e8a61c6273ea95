//! `notify --test RECEIVER`: sends one test message.

use std::sync::Arc;

use crate::core::event::{Offset, Severity};
use crate::core::incident::message::Message;
use crate::core::incident::outbox::MessageKind;
use crate::core::incident::{Group, Incident, IncidentPhase, Sample};
use crate::exit::{Exit, SettingsError};
use crate::notify::config::NotifyConfig;
use crate::notify::send::{DeliveryResult, Receiver};
use crate::output::print;
use crate::telemetry::unix_ms;

/// Sends a message about a made-up incident, and prints the result.
///
/// # Errors
/// Returns an error if the receiver does not exist or does not accept the message.
pub(crate) async fn run(
    config: NotifyConfig,
    name: &str,
    link: Option<&str>,
) -> anyhow::Result<Exit> {
    let names: Vec<String> = config
        .receivers
        .iter()
        .map(|r| r.name.to_string())
        .collect();
    let Some(receiver) = config.receivers.into_iter().find(|r| &*r.name == name) else {
        let error = SettingsError::new(format!("there is no receiver {name:?}"));
        return Err(error
            .with_remedy(format!("name one of: {}", names.join(", ")))
            .into());
    };
    let receiver = Receiver::new(receiver).await.map_err(SettingsError)?;
    let incident = example();
    let message = Message {
        kind: MessageKind::Opened,
        n: 1,
        incident: &incident,
        link,
    };
    match receiver.send(&message).await {
        DeliveryResult::Taken => {
            print(&format!("{name} took the message {}\n", message.id()))?;
            Ok(Exit::Done)
        }
        DeliveryResult::Again { why, .. } => {
            anyhow::bail!("{name} did not take the message: {why}")
        }
        DeliveryResult::Refused { why } => anyhow::bail!("{name} refused the message: {why}"),
    }
}

fn example() -> Incident {
    let now_ms = unix_ms();
    Incident {
        rule: "test".into(),
        id: format!("test#0#{:015}", now_ms.0).into(),
        group: Group {
            city: Some("NYC".into()),
            event_type: None,
        },
        state: IncidentPhase::Open,
        severity: Some(Severity::High),
        event_count: 1,
        first_event_ms: now_ms,
        last_event_ms: now_ms,
        opened_at_ms: now_ms,
        samples: vec![Arc::new(Sample {
            event_id: "test".into(),
            city: "NYC".into(),
            event_type: "incident".into(),
            severity: Severity::High,
            time_ms: now_ms,
            description: "A test message of citystream notify".into(),
        })],
        quiet_at_ms: None,
        opened: Offset(0),
        next: Offset(1),
    }
}
