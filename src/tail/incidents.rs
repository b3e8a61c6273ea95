//! `tail --incidents`: prints each incident of the table of incidents when the incident opens, changes or ends.
//!
//! Without `--from`, the output begins with the newest open incidents, at most 50. With `--from`, the output begins with
//! the incidents that were opened at or after the given time, at most the newest 10,000.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;

use super::count_down;
use super::printable::{escape_json, printable};
use crate::api::ListedIncident;
use crate::core::clock::UnixMs;
use crate::core::incident::message::Message;
use crate::core::incident::outbox::MessageKind;
use crate::core::incident::{Incident, IncidentPhase};
use crate::core::keys::TableNames;
use crate::core::parse;
use crate::core::time::{TIME_MS_END, format_seconds};
use crate::exit::SettingsError;
use crate::settings::{StartFrom, Tail, TailOutput};
use crate::shutdown::Shutdown;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::incidents::{StoredIncident, describe_missing_table};
use crate::store::reads::{
    DynamoReads, IncidentFilter, IncidentFollower, PageRequest, Range, Reads as _,
};
use crate::telemetry::{Metrics, unix_ms};

/// Time between two reads of the table of incidents.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// Maximum number of past incidents that `--from` prints. The command keeps all past incidents in memory, because it
/// reads the newest incident first but prints the oldest incident first.
const HISTORY_MAX: usize = 10_000;
/// Maximum number of incidents that one read returns.
const PAGE_MAX: usize = 1_000;

/// Prints incidents until `shutdown` is triggered. With `--exit-at-end`, stops after the incidents that the table
/// already contains.
///
/// # Errors
/// Returns an error if the table does not exist, if its first read fails, or if the output cannot be written.
pub(crate) async fn run(args: &Tail, client: Client, shutdown: &Shutdown) -> anyhow::Result<()> {
    let names = TableNames::new(&args.tables.table_prefix);
    let reads = DynamoReads::new(client, names.clone(), Metrics::new());
    let mut printer = IncidentPrinter {
        cities: args
            .cities
            .iter()
            .map(|c| parse::trim(c).to_owned())
            .collect(),
        is_json: args.output == Some(TailOutput::Json),
        left: args.events,
    };
    let mut follower = IncidentFollower::default();
    let first = follower.poll(&reads, unix_ms()).await;
    let open = first.map_err(|error| explain(error, &names))?;
    // The function reads past incidents only after the first poll, so that it does not miss an incident that opens
    // between the two reads.
    let known = match args.from {
        StartFrom::End => open,
        StartFrom::Beginning => history(&reads, UnixMs(0)).await?,
        StartFrom::Ago(ms) => history(&reads, unix_ms() - ms).await?,
        StartFrom::At(ms) => history(&reads, ms).await?,
    };
    let mut changed = known;
    loop {
        match printer.print_all(changed) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.context("failed to write the output")?,
        }
        if args.exit_at_end || printer.left == Some(0) {
            return Ok(());
        }
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = tokio::time::sleep(POLL_EVERY) => {}
        }
        changed = match follower.poll(&reads, unix_ms()).await {
            Ok(changed) => changed,
            Err(error) => {
                tracing::warn!(%error, "failed to read the incidents, trying again");
                Vec::new()
            }
        };
    }
}

fn explain(error: StoreError, names: &TableNames) -> anyhow::Error {
    if error.kind() != StoreErrorKind::NotFound {
        return error.into();
    }
    SettingsError(describe_missing_table(names)).into()
}

/// Returns the incidents that were opened at or after `from_ms`, with the oldest incident first.
async fn history(reads: &DynamoReads, from_ms: UnixMs) -> anyhow::Result<Vec<StoredIncident>> {
    let (mut out, mut after) = (Vec::new(), None);
    loop {
        let request = PageRequest {
            range: Range {
                from_ms,
                to_ms: TIME_MS_END,
            },
            limit: PAGE_MAX,
            after,
            now_ms: unix_ms(),
        };
        let page = reads.incidents(IncidentFilter::default(), request).await?;
        out.extend(page.items);
        after = page.next;
        if after.is_none() || out.len() >= HISTORY_MAX {
            break;
        }
    }
    if after.is_some() {
        tracing::warn!(
            count = out.len(),
            "there are more incidents; only the newest are shown"
        );
    }
    out.reverse();
    Ok(out)
}

struct IncidentPrinter {
    cities: Vec<String>,
    is_json: bool,
    /// The remaining number of lines that the option `-n` allows, or `None` if `-n` is not given.
    left: Option<u64>,
}

impl IncidentPrinter {
    fn print_all(&mut self, changed: Vec<StoredIncident>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for one in changed {
            if self.left == Some(0) || !self.passes(&one.incident) {
                continue;
            }
            out.write_all(&line(one, self.is_json))?;
            count_down(&mut self.left);
        }
        out.flush()
    }

    /// Returns true if an incident passes the filter by city. An incident without a city concerns every city, so the
    /// incident passes every filter.
    fn passes(&self, incident: &Incident) -> bool {
        let city = incident.group.city.as_deref();
        self.cities.is_empty()
            || city.is_none_or(|city| self.cities.iter().any(|wanted| wanted == city))
    }
}

/// Returns an incident as one line of text that ends with a line break.
fn line(one: StoredIncident, is_json: bool) -> Vec<u8> {
    if is_json {
        let listed = ListedIncident::from(one);
        let mut out = serde_json::to_vec(&listed).expect("texts and numbers always serialize");
        escape_json(&mut out, 0);
        out.push(b'\n');
        return out;
    }
    let incident = &one.incident;
    let (kind, at_ms) = match incident.state {
        IncidentPhase::Open => (MessageKind::Opened, incident.opened_at_ms),
        IncidentPhase::Resolved { at_ms } => (MessageKind::Resolved, at_ms),
    };
    let message = Message {
        kind,
        n: 1,
        incident,
        link: None,
    };
    let mut text = format!("{}  {}", format_seconds(at_ms), message.title());
    let mut sent: Vec<_> = one.sent.iter().collect();
    sent.sort_by(|a, b| a.0.cmp(&b.0));
    for (receiver, sent) in sent {
        let (kind, outcome) = (sent.kind.name(), sent.outcome.name());
        text.push_str(&format!("  {receiver}: {kind} {outcome}"));
    }
    let mut text = printable(&text);
    text.push('\n');
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::event::{Offset, Severity};
    use crate::core::incident::Group;
    use crate::core::incident::outbox::{SendOutcome, SentMessages};

    fn stored(state: IncidentPhase) -> StoredIncident {
        let sent = SentMessages {
            n: 1,
            kind: MessageKind::Opened,
            event_count: 1,
            begun_ms: UnixMs(0),
            outcome: SendOutcome::Taken,
        };
        StoredIncident {
            incident: Incident {
                rule: "critical".into(),
                id: "t#0#000000000000007".into(),
                group: Group {
                    city: Some("N\u{1b}YC".into()),
                    event_type: None,
                },
                state,
                severity: Some(Severity::Critical),
                event_count: 2,
                first_event_ms: UnixMs(0),
                last_event_ms: UnixMs(0),
                opened_at_ms: UnixMs(1_000),
                samples: Vec::new(),
                quiet_at_ms: None,
                opened: Offset(7),
                next: Offset(8),
            },
            sent: vec![("ops".to_owned(), sent)],
        }
    }

    #[test]
    fn a_line_has_the_change_and_its_deliveries() {
        let open = String::from_utf8(line(stored(IncidentPhase::Open), false)).unwrap();
        let want =
            "1970-01-01T00:00:01Z  Open: critical in N\\u{1b}YC, 2 events  ops: opened taken\n";
        assert_eq!(open, want);
        let resolved = IncidentPhase::Resolved {
            at_ms: UnixMs(2_000),
        };
        let resolved = String::from_utf8(line(stored(resolved), false)).unwrap();
        assert!(resolved.starts_with("1970-01-01T00:00:02Z  Resolved: critical in "));
        let json: serde_json::Value =
            serde_json::from_slice(&line(stored(IncidentPhase::Open), true)).unwrap();
        assert_eq!(json["state"], "open");
        assert_eq!(json["deliveries"][0]["outcome"], "taken");
    }

    #[test]
    fn a_city_selects_its_incidents_and_those_of_no_city() {
        let printer = IncidentPrinter {
            cities: vec!["LA".to_owned()],
            is_json: false,
            left: None,
        };
        let mut one = stored(IncidentPhase::Open).incident;
        assert!(!printer.passes(&one));
        one.group.city = None;
        assert!(printer.passes(&one));
    }
}
