//! Inspects, creates and checks the tables and the config item.
//!
//! [`ensure`] does not need Kafka, so `citystream dev` also calls [`ensure`] for its embedded database.

mod wanted;

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{TableDescription, TableStatus};

use crate::core::keys::{TABLES, TOTALS, TableNames};
use crate::exit::SettingsError;
use crate::remedy;
use crate::settings::show_ms;
use crate::store::attributes::TTL;
use crate::store::config::{self, ConfigItem};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::protect::{self, Measure};
use crate::store::tables::{self, CHANGE_LIMIT, TableSpec};
use crate::tables::mark_settings;
use crate::tables::steps::{Finding, FindingOutcome, StepDisplay};

pub use wanted::WantedTables;

/// The advice in error messages about tables that were created with other settings.
const OTHER_PREFIX: &str = "use another --table-prefix for other values";

/// The tables and the config item that DynamoDB currently has.
#[derive(Debug)]
pub struct FoundTables {
    found: Vec<(TableSpec, Option<TableDescription>)>,
    /// The config item, which was read after the descriptions.
    pub(super) config: Option<ConfigItem>,
}

/// Requests the descriptions of all wanted tables and reads the config item, without changing anything.
///
/// # Errors
/// Returns the error of a failed request to DynamoDB, or an error about a damaged config item.
pub async fn inspect(
    client: &Client,
    names: &TableNames,
    wanted: &WantedTables,
) -> Result<FoundTables, StoreError> {
    let mut found = Vec::new();
    let incidents = wanted.incidents.then(|| tables::incidents_spec(names));
    for spec in tables::specs(names).into_iter().chain(incidents) {
        let description = tables::describe_table(client, &spec.name).await?;
        // A table that DynamoDB is deleting counts as missing.
        let stays = |found: &TableDescription| found.table_status() != Some(&TableStatus::Deleting);
        found.push((spec, description.filter(stays)));
    }
    // A table with unexpected keys cannot contain the config item. A table that DynamoDB is still creating is empty and
    // cannot be read yet.
    let readable = found.get(TOTALS).is_some_and(|(spec, description)| {
        let description = description.as_ref();
        description.is_some_and(|found| tables::differences(spec, found).is_empty())
    });
    let config = if readable {
        match config::read_config(client, names).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound => None,
            other => other?,
        }
    } else {
        None
    };
    Ok(FoundTables { found, config })
}

/// Returns an error if the settings in `wanted` conflict with existing tables and would make their data unusable.
///
/// # Errors
/// Returns a [`SettingsError`] with the differences, or the error of a failed request to DynamoDB.
pub async fn refuse(
    client: &Client,
    names: &TableNames,
    state: &FoundTables,
    wanted: &WantedTables,
) -> anyhow::Result<()> {
    for (spec, description) in &state.found {
        let Some(description) = description else {
            continue;
        };
        refuse_differences(spec, description).context("nothing was changed")?;
    }
    if let Some(config) = &state.config {
        let conflicts = wanted.conflicts(config);
        if !conflicts.is_empty() {
            let why = format!(
                "the tables of {} cannot be used with these settings: {}",
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
                "restore it, or start again with another --table-prefix or after --delete --yes",
            )
            .into());
    }
    Ok(())
}

/// Returns an error if the keys or the index of a table differ from the table's definition.
fn refuse_differences(spec: &TableSpec, found: &TableDescription) -> anyhow::Result<()> {
    let (table, differences) = (spec.name.clone(), tables::differences(spec, found));
    if differences.is_empty() {
        return Ok(());
    }
    Err(mark_settings(StoreError::Different { table, differences }))
}

/// Checks whether a table or the config item is missing although another table contains data. Returns the name of the
/// missing table or item, and the name of a table that contains data. Returns `None` if all tables and the config item
/// exist, or if no table contains data. The check ignores the incident table, because the incident table can be created
/// later.
async fn find_loss(
    client: &Client,
    state: &FoundTables,
) -> Result<Option<(String, String)>, StoreError> {
    let counting = &state.found[..TABLES.len()];
    let missing = counting.iter().find(|(_, found)| found.is_none());
    let lost = match missing {
        Some((spec, _)) => format!("table {}", spec.name),
        None if state.config.is_none() => "the config item".to_owned(),
        None => return Ok(None),
    };
    for (spec, found) in counting {
        if found.is_none() {
            continue;
        }
        match tables::holds_data(client, &spec.name).await {
            Ok(true) => return Ok(Some((lost, spec.name.clone()))),
            Ok(false) => {}
            // DynamoDB is still creating the table, so the table contains no data.
            Err(error) if error.kind() == StoreErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Creates the missing tables and the missing config item. The caller must call [`refuse`] before this function.
///
/// The tables are created one after another, because AWS allows the creation of only one table with an index at a time.
///
/// # Errors
/// Returns the error of a failed request to DynamoDB.
pub async fn make(
    client: &Client,
    names: &TableNames,
    state: FoundTables,
    wanted: &WantedTables,
    steps: &StepDisplay,
) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (spec, description) in &state.found {
        let verb = match description {
            None => "making",
            Some(_) => "checking",
        };
        let step = steps.begin(format!("{verb} table {}", spec.name));
        let is_new = description.is_none() && create(client, spec, wanted).await?;
        let changes = make_complete(client, names, spec, wanted).await?;
        let (outcome, notes) = match (is_new, changes.is_empty()) {
            (true, _) => (FindingOutcome::Made, Vec::new()),
            (false, true) => (FindingOutcome::Kept, Vec::new()),
            (false, false) => (FindingOutcome::Changed, changes),
        };
        step.end(outcome);
        let what = format!("table {}", spec.name);
        findings.push(Finding::with_notes(outcome, what, notes));
    }
    findings.push(make_config(client, names, wanted).await?);
    Ok(findings)
}

/// Waits until a table is active, and then turns on its TTL and the wanted protection measures. Returns one sentence
/// for each change that the function made.
async fn make_complete(
    client: &Client,
    names: &TableNames,
    spec: &TableSpec,
    wanted: &WantedTables,
) -> anyhow::Result<Vec<String>> {
    let active = tables::wait_active(client, &spec.name, CHANGE_LIMIT).await;
    let found = active.map_err(mark_settings)?;
    // Since the first inspection, another program may have created the table with different keys.
    refuse_differences(spec, &found)?;
    let mut changes = Vec::new();
    if let Some(ttl) = ttl_of(spec, names, wanted) {
        let was_off = tables::ensure_ttl(client, &spec.name, ttl).await;
        if was_off.map_err(mark_settings)? {
            changes.push(format!("TTL on {ttl} is now on"));
        }
    }
    let missing = protect::missing(client, &wanted.protection, &found).await;
    for measure in missing.map_err(|error| blame_option(error, None))? {
        let change = async || protect::take(client, &found, &measure).await;
        tables::repeat_while_busy(&spec.name, CHANGE_LIMIT, change)
            .await
            .map_err(|error| blame_option(error, Some(&measure)))?;
        // DynamoDB does not accept another change while it is still updating the table.
        let active = tables::wait_active(client, &spec.name, CHANGE_LIMIT).await;
        active.map_err(mark_settings)?;
        changes.push(format!("{measure} is now on"));
    }
    Ok(changes)
}

/// Creates one table. If DynamoDB is still deleting a table of the same name, the function first waits until the
/// deletion is complete. Returns `false` if the table already exists.
async fn create(
    client: &Client,
    spec: &TableSpec,
    wanted: &WantedTables,
) -> Result<bool, StoreError> {
    if tables::describe_table(client, &spec.name)
        .await?
        .is_some_and(|found| found.table_status() == Some(&TableStatus::Deleting))
    {
        tables::wait_gone(client, &spec.name, CHANGE_LIMIT).await?;
    }
    tables::create_protected(client, spec, &wanted.protection).await
}

/// Returns the attribute that holds the expiry time of a table's items, or `None` if the items do not expire.
fn ttl_of(spec: &TableSpec, names: &TableNames, wanted: &WantedTables) -> Option<&'static str> {
    let is_expiring = wanted.alerts_expire && spec.name == names.alerts;
    if is_expiring { Some(TTL) } else { spec.ttl }
}

/// Converts the error of a failed DynamoDB request. If the server rejects the request as unknown or invalid, the new
/// error names the command-line option that caused the request. `measure` is the protection measure that the request
/// should turn on, or `None` if the request only read the state of the measures.
fn blame_option(error: StoreError, measure: Option<&Measure>) -> anyhow::Error {
    let option = match (&error, measure) {
        (_, Some(measure)) => measure.option(),
        (StoreError::Request(request), None) if request.operation.contains("Tag") => "--tag",
        _ => "--pitr",
    };
    match error.code() {
        Some("UnknownOperationException" | "ValidationException") => {
            SettingsError(remedy::describe_error(&error.into()))
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
    wanted: &WantedTables,
) -> anyhow::Result<Finding> {
    let fresh = wanted.config();
    config::create_config(client, names, &fresh).await?;
    // If two processes create the config item at the same time, only one of them succeeds, but both processes read the
    // same item afterwards.
    let config = config::read_config(client, names)
        .await?
        .context("the config item is gone")?;
    let conflicts = wanted.conflicts(&config);
    if !conflicts.is_empty() {
        let error = SettingsError::new(conflicts.join("; ")).with_remedy(OTHER_PREFIX);
        return Err(error.into());
    }
    let mut notes = vec![show(&config)];
    let mut outcome = if config.tables_id == fresh.tables_id {
        FindingOutcome::Made
    } else {
        FindingOutcome::Kept
    };
    if let Some(shards) = wanted.shards
        && config::grow_shards(client, names, shards).await?
    {
        outcome = FindingOutcome::Changed;
        notes = vec![format!(
            "shards grew from {} to {shards}; restart serve or wait a minute, \
             then restart the consumers",
            config.shards
        )];
    }
    let what = format!("config item of {}", names.totals);
    Ok(Finding::with_notes(outcome, what, notes))
}

fn show(config: &ConfigItem) -> String {
    format!(
        "windows {}, lateness {}, skew {}, {} shards, raw {}",
        show_ms(config.rules.window_ms),
        show_ms(config.rules.lateness_ms),
        show_ms(config.rules.skew_ms),
        config.shards,
        config.raw.name()
    )
}

/// Inspects the tables, refuses impossible changes, and creates the tables and the config item if they are missing. On
/// success, the tables match `wanted`. Returns the config item and the findings.
///
/// # Errors
/// Returns the same errors as [`refuse`] and [`make`].
pub async fn ensure(
    client: &Client,
    names: &TableNames,
    wanted: &WantedTables,
    steps: &StepDisplay,
) -> anyhow::Result<(ConfigItem, Vec<Finding>)> {
    let state = inspect(client, names, wanted).await?;
    refuse(client, names, &state, wanted).await?;
    let findings = make(client, names, state, wanted, steps).await?;
    let config = config::read_config(client, names)
        .await?
        .context("the config item is gone")?;
    Ok((config, findings))
}

/// Compares the existing tables with the settings in `wanted`, without changing anything.
///
/// # Errors
/// Returns the error of a failed request to DynamoDB.
pub async fn check(
    client: &Client,
    names: &TableNames,
    wanted: &WantedTables,
) -> anyhow::Result<Vec<Finding>> {
    let state = inspect(client, names, wanted).await?;
    let mut findings = Vec::new();
    for (spec, description) in &state.found {
        let what = format!("table {}", spec.name);
        let Some(description) = description else {
            findings.push(Finding::new(FindingOutcome::Missing, what));
            continue;
        };
        let mut notes = tables::differences(spec, description);
        if let tables::TableReadiness::Never(failure) = tables::readiness(description) {
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
        let missing = missing.map_err(|error| blame_option(error, None))?;
        notes.extend(missing.iter().map(|m| format!("{m} is off")));
        let outcome = if notes.is_empty() {
            FindingOutcome::Kept
        } else {
            FindingOutcome::Differs
        };
        findings.push(Finding::with_notes(outcome, what, notes));
    }
    let what = format!("config item of {}", names.totals);
    findings.push(match &state.config {
        None => Finding::new(FindingOutcome::Missing, what),
        Some(config) => {
            let mut notes = wanted.conflicts(config);
            if let Some(shards) = wanted.shards.filter(|shards| *shards > config.shards) {
                notes.push(format!("has {} shards instead of {shards}", config.shards));
            }
            if notes.is_empty() {
                Finding::with_notes(FindingOutcome::Kept, what, vec![show(config)])
            } else {
                Finding::with_notes(FindingOutcome::Differs, what, notes)
            }
        }
    });
    if let Some((lost, full)) = find_loss(client, &state).await? {
        let note = format!("table {full} holds data without it");
        findings.push(Finding::with_notes(
            FindingOutcome::Differs,
            lost,
            vec![note],
        ));
    }
    Ok(findings)
}

#[cfg(test)]
#[cfg(feature = "dev")]
mod tests;
