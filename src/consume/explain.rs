//! The error messages of a consumer that stops because an operator must fix a problem.

use crate::core::event::Offset;
use crate::core::keys::{self, TableNames};
use crate::core::pipeline::Halt;
use crate::core::restart::Boundary;
use crate::exit::SettingsError;

/// The names of the topic, the consumer group and the tables, for use in messages.
pub(super) struct Names<'a> {
    pub(super) topic: &'a str,
    pub(super) topic_id: &'a str,
    pub(super) group: &'a str,
    pub(super) tables: &'a TableNames,
}

/// Returns an error message that states the problem, the reason why the consumer stops, and the remedy.
pub(super) fn explain_halt(halt: &Halt, names: &Names<'_>) -> SettingsError {
    let topic = names.topic;
    match halt {
        Halt::Unreadable {
            partition,
            next,
            progress,
        } => explain_unreadable(*partition, *next, *progress, names),
        Halt::Expired {
            partition,
            from,
            to,
        } => lost_records(topic, *partition)
            .with_why(format!(
                "retention removed records {from} to {to} (exclusive) before they were read, {} records",
                to.0 - from.0
            ))
            .with_remedy(format!(
                "--on-data-loss continue counts them as lost and continues at {to}"
            )),
        Halt::Truncated {
            partition,
            from,
            end,
        } => lost_records(topic, *partition)
            .with_why(format!(
                "the log ends at {end}, before offset {from} where reading would continue, so records {end} to {from} (exclusive) were cut off its end"
            ))
            .with_remedy(format!(
                "--on-data-loss continue waits until the log has grown past {from} and counts them as lost"
            )),
        Halt::Replaced {
            partition,
            from,
            since,
        } => lost_records(topic, *partition)
            .with_why(format!(
                "a new leader without records {since} to {from} (exclusive), which are counted, gave their offsets to other records"
            ))
            .with_remedy(format!(
                "--on-data-loss continue counts the other records as lost and continues at {from}; citystream verify names the rows that differ"
            )),
        Halt::TableMissing { table } => SettingsError::new(format!(
            "table {}, or its config item, is missing while this consumer counts into it",
            names.tables.all()[*table]
        ))
        .with_why("it was deleted; this consumer has stopped writing, because it cannot tell a restored table from an empty one")
        .with_remedy(TABLES_REMEDY),
        Halt::TablesReplaced { was, is } => SettingsError::new(format!(
            "the tables {}… were replaced while this consumer counts into them",
            names.tables.totals
        ))
        .with_why(format!(
            "their id was {was} and is {is}; this consumer has stopped writing, because its unwritten counts belong to the former tables"
        ))
        .with_remedy("start all consumers again: they count the log from its beginning into the new tables"),
    }
}

fn explain_unreadable(
    partition: i32,
    next: Offset,
    progress: Option<Boundary>,
    names: &Names<'_>,
) -> SettingsError {
    let (topic, group) = (names.topic, names.group);
    let there = match progress {
        Some(at) => {
            let log_key = keys::log_key(names.topic_id, partition);
            format!("offset {} (progress item {log_key})", at.next)
        }
        None => "the beginning of the log".to_owned(),
    };
    SettingsError::new(format!(
        "group {group} has committed offset {next} of {topic} partition {partition} without this program's metadata"
    ))
    .with_why("a tool that resets offsets made that commit, and counts from there would not be exact")
    .with_remedy(format!(
        "stop all members, run kafka-consumer-groups --delete-offsets --group {group} --topic {topic}, and start again: it then continues at {there}"
    ))
}

fn lost_records(topic: &str, partition: i32) -> SettingsError {
    SettingsError::new(format!("lost records of {topic} partition {partition}"))
}

const TABLES_REMEDY: &str = "stop all consumers; restore all four tables to one moment, or delete the other tables one by one (init-tables --delete would delete the topic too) and run citystream init-tables; then start the consumers";
