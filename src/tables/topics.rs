//! Inspects, creates, checks and deletes the topic of events and the dead-letter topic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::kafka::admin::{Admin, AdminError};
use crate::kafka::topic_spec::{TopicSpec, differences};
use crate::settings::InitTables;
use crate::sys::TopicFacts;
use crate::tables::steps::{Finding, FindingOutcome, StepDisplay};

/// Replication factor of new topics if there are enough brokers and `--replication` is not given.
const REPLICATION_DEFAULT: i32 = 3;
/// Maximum wait until all brokers report a new topic, or until no broker reports a deleted topic.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Maximum wait for the brokers to elect a controller.
const CONTROLLER_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two requests to the brokers.
const SETTLE_POLL: Duration = Duration::from_millis(200);

/// The specifications of the topic of events and the dead-letter topic, in this order.
#[derive(Clone, Debug)]
pub struct Specs {
    replication: i32,
    topics: [TopicSpec; 2],
}

impl Specs {
    fn describe(&self, spec: &TopicSpec) -> String {
        let (partitions, replication) = (spec.partitions, self.replication);
        format!("{partitions} partitions, replication {replication}")
    }
}

/// Returns the specifications of the two topics for a cluster with `brokers` brokers.
pub fn specs(args: &InitTables, brokers: usize) -> Specs {
    let most = i32::try_from(brokers).unwrap_or(REPLICATION_DEFAULT);
    let replication = args
        .replication
        .unwrap_or_else(|| most.clamp(1, REPLICATION_DEFAULT));
    Specs {
        replication,
        topics: [
            TopicSpec::events(&args.kafka.topic, args.partitions, replication),
            TopicSpec::dead_letters(&args.kafka.dlq_topic(), replication),
        ],
    }
}

/// The state that an inspection found for a topic, or `None` if the topic does not exist. The tuple contains the facts
/// about the topic, the differences from the topic's specification, and a note if the brokers do not report the topic's
/// settings.
pub type FoundTopic = Option<(TopicFacts, Vec<String>, Option<String>)>;

/// Inspects the two topics, without changing anything.
///
/// # Errors
/// Returns the error of a failed request to Kafka.
pub async fn inspect(admin: &Admin, specs: &Specs) -> anyhow::Result<[FoundTopic; 2]> {
    Ok([
        inspect_one(admin, &specs.topics[0]).await?,
        inspect_one(admin, &specs.topics[1]).await?,
    ])
}

async fn inspect_one(admin: &Admin, spec: &TopicSpec) -> anyhow::Result<FoundTopic> {
    let Some(facts) = admin.topic(&spec.name).await? else {
        return Ok(None);
    };
    let (actual, untold) = match admin.topic_config(&spec.name).await {
        // Some servers support only part of Kafka's protocol. If a server does not report a topic's settings, the
        // function does not compare the settings.
        Err(error @ AdminError::Unsupported { .. }) => (BTreeMap::new(), Some(error.to_string())),
        answer => (answer?, None),
    };
    let notes = differences(spec, facts.partitions, &actual);
    let (_, reduced) = spec.reduced();
    let possible = differences(&reduced, facts.partitions, &actual);
    let notes = if possible.len() < notes.len() && are_refused(admin, spec).await {
        possible
    } else {
        notes
    };
    Ok(Some((facts, notes, untold)))
}

/// Returns true if the brokers refuse some of the settings of a topic. The function asks the brokers to validate a new
/// topic with the same settings, without creating the topic. If the brokers cannot validate a new topic, the function
/// assumes that the brokers accept the settings.
async fn are_refused(admin: &Admin, spec: &TopicSpec) -> bool {
    let probe = TopicSpec {
        name: format!("{}-settings-probe", spec.name),
        ..spec.clone()
    };
    let tried = admin.try_create_topic(&probe, 1).await;
    tried.is_ok_and(|creation| !creation.left_out.is_empty())
}

/// Returns an error if a topic is missing and no broker can create topics. A server that supports only part of Kafka's
/// protocol, such as `citystream dev`, cannot create topics.
///
/// # Errors
/// Returns [`AdminError::NoController`] if the brokers elect no controller in time.
pub async fn refuse(admin: &Admin, specs: &Specs, found: &[FoundTopic; 2]) -> anyhow::Result<()> {
    let missing = specs.topics.iter().zip(found).find(|(_, f)| f.is_none());
    let Some((spec, _)) = missing else {
        return Ok(());
    };
    let begin = Instant::now();
    while !admin.has_controller(&spec.name).await? {
        if begin.elapsed() >= CONTROLLER_LIMIT {
            let topic = spec.name.clone();
            let error = AdminError::NoController { topic };
            anyhow::bail!(
                Failure::new("nothing was changed")
                    .with_why(error.to_string())
                    .with_remedy("use an existing topic, or try again when the brokers work again")
            );
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
    Ok(())
}

/// Creates the missing topics. Returns the findings for the two topics, and the facts about the topic of events.
///
/// # Errors
/// Returns the error of a failed request to Kafka.
pub async fn make(
    admin: &Admin,
    specs: &Specs,
    found: [FoundTopic; 2],
    steps: &StepDisplay,
) -> anyhow::Result<(Vec<Finding>, TopicFacts)> {
    let mut findings = Vec::new();
    let mut all_facts = Vec::new();
    for (spec, found) in specs.topics.iter().zip(found) {
        let what = format!("topic {}", spec.name);
        if let Some((facts, mut notes, untold)) = found {
            notes.extend(untold);
            findings.push(Finding::with_notes(FindingOutcome::Kept, what, notes));
            all_facts.push(facts);
            continue;
        }
        let step = steps.begin(format!("making {what}"));
        let creation = admin.create_topic(spec, specs.replication).await?;
        let facts = settle(admin, spec).await?;
        let outcome = if creation.made {
            FindingOutcome::Made
        } else {
            FindingOutcome::Kept
        };
        step.end(outcome);
        let notes = [specs.describe(spec)]
            .into_iter()
            .chain(creation.note())
            .collect();
        findings.push(Finding::with_notes(outcome, what, notes));
        all_facts.push(facts);
    }
    // The first element of `all_facts` belongs to the topic of events.
    Ok((findings, all_facts.swap_remove(0)))
}

/// Returns a finding for each topic that is missing.
pub fn missing(specs: &Specs, found: &[FoundTopic; 2]) -> Vec<Finding> {
    let missing = specs.topics.iter().zip(found).filter(|(_, f)| f.is_none());
    missing
        .map(|(spec, _)| {
            let what = format!("topic {}", spec.name);
            Finding::with_notes(FindingOutcome::Missing, what, vec![specs.describe(spec)])
        })
        .collect()
}

/// Waits until the brokers report a new topic with all its partitions.
async fn settle(admin: &Admin, spec: &TopicSpec) -> anyhow::Result<TopicFacts> {
    let begin = Instant::now();
    loop {
        match admin.topic(&spec.name).await {
            Ok(Some(facts)) => return Ok(facts),
            Err(error) if begin.elapsed() >= SETTLE_LIMIT => return Err(error.into()),
            Ok(None) if begin.elapsed() >= SETTLE_LIMIT => {
                anyhow::bail!(
                    "topic {} was created, but the brokers do not report it",
                    spec.name
                )
            }
            Ok(None) | Err(_) => tokio::time::sleep(SETTLE_POLL).await,
        }
    }
}

/// Compares the topics with their specifications, without changing anything. Returns the findings, and the facts about
/// the topic of events.
///
/// # Errors
/// Returns the error of a failed request to Kafka.
pub async fn check(
    admin: &Admin,
    specs: &Specs,
) -> anyhow::Result<(Vec<Finding>, Option<TopicFacts>)> {
    let found = inspect(admin, specs).await?;
    let mut findings = Vec::new();
    for (spec, found) in specs.topics.iter().zip(&found) {
        let what = format!("topic {}", spec.name);
        findings.push(match found {
            None => {
                // The function ignores an error of the validation request, because a later run without `--check`
                // reports why the topic cannot be created.
                let tried = admin.try_create_topic(spec, specs.replication).await;
                let note = tried.ok().and_then(|creation| creation.note());
                Finding::with_notes(FindingOutcome::Missing, what, note.into_iter().collect())
            }
            Some((_, notes, untold)) if notes.is_empty() => Finding::with_notes(
                FindingOutcome::Kept,
                what,
                untold.clone().into_iter().collect(),
            ),
            Some((_, notes, _)) => {
                Finding::with_notes(FindingOutcome::Differs, what, notes.clone())
            }
        });
    }
    let [events, _] = found;
    Ok((findings, events.map(|(facts, ..)| facts)))
}

/// Deletes a topic, and waits until the brokers no longer report the topic.
///
/// # Errors
/// Returns the error of a failed request to Kafka.
pub async fn delete(admin: &Admin, name: &str, steps: &StepDisplay) -> anyhow::Result<Finding> {
    let step = steps.begin(format!("deleting topic {name}"));
    let deleted = admin.delete_topic(name).await?;
    let begin = Instant::now();
    while deleted && admin.topic(name).await?.is_some() {
        if begin.elapsed() >= SETTLE_LIMIT {
            anyhow::bail!("topic {name} was deleted, but the brokers still report it");
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
    let outcome = if deleted {
        FindingOutcome::Deleted
    } else {
        FindingOutcome::Absent
    };
    step.end(outcome);
    Ok(Finding::new(outcome, format!("topic {name}")))
}
