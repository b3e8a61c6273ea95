//! `notify --dry-run`: reads the log and prints the messages that the rules would send.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Context as _;

use crate::core::event::Offset;
use crate::core::incident::fold::{Change, Checkpoint, Fold, IncidentSource, What};
use crate::core::incident::message::Message;
use crate::core::incident::outbox::MessageKind;
use crate::core::incident::rule::Rule;
use crate::core::time::format_seconds;
use crate::core::window::Rules;
use crate::kafka::client::client_config;
use crate::kafka::reader::{LogReader, LogRecord, ReadRange, ReadStart, ReadStep};
use crate::settings::{Notify, NotifyOutput};
use crate::shutdown::Shutdown;
use crate::telemetry::unix_ms;

/// The placeholder for the topic id in the ids of incidents. A dry run may lack the right to read the real topic id.
const TOPIC_ID: &str = "dry-run";

/// Reads the log and prints messages. The function blocks until it has read the log to the end, or until `shutdown` is
/// triggered.
///
/// # Errors
/// Returns an error if reading fails or the output cannot be written.
pub(crate) fn run(args: &Notify, rules: &[Rule], shutdown: &Shutdown) -> anyhow::Result<()> {
    let config = client_config(&args.kafka, "notify")?;
    let reader = LogReader::new(config, &args.kafka.topic)?;
    let range = ReadRange {
        start: ReadStart::from_setting(args.from, unix_ms()),
        until_ms: None,
        stop_at_end: args.exit_at_end,
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut run = DryRun::new(&args.kafka.topic, rules);
    let mut written = Ok(());
    let done = reader.run(&range, shutdown, &mut |step| {
        let result = match step {
            ReadStep::Record(record) => run.take(&record, args.output, &mut out),
            ReadStep::Idle => out.flush(),
            // The reader itself logs why it is waiting, so a dry run does not report the wait.
            ReadStep::Waiting(_) | ReadStep::Letter(_) | ReadStep::Behind(_) => Ok(()),
        };
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                written = Err(error);
                ControlFlow::Break(())
            }
        }
    });
    done?;
    match written.and_then(|()| run.finish(args.output, &mut out)) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("failed to write the output"),
    }
}

/// The state of a dry run: the state of the rules in each partition, and the number of incidents that were found.
struct DryRun<'a> {
    topic: Arc<str>,
    rules: &'a [Rule],
    folds: BTreeMap<i32, Fold>,
    changes: Vec<Change>,
    records: u64,
    /// For each rule: the number of opened incidents, and the number of resolved incidents.
    found: Vec<[u64; 2]>,
}

impl<'a> DryRun<'a> {
    fn new(topic: &str, rules: &'a [Rule]) -> DryRun<'a> {
        DryRun {
            topic: topic.into(),
            rules,
            folds: BTreeMap::new(),
            changes: Vec::new(),
            records: 0,
            found: vec![[0; 2]; rules.len()],
        }
    }

    fn take(
        &mut self,
        record: &LogRecord,
        output: NotifyOutput,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        self.records += 1;
        let (topic, rules) = (&self.topic, self.rules);
        let fold = self.folds.entry(record.partition).or_insert_with(|| {
            let source = IncidentSource {
                topic: Arc::clone(topic),
                topic_id: TOPIC_ID.into(),
                partition: record.partition,
                times: Rules::default(),
            };
            Fold::new(source, rules, &Checkpoint::begin(Offset(0)), &[])
        });
        let body = record.body.as_ref().ok();
        fold.take(record.offset, record.record_ms, body, &mut self.changes);
        for change in self.changes.drain(..) {
            let (kind, at) = match change.what {
                What::Opened => (MessageKind::Opened, 0),
                What::Resolved => (MessageKind::Resolved, 1),
                // A dry run prints no messages about updates, because their number depends on when earlier messages
                // were sent.
                What::Updated => continue,
            };
            self.found[change.rule][at] += 1;
            print(&change, kind, output, out)?;
        }
        Ok(())
    }

    fn finish(&self, output: NotifyOutput, out: &mut dyn Write) -> io::Result<()> {
        if output == NotifyOutput::Text {
            writeln!(out, "{} records", self.records)?;
            for (rule, [opened, resolved]) in self.rules.iter().zip(&self.found) {
                let open = opened - resolved;
                let name = &rule.name;
                writeln!(out, "{name}: {opened} incidents, of which {open} are open")?;
            }
        }
        out.flush()
    }
}

fn print(
    change: &Change,
    kind: MessageKind,
    output: NotifyOutput,
    out: &mut dyn Write,
) -> io::Result<()> {
    let incident = &change.incident;
    let message = Message {
        kind,
        n: 1,
        incident,
        link: None,
    };
    match output {
        NotifyOutput::Json => writeln!(out, "{}", message.body()),
        NotifyOutput::Text => {
            // The text shows event times, because the timestamps of resent records do not show when the events
            // happened.
            let at_ms = match kind {
                MessageKind::Resolved => incident.last_event_ms,
                MessageKind::Opened | MessageKind::Updated => incident.first_event_ms,
            };
            writeln!(out, "{}  {}", format_seconds(at_ms), message.title())
        }
    }
}
