//! The two topics, looked at, made, checked or deleted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::kafka::admin::{Admin, AdminError, TopicSpec, differences};
use crate::settings::InitTables;
use crate::sys::TopicFacts;
use crate::tables::steps::{Finding, Outcome, Steps};

/// Replication of new topics where nobody says otherwise and there are enough brokers.
const REPLICATION_DEFAULT: i32 = 3;
/// How long a new topic may take to be seen by all brokers, and a deleted one to be forgotten.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// How long brokers may be without a controller, while they elect another.
const CONTROLLER_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two looks.
const SETTLE_POLL: Duration = Duration::from_millis(200);

/// Both topics as they should be, the one of events first.
#[derive(Clone, Debug)]
pub struct Specs {
    replication: i32,
    topics: [TopicSpec; 2],
}

/// Returns both topics for a cluster of so many brokers.
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

/// A topic as it is: its facts, what differs from what it should be, and what the brokers do not tell.
pub type Found = Option<(TopicFacts, Vec<String>, Option<String>)>;

/// Looks at both topics; changes nothing.
///
/// # Errors
/// What Kafka answers.
pub async fn inspect(admin: &Admin, specs: &Specs) -> anyhow::Result<[Found; 2]> {
    Ok([
        inspect_one(admin, &specs.topics[0]).await?,
        inspect_one(admin, &specs.topics[1]).await?,
    ])
}

async fn inspect_one(admin: &Admin, spec: &TopicSpec) -> anyhow::Result<Found> {
    let Some(facts) = admin.topic(&spec.name).await? else {
        return Ok(None);
    };
    let (actual, untold) = match admin.topic_config(&spec.name).await {
        // Brokers that only speak like Kafka: what they do not tell is not compared.
        Err(error @ AdminError::Untold { .. }) => (BTreeMap::new(), Some(error.to_string())),
        answer => (answer?, None),
    };
    let notes = differences(spec, facts.partitions, &actual);
    let (_, reduced) = spec.reduced();
    let mendable = differences(&reduced, facts.partitions, &actual);
    let notes = if mendable.len() < notes.len() && are_refused(admin, spec).await {
        mendable
    } else {
        notes
    };
    Ok(Some((facts, notes, untold)))
}

/// Returns whether the brokers refuse settings of a topic, asked by the creation of another topic that
/// is only validated. Where that cannot be asked, the settings count as accepted.
async fn are_refused(admin: &Admin, spec: &TopicSpec) -> bool {
    let probe = TopicSpec {
        name: format!("{}-settings-probe", spec.name),
        ..spec.clone()
    };
    let tried = admin.try_create_topic(&probe, 1).await;
    tried.is_ok_and(|creation| !creation.left_out.is_empty())
}

/// Refuses to make a topic where no broker makes any: what only speaks like Kafka, such as `citystream dev`.
///
/// # Errors
/// [`AdminError::NoController`], after a moment for a controller that is being elected.
pub async fn refuse(admin: &Admin, specs: &Specs, found: &[Found; 2]) -> anyhow::Result<()> {
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
                    .with_remedy(
                        "use a topic that is there, or try again when the brokers are well"
                    )
            );
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
    Ok(())
}

/// Makes what is missing; returns the facts of the topic of events.
///
/// # Errors
/// What Kafka answers.
pub async fn make(
    admin: &Admin,
    specs: &Specs,
    found: [Found; 2],
    steps: &Steps,
) -> anyhow::Result<(Vec<Finding>, TopicFacts)> {
    let mut findings = Vec::new();
    let mut all_facts = Vec::new();
    for (spec, found) in specs.topics.iter().zip(found) {
        let what = format!("topic {}", spec.name);
        if let Some((facts, mut notes, untold)) = found {
            notes.extend(untold);
            findings.push(Finding::with_notes(Outcome::Kept, what, notes));
            all_facts.push(facts);
            continue;
        }
        let step = steps.begin(format!("making {what}"));
        let creation = admin.create_topic(spec, specs.replication).await?;
        let facts = settle(admin, spec).await?;
        let outcome = if creation.made {
            Outcome::Made
        } else {
            Outcome::Kept
        };
        step.end(outcome);
        let note = format!(
            "{} partitions, replication {}",
            spec.partitions, specs.replication
        );
        let notes = [note].into_iter().chain(creation.note()).collect();
        findings.push(Finding::with_notes(outcome, what, notes));
        all_facts.push(facts);
    }
    // Two specs, so two facts.
    Ok((findings, all_facts.swap_remove(0)))
}

/// Returns a finding for each topic that is missing.
pub fn lacks(specs: &Specs, found: &[Found; 2]) -> Vec<Finding> {
    let missing = specs.topics.iter().zip(found).filter(|(_, f)| f.is_none());
    missing
        .map(|(spec, _)| {
            let note = format!(
                "{} partitions, replication {}",
                spec.partitions, specs.replication
            );
            let what = format!("topic {}", spec.name);
            Finding::with_notes(Outcome::Missing, what, vec![note])
        })
        .collect()
}

/// Waits until a new topic is seen with all its partitions.
async fn settle(admin: &Admin, spec: &TopicSpec) -> anyhow::Result<TopicFacts> {
    let begin = Instant::now();
    loop {
        match admin.topic(&spec.name).await {
            Ok(Some(facts)) => return Ok(facts),
            Err(error) if begin.elapsed() >= SETTLE_LIMIT => return Err(error.into()),
            Ok(None) if begin.elapsed() >= SETTLE_LIMIT => {
                anyhow::bail!("topic {} was made but cannot be seen", spec.name)
            }
            Ok(None) | Err(_) => tokio::time::sleep(SETTLE_POLL).await,
        }
    }
}

/// Compares; changes nothing. Returns the facts of the topic of events, too.
///
/// # Errors
/// What Kafka answers.
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
                // What keeps it from being made is reported when it is made.
                let tried = admin.try_create_topic(spec, specs.replication).await;
                let note = tried.ok().and_then(|creation| creation.note());
                Finding::with_notes(Outcome::Missing, what, note.into_iter().collect())
            }
            Some((_, notes, untold)) if notes.is_empty() => {
                Finding::with_notes(Outcome::Kept, what, untold.clone().into_iter().collect())
            }
            Some((_, notes, _)) => Finding::with_notes(Outcome::Differs, what, notes.clone()),
        });
    }
    let [events, _] = found;
    Ok((findings, events.map(|(facts, ..)| facts)))
}

/// Deletes a topic and waits until it is forgotten.
///
/// # Errors
/// What Kafka answers.
pub async fn delete(admin: &Admin, name: &str, steps: &Steps) -> anyhow::Result<Finding> {
    let step = steps.begin(format!("deleting topic {name}"));
    let deleted = admin.delete_topic(name).await?;
    let begin = Instant::now();
    while deleted && admin.topic(name).await?.is_some() {
        if begin.elapsed() >= SETTLE_LIMIT {
            anyhow::bail!("topic {name} was deleted but is still seen");
        }
        tokio::time::sleep(SETTLE_POLL).await;
    }
    let outcome = if deleted {
        Outcome::Deleted
    } else {
        Outcome::Absent
    };
    step.end(outcome);
    Ok(Finding::new(outcome, format!("topic {name}")))
}
