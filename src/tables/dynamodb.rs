//! The tables and the config item, looked at, refused, made or checked.
//!
//! [`ensure`] does it all and needs no Kafka; `dev` calls it for its embedded database.

mod wanted;

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{TableDescription, TableStatus};

use crate::core::keys::TableNames;
use crate::exit::SettingsError;
use crate::remedy;
use crate::settings::show_ms;
use crate::store::config::{self, Config};
use crate::store::error::{Kind, StoreError};
use crate::store::protect::{self, Measure};
use crate::store::tables::{self, CHANGE_LIMIT, TableSpec};
use crate::tables::mark_settings;
use crate::tables::steps::{Finding, Outcome, Steps};

/// What to do about tables that were made for other values.
const OTHER_PREFIX: &str = "use another --table-prefix for other values";

pub use wanted::Wanted;

/// The tables as they are.
#[derive(Debug)]
pub struct State {
    found: Vec<(TableSpec, Option<TableDescription>)>,
    config: Option<Config>,
}

/// Looks at all tables; changes nothing.
///
/// # Errors
/// What DynamoDB answers, or a damaged config item.
pub async fn inspect(client: &Client, names: &TableNames) -> Result<State, StoreError> {
    let mut found = Vec::new();
    for spec in tables::specs(names) {
        let description = tables::describe(client, &spec.name).await?;
        // A table that is being deleted is as good as gone.
        let stays = |found: &TableDescription| found.table_status() != Some(&TableStatus::Deleting);
        found.push((spec, description.filter(stays)));
    }
    // A table with other keys cannot be asked for the item. One that is being made cannot be read
    // yet, and holds nothing.
    let readable = found.last().is_some_and(|(spec, description)| {
        let description = description.as_ref();
        description.is_some_and(|found| tables::differences(spec, found).is_empty())
    });
    let config = if readable {
        match config::read_config(client, names).await {
            Err(error) if error.kind() == Kind::NotFound => None,
            other => other?,
        }
    } else {
        None
    };
    Ok(State { found, config })
}

/// Returns an error if the tables cannot become what is wanted without harm.
///
/// # Errors
/// A [`SettingsError`] that says what differs, or what DynamoDB answers.
pub async fn refuse(
    client: &Client,
    names: &TableNames,
    state: &State,
    wanted: &Wanted,
) -> anyhow::Result<()> {
    for (spec, description) in &state.found {
        let Some(description) = description else {
            continue;
        };
        let differences = tables::differences(spec, description);
        if !differences.is_empty() {
            let table = spec.name.clone();
            return Err(mark_settings(StoreError::Different { table, differences }))
                .context("nothing was changed");
        }
    }
    if let Some(config) = &state.config {
        let conflicts = wanted.conflicts(config);
        if !conflicts.is_empty() {
            let why = format!(
                "the tables of {} cannot be used so: {}",
                names.totals,
                conflicts.join("; ")
            );
            return Err(SettingsError::new("nothing was changed")
                .with_why(why)
                .with_remedy(OTHER_PREFIX)
                .into());
        }
    }
    if let Some((lost, full)) = find_loss(client, state).await? {
        return Err(SettingsError::new("nothing was changed")
            .with_why(format!("{lost} is missing while table {full} holds data"))
            .with_remedy(
                "restore it, or begin anew with another --table-prefix or after --delete --yes",
            )
            .into());
    }
    Ok(())
}

/// Returns what is missing and a table that holds data, if there are both.
async fn find_loss(client: &Client, state: &State) -> Result<Option<(String, String)>, StoreError> {
    let missing = state.found.iter().find(|(_, found)| found.is_none());
    let lost = match missing {
        Some((spec, _)) => format!("table {}", spec.name),
        None if state.config.is_none() => "the config item".to_owned(),
        None => return Ok(None),
    };
    for (spec, found) in &state.found {
        if found.is_none() {
            continue;
        }
        match tables::holds_data(client, &spec.name).await {
            Ok(true) => return Ok(Some((lost, spec.name.clone()))),
            Ok(false) => {}
            // Still being made.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Makes what is missing. Call [`refuse`] first.
///
/// Tables are made one after the other: AWS makes only one with an index at a time.
///
/// # Errors
/// What DynamoDB answers.
pub async fn make(
    client: &Client,
    names: &TableNames,
    state: State,
    wanted: &Wanted,
    steps: &Steps,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (spec, description) in &state.found {
        let verb = if description.is_none() {
            "making"
        } else {
            "checking"
        };
        let step = steps.begin(format!("{verb} table {}", spec.name));
        let made = description.is_none() && create(client, spec, wanted).await?;
        let active = tables::wait_active(client, &spec.name, CHANGE_LIMIT).await;
        let found = active.map_err(mark_settings)?;
        // Somebody else may have made it in the meantime.
        let differences = tables::differences(spec, &found);
        if !differences.is_empty() {
            let table = spec.name.clone();
            return Err(mark_settings(StoreError::Different { table, differences }));
        }
        let mut notes = Vec::new();
        if let Some(ttl) = ttl_of(spec, names, wanted) {
            let on = tables::ensure_ttl(client, &spec.name, ttl).await;
            if on.map_err(mark_settings)? && !made {
                notes.push(format!("TTL on {ttl} is on now"));
            }
        }
        let missing = protect::missing(client, &wanted.protection, &found).await;
        for measure in missing.map_err(|error| cannot(error, None))? {
            let change = async || protect::take(client, &found, &measure).await;
            tables::repeat_while_busy(&spec.name, CHANGE_LIMIT, change)
                .await
                .map_err(|error| cannot(error, Some(&measure)))?;
            // A table that is being updated takes no second change.
            let active = tables::wait_active(client, &spec.name, CHANGE_LIMIT).await;
            active.map_err(mark_settings)?;
            if !made {
                notes.push(format!("{measure} is on now"));
            }
        }
        let outcome = match (made, notes.is_empty()) {
            (true, _) => Outcome::Made,
            (false, true) => Outcome::Kept,
            (false, false) => Outcome::Changed,
        };
        step.end(outcome);
        let what = format!("table {}", spec.name);
        findings.push(Finding::with_notes(outcome, what, notes));
    }
    findings.push(make_config(client, names, wanted).await?);
    Ok(findings)
}

/// Makes a table, after the one of the same name that is being deleted is gone; returns `false` if it
/// exists.
async fn create(client: &Client, spec: &TableSpec, wanted: &Wanted) -> Result<bool, StoreError> {
    if tables::describe(client, &spec.name)
        .await?
        .is_some_and(|found| found.table_status() == Some(&TableStatus::Deleting))
    {
        tables::wait_gone(client, &spec.name, CHANGE_LIMIT).await?;
    }
    tables::create_protected(client, spec, &wanted.protection).await
}

/// Returns the attribute after which the rows of a table expire, if they do.
fn ttl_of(spec: &TableSpec, names: &TableNames, wanted: &Wanted) -> Option<&'static str> {
    let expire = wanted.alerts_expire && spec.name == names.alerts;
    if expire {
        Some(tables::TTL_ATTRIBUTE)
    } else {
        spec.ttl
    }
}

/// Marks an option that this DynamoDB does not know, or whose value it refuses, as one to be left out.
/// Without a measure the question was whether one is taken.
fn cannot(error: StoreError, measure: Option<&Measure>) -> anyhow::Error {
    let option = match (&error, measure) {
        (_, Some(measure)) => measure.option(),
        (StoreError::Request(request), None) if request.operation.contains("Tag") => "--tag",
        _ => "--pitr",
    };
    match error.code() {
        Some("UnknownOperationException" | "ValidationException") => {
            SettingsError(remedy::describe(&error.into()))
                .with_remedy(format!(
                    "correct {option}, or leave it out: emulators do not know all that AWS does"
                ))
                .into()
        }
        _ => mark_settings(error),
    }
}

async fn make_config(
    client: &Client,
    names: &TableNames,
    wanted: &Wanted,
) -> anyhow::Result<Finding> {
    let fresh = wanted.config();
    config::create_config(client, names, &fresh).await?;
    // Of two runs at once one wrote it; both read what stands there, and whose it is.
    let config = config::read_config(client, names)
        .await?
        .context("the config item vanished")?;
    let conflicts = wanted.conflicts(&config);
    if !conflicts.is_empty() {
        let error = SettingsError::new(conflicts.join("; ")).with_remedy(OTHER_PREFIX);
        return Err(error.into());
    }
    let mut notes = vec![show(&config)];
    let mut outcome = if config.tables_id == fresh.tables_id {
        Outcome::Made
    } else {
        Outcome::Kept
    };
    if let Some(shards) = wanted.shards
        && config::grow_shards(client, names, shards).await?
    {
        outcome = Outcome::Changed;
        notes = vec![format!(
            "shards grew from {} to {shards}; start serve anew or give it a minute, \
             then the consumers",
            config.shards
        )];
    }
    let what = format!("config item of {}", names.totals);
    Ok(Finding::with_notes(outcome, what, notes))
}

fn show(config: &Config) -> String {
    format!(
        "windows {}, lateness {}, skew {}, {} shards, raw {}",
        show_ms(config.rules.window_ms),
        show_ms(config.rules.lateness_ms),
        show_ms(config.rules.skew_ms),
        config.shards,
        config.raw.name()
    )
}

/// Looks, refuses and makes: the tables are as wanted afterwards. Returns the config item.
///
/// # Errors
/// As [`refuse`] and [`make`].
pub async fn ensure(
    client: &Client,
    names: &TableNames,
    wanted: &Wanted,
    steps: &Steps,
) -> anyhow::Result<(Config, Vec<Finding>)> {
    let state = inspect(client, names).await?;
    refuse(client, names, &state, wanted).await?;
    let findings = make(client, names, state, wanted, steps).await?;
    let config = config::read_config(client, names)
        .await?
        .context("the config item vanished")?;
    Ok((config, findings))
}

/// Compares; changes nothing.
///
/// # Errors
/// What DynamoDB answers.
pub async fn check(
    client: &Client,
    names: &TableNames,
    wanted: &Wanted,
) -> anyhow::Result<Vec<Finding>> {
    let state = inspect(client, names).await?;
    let mut findings = Vec::new();
    for (spec, description) in &state.found {
        let what = format!("table {}", spec.name);
        let Some(description) = description else {
            findings.push(Finding::new(Outcome::Missing, what));
            continue;
        };
        let mut notes = tables::differences(spec, description);
        if let tables::Readiness::Never(failure) = tables::readiness(description) {
            notes.push(failure.to_string());
        }
        if let Some(ttl) = ttl_of(spec, names, wanted) {
            match tables::ttl_is_on(client, &spec.name, ttl).await {
                Ok(true) => {}
                Ok(false) => notes.push(format!("TTL on {ttl} is off")),
                Err(StoreError::Different { differences, .. }) => notes.extend(differences),
                Err(error) => return Err(error.into()),
            }
        }
        let missing = protect::missing(client, &wanted.protection, description).await;
        let missing = missing.map_err(|error| cannot(error, None))?;
        notes.extend(missing.iter().map(|m| format!("{m} is off")));
        let outcome = if notes.is_empty() {
            Outcome::Kept
        } else {
            Outcome::Differs
        };
        findings.push(Finding::with_notes(outcome, what, notes));
    }
    let what = format!("config item of {}", names.totals);
    findings.push(match &state.config {
        None => Finding::new(Outcome::Missing, what),
        Some(config) => {
            let mut notes = wanted.conflicts(config);
            if let Some(shards) = wanted.shards.filter(|shards| *shards > config.shards) {
                notes.push(format!("has {} shards instead of {shards}", config.shards));
            }
            if notes.is_empty() {
                Finding::with_notes(Outcome::Kept, what, vec![show(config)])
            } else {
                Finding::with_notes(Outcome::Differs, what, notes)
            }
        }
    });
    if let Some((lost, full)) = find_loss(client, &state).await? {
        let note = format!("table {full} holds data without it");
        findings.push(Finding::with_notes(Outcome::Differs, lost, vec![note]));
    }
    Ok(findings)
}

#[cfg(test)]
#[cfg(feature = "dev")]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use std::time::Duration;

    use crate::core::window::Rules;
    use crate::settings::RawRows;
    use crate::store::embedded;
    use aws_sdk_dynamodb::types::AttributeValue;

    async fn start() -> (Client, TableNames) {
        let db = dynoxide::Database::memory().unwrap();
        let client = embedded::client(db).await.unwrap();
        (client, TableNames::new("init"))
    }

    async fn run(
        client: &Client,
        names: &TableNames,
        wanted: &Wanted,
    ) -> anyhow::Result<(Config, Vec<Finding>)> {
        ensure(client, names, wanted, &Steps::silent()).await
    }

    async fn put_row(client: &Client, names: &TableNames) {
        client
            .put_item()
            .table_name(&names.aggregations)
            .item("partition_key", AttributeValue::S("k".to_owned()))
            .send()
            .await
            .unwrap();
    }

    fn outcomes(findings: &[Finding]) -> Vec<Outcome> {
        findings.iter().map(|finding| finding.outcome).collect()
    }

    #[tokio::test]
    async fn d15_twice_makes_once_and_check_changes_nothing() {
        let (client, names) = start().await;
        let wanted = Wanted::default();
        let findings = check(&client, &names, &wanted).await.unwrap();
        assert_eq!(outcomes(&findings), [Outcome::Missing; 5]);
        let (first, findings) = run(&client, &names, &wanted).await.unwrap();
        assert_eq!(outcomes(&findings), [Outcome::Made; 5]);
        assert_eq!((first.shards, first.rules), (4, Rules::default()));
        put_row(&client, &names).await;
        let (second, findings) = run(&client, &names, &wanted).await.unwrap();
        assert_eq!(outcomes(&findings), [Outcome::Kept; 5]);
        assert_eq!(second, first);
        let findings = check(&client, &names, &wanted).await.unwrap();
        assert_eq!(outcomes(&findings), [Outcome::Kept; 5]);
    }

    #[tokio::test]
    async fn frozen_values_that_differ_exit_with_2_and_change_nothing() {
        let (client, names) = start().await;
        let made = Wanted {
            window_ms: Some(60_000),
            shards: Some(8),
            topic: Some("a".to_owned()),
            ..Wanted::default()
        };
        let (first, _) = run(&client, &names, &made).await.unwrap();
        config::set_topic(&client, &names, "a", "id").await.unwrap();
        let base = Wanted::default();
        for (wanted, word) in [
            (
                Wanted {
                    window_ms: Some(300_000),
                    ..base.clone()
                },
                "--window",
            ),
            (
                Wanted {
                    lateness_ms: Some(0),
                    ..base.clone()
                },
                "--lateness",
            ),
            (
                Wanted {
                    skew_ms: Some(1),
                    ..base.clone()
                },
                "--max-skew",
            ),
            (
                Wanted {
                    raw: Some(RawRows::None),
                    ..base.clone()
                },
                "--raw",
            ),
            (
                Wanted {
                    shards: Some(4),
                    ..base.clone()
                },
                "--shards",
            ),
            (
                Wanted {
                    topic: Some("b".to_owned()),
                    ..base.clone()
                },
                "--topic",
            ),
        ] {
            let error = run(&client, &names, &wanted).await.expect_err(word);
            assert_eq!(Exit::of(&error), Exit::Settings, "{error:#}");
            assert!(format!("{error:#}").contains(word), "{error:#}");
            let findings = check(&client, &names, &wanted).await.unwrap();
            assert_eq!(findings[4].outcome, Outcome::Differs, "{word}");
        }
        let (now, _) = run(&client, &names, &made).await.unwrap();
        assert_eq!((now.tables_id, now.rules), (first.tables_id, first.rules));
    }

    #[tokio::test]
    async fn shards_grow_and_check_asks_for_it() {
        let (client, names) = start().await;
        run(&client, &names, &Wanted::default()).await.unwrap();
        let wanted = Wanted {
            shards: Some(16),
            ..Wanted::default()
        };
        let findings = check(&client, &names, &wanted).await.unwrap();
        assert_eq!(findings[4].outcome, Outcome::Differs);
        let (config, findings) = run(&client, &names, &wanted).await.unwrap();
        assert_eq!((config.shards, findings[4].outcome), (16, Outcome::Changed));
    }

    #[tokio::test]
    async fn alerts_expire_only_where_that_is_asked_for() {
        let (client, names) = start().await;
        let plain = Wanted::default();
        let expiring = Wanted {
            alerts_expire: true,
            ..Wanted::default()
        };
        let is_on = async || {
            let on = tables::ttl_is_on(&client, &names.alerts, tables::TTL_ATTRIBUTE);
            on.await.unwrap()
        };
        run(&client, &names, &plain).await.unwrap();
        assert!(!is_on().await);
        let findings = check(&client, &names, &expiring).await.unwrap();
        assert_eq!(findings[2].notes, ["TTL on ttl is off"]);
        run(&client, &names, &expiring).await.unwrap();
        assert!(is_on().await);
        // It is never switched off.
        run(&client, &names, &plain).await.unwrap();
        assert!(is_on().await);
    }

    #[tokio::test]
    async fn a_lost_table_is_made_again_only_where_nothing_was_counted() {
        let (client, names) = start().await;
        let limit = Duration::from_secs(10);
        let wanted = Wanted::default();
        for lost in names.all() {
            run(&client, &names, &wanted).await.unwrap();
            tables::delete(&client, lost, limit).await.unwrap();
            let (_, findings) = run(&client, &names, &wanted).await.unwrap();
            assert!(outcomes(&findings).contains(&Outcome::Made), "{lost}");
        }
        put_row(&client, &names).await;
        for lost in [&names.raw, &names.alerts, &names.totals] {
            tables::delete(&client, lost, limit).await.unwrap();
            let error = run(&client, &names, &wanted).await.expect_err(lost);
            assert_eq!(Exit::of(&error), Exit::Settings, "{error:#}");
            assert!(tables::describe(&client, lost).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_table_with_other_keys_stops_everything() {
        let (client, names) = start().await;
        let wrong = TableSpec {
            name: names.totals.clone(),
            ..tables::specs(&names)[1].clone()
        };
        tables::create(&client, &wrong).await.unwrap();
        let wanted = Wanted::default();
        let error = run(&client, &names, &wanted).await.expect_err("keys");
        assert_eq!(Exit::of(&error), Exit::Settings, "{error:#}");
        assert!(format!("{error:#}").contains("(partition_key) instead of (shard, series)"));
        assert!(
            tables::describe(&client, &names.raw)
                .await
                .unwrap()
                .is_none()
        );
    }
}
