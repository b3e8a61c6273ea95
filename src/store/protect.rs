//! Applies protection measures to tables: deletion protection, point-in-time recovery, a customer's encryption key,
//! tags, and warm throughput. With warm throughput, a new table accepts the full rate of events at once.
//!
//! No measure changes the items of the tables, so `init-tables` can switch on each measure at any time. `init-tables`
//! switches on only the measures in its options, and never switches a measure off.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_table::builders::UpdateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    GlobalSecondaryIndexUpdate, PointInTimeRecoverySpecification, PointInTimeRecoveryStatus,
    SseSpecification, SseStatus, SseType, TableDescription, Tag, UpdateGlobalSecondaryIndexAction,
    WarmThroughput,
};

use crate::core::keys::{ALERTS, RAW, TABLES};
use crate::store::error::StoreError;

/// The protection measures that an operator requests for every table. The default is no measure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// True to switch on deletion protection. DynamoDB refuses to delete a protected table until an operator switches
    /// the protection off.
    pub deletion: bool,
    /// True to switch on point-in-time recovery. An operator can then restore the state of any second of the last 35
    /// days into a new table.
    pub pitr: bool,
    /// The KMS key that encrypts the tables, as its id, its ARN or `alias/…`.
    pub kms_key: Option<String>,
    /// The names and values of the tags for every table.
    pub tags: Vec<(String, String)>,
    /// The write units per second that the tables and indexes of raw events and alerts accept immediately. A new
    /// on-demand table accepts 4,000 write units per second. Under growing load, an on-demand table accepts up to twice
    /// its previous peak load.
    pub warm_writes: Option<u32>,
}

/// A protection measure that is not yet active on a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Switch on deletion protection for the table.
    Deletion,
    /// Switch on point-in-time recovery for the table.
    Pitr,
    /// Encrypt the table with the given KMS key.
    Key(String),
    /// Add the given tags to the table.
    Tags(Vec<(String, String)>),
    /// Raise the table's warm throughput to the given number of write units per second. If the second field names an
    /// index, the measure applies to the index and not to the table.
    Warm(u32, Option<String>),
}

impl Measure {
    /// Returns the option of `init-tables` that requests the measure.
    pub const fn option(&self) -> &'static str {
        match self {
            Measure::Deletion => "--deletion-protection",
            Measure::Pitr => "--pitr",
            Measure::Key(_) => "--kms-key",
            Measure::Tags(_) => "--tag",
            Measure::Warm(..) => "--warm-writes",
        }
    }
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Measure::Deletion => f.write_str("deletion protection"),
            Measure::Pitr => f.write_str("point-in-time recovery"),
            Measure::Key(key) => write!(f, "encryption with {key}"),
            Measure::Tags(tags) => {
                let names: Vec<&str> = tags.iter().map(|(name, _)| name.as_str()).collect();
                write!(f, "tags {}", names.join(", "))
            }
            Measure::Warm(units, None) => write!(f, "warm throughput of {units} write units/s"),
            Measure::Warm(units, Some(index)) => {
                write!(f, "warm throughput of {units} write units/s for {index}")
            }
        }
    }
}

/// Returns the measures in `wanted` that are not yet active on a table. The function sends a request only for a measure
/// whose state is missing from the description of the table.
///
/// # Errors
/// Returns the error from DynamoDB.
pub async fn missing(
    client: &Client,
    wanted: &Protection,
    found: &TableDescription,
) -> Result<Vec<Measure>, StoreError> {
    let mut out = Vec::new();
    if wanted.deletion && !found.deletion_protection_enabled().unwrap_or(false) {
        out.push(Measure::Deletion);
    }
    if let Some(key) = &wanted.kms_key
        && !is_encrypted_with(found, key)
    {
        out.push(Measure::Key(key.clone()));
    }
    let table = found.table_name().unwrap_or_default();
    if wanted.pitr && !pitr_is_on(client, table).await? {
        out.push(Measure::Pitr);
    }
    if !wanted.tags.is_empty() {
        let there = tags(client, table, found.table_arn().unwrap_or_default()).await?;
        let lacking: Vec<(String, String)> = wanted
            .tags
            .iter()
            .filter(|tag| !there.contains(tag))
            .cloned()
            .collect();
        if !lacking.is_empty() {
            out.push(Measure::Tags(lacking));
        }
    }
    if let Some(units) = wanted.warm_writes {
        out.extend(cold(found, units));
    }
    Ok(out)
}

/// Returns the measures that raise the warm throughput of a table and its indexes to `units` write units per second.
/// The list is empty if the warm throughput is high enough, and for tables without one item per event. The list is also
/// empty for an emulator, because emulators do not report warm throughput.
fn cold(found: &TableDescription, units: u32) -> Vec<Measure> {
    if !found.table_name().is_some_and(gets_puts) {
        return Vec::new();
    }
    let is_cold = |units_now: Option<i64>| units_now.is_some_and(|now| now < i64::from(units));
    let warm = found.warm_throughput();
    let mut out = Vec::new();
    if is_cold(warm.and_then(|warm| warm.write_units_per_second())) {
        out.push(Measure::Warm(units, None));
    }
    for index in found.global_secondary_indexes() {
        let warm = index.warm_throughput();
        if is_cold(warm.and_then(|warm| warm.write_units_per_second())) {
            out.push(Measure::Warm(units, index.index_name().map(str::to_owned)));
        }
    }
    out
}

/// Returns true if consumers put one item per event into a table, instead of updating rows of counts.
pub fn gets_puts(table: &str) -> bool {
    [TABLES[RAW], TABLES[ALERTS]]
        .iter()
        .any(|suffix| table.ends_with(&format!("-{suffix}")))
}

/// Returns the SDK's representation of a warm throughput of `units` write units per second.
pub fn warm(units: u32) -> WarmThroughput {
    WarmThroughput::builder()
        .write_units_per_second(i64::from(units))
        .build()
}

/// Returns true if a table is encrypted with `key`. DynamoDB always reports the ARN of the key. The function cannot
/// compare an alias with an ARN, so an alias matches any customer-managed key.
fn is_encrypted_with(found: &TableDescription, key: &str) -> bool {
    let Some(sse) = found.sse_description() else {
        return false;
    };
    let on = matches!(
        sse.status(),
        Some(SseStatus::Enabled | SseStatus::Enabling | SseStatus::Updating)
    );
    let arn = sse.kms_master_key_arn().unwrap_or_default();
    on && (key.contains("alias/") || arn == key || arn.ends_with(&format!("/{key}")))
}

async fn pitr_is_on(client: &Client, table: &str) -> Result<bool, StoreError> {
    let answer = client
        .describe_continuous_backups()
        .table_name(table)
        .send()
        .await
        .map_err(|error| StoreError::from_sdk("DescribeContinuousBackups", table, error))?;
    let status = answer
        .continuous_backups_description()
        .and_then(|d| d.point_in_time_recovery_description())
        .and_then(|d| d.point_in_time_recovery_status());
    Ok(status == Some(&PointInTimeRecoveryStatus::Enabled))
}

async fn tags(
    client: &Client,
    table: &str,
    arn: &str,
) -> Result<Vec<(String, String)>, StoreError> {
    let mut out = Vec::new();
    let mut next = None;
    loop {
        let answer = client
            .list_tags_of_resource()
            .resource_arn(arn)
            .set_next_token(next)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("ListTagsOfResource", table, error))?;
        out.extend(
            answer
                .tags()
                .iter()
                .map(|t| (t.key().to_owned(), t.value().to_owned())),
        );
        next = answer.next_token;
        if next.is_none() {
            return Ok(out);
        }
    }
}

/// Applies a protection measure to an active table.
///
/// # Errors
/// Returns the error from DynamoDB.
pub async fn take(
    client: &Client,
    found: &TableDescription,
    measure: &Measure,
) -> Result<(), StoreError> {
    let table = found.table_name().unwrap_or_default();
    let request = client.update_table().table_name(table);
    match measure {
        Measure::Deletion => update(table, request.deletion_protection_enabled(true)).await?,
        Measure::Key(key) => update(table, request.sse_specification(sse(key))).await?,
        Measure::Pitr => {
            let on = PointInTimeRecoverySpecification::builder()
                .point_in_time_recovery_enabled(true)
                .build()
                .expect("its only field is set");
            let request = client.update_continuous_backups().table_name(table);
            let sent = request
                .point_in_time_recovery_specification(on)
                .send()
                .await;
            sent.map_err(|e| StoreError::from_sdk("UpdateContinuousBackups", table, e))?;
        }
        Measure::Tags(tags) => {
            let arn = found.table_arn().unwrap_or_default();
            let request = client.tag_resource().resource_arn(arn);
            let sent = request.set_tags(Some(sdk_tags(tags))).send().await;
            sent.map_err(|e| StoreError::from_sdk("TagResource", table, e))?;
        }
        Measure::Warm(units, index) => {
            let request = match index {
                None => request.warm_throughput(warm(*units)),
                Some(index) => {
                    let update = UpdateGlobalSecondaryIndexAction::builder()
                        .index_name(index)
                        .warm_throughput(warm(*units))
                        .build()
                        .expect("the name is set");
                    let update = GlobalSecondaryIndexUpdate::builder().update(update).build();
                    request.global_secondary_index_updates(update)
                }
            };
            update(table, request).await?;
        }
    }
    Ok(())
}

async fn update(table: &str, request: UpdateTableFluentBuilder) -> Result<(), StoreError> {
    let sent = request.send().await;
    sent.map(drop)
        .map_err(|error| StoreError::from_sdk("UpdateTable", table, error))
}

/// Returns the SDK's specification for encryption with the customer-managed key `key`.
pub fn sse(key: &str) -> SseSpecification {
    SseSpecification::builder()
        .enabled(true)
        .sse_type(SseType::Kms)
        .kms_master_key_id(key)
        .build()
}

/// Returns the SDK's representation of the tags.
pub fn sdk_tags(tags: &[(String, String)]) -> Vec<Tag> {
    let tag = |(name, value): &(String, String)| {
        let tag = Tag::builder().key(name).value(value).build();
        tag.expect("both parts are set")
    };
    tags.iter().map(tag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::types::{
        GlobalSecondaryIndexDescription, GlobalSecondaryIndexWarmThroughputDescription,
        SseDescription, TableWarmThroughputDescription,
    };

    fn table(arn: Option<&str>) -> TableDescription {
        let sse = arn.map(|arn| {
            SseDescription::builder()
                .status(SseStatus::Enabled)
                .kms_master_key_arn(arn)
                .build()
        });
        TableDescription::builder().set_sse_description(sse).build()
    }

    #[test]
    fn only_a_table_or_index_that_accepts_too_little_is_warmed() {
        let index = |units| {
            GlobalSecondaryIndexDescription::builder()
                .index_name("i")
                .warm_throughput(described_index(units))
                .build()
        };
        let table = |name: &str, units, of_index| {
            TableDescription::builder()
                .table_name(name)
                .warm_throughput(described(units))
                .global_secondary_indexes(index(of_index))
                .build()
        };
        let both = vec![
            Measure::Warm(20_000, None),
            Measure::Warm(20_000, Some("i".to_owned())),
        ];
        assert_eq!(cold(&table("x-raw-events", 4_000, 4_000), 20_000), both);
        assert_eq!(cold(&table("x-alerts", 20_000, 4_000), 20_000), both[1..]);
        assert_eq!(cold(&table("x-raw-events", 40_000, 20_000), 20_000), []);
        assert_eq!(cold(&table("x-totals", 4_000, 4_000), 20_000), []);
        let emulated = TableDescription::builder().table_name("x-alerts").build();
        assert_eq!(cold(&emulated, 20_000), []);
    }

    fn described(units: i64) -> TableWarmThroughputDescription {
        TableWarmThroughputDescription::builder()
            .write_units_per_second(units)
            .build()
    }

    fn described_index(units: i64) -> GlobalSecondaryIndexWarmThroughputDescription {
        GlobalSecondaryIndexWarmThroughputDescription::builder()
            .write_units_per_second(units)
            .build()
    }

    #[test]
    fn a_key_matches_by_its_id_or_its_arn() {
        let arn = "arn:aws:kms:eu-west-1:123456789012:key/abc";
        for (found, key, same) in [
            (Some(arn), arn, true),
            (Some(arn), "abc", true),
            (Some(arn), "bc", false),
            (Some(arn), "alias/tables", true),
            (None, "abc", false),
        ] {
            assert_eq!(
                is_encrypted_with(&table(found), key),
                same,
                "{found:?} {key}"
            );
        }
    }
}
