//! How production protects its tables: deletion protection, point-in-time recovery, a key of one's
//! own, tags.
//!
//! None of it changes what is counted, so it can be switched on at any time and is never switched
//! off here: what nobody asked for is left as it is.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, SseSpecification, SseStatus,
    SseType, TableDescription, Tag,
};

use crate::store::error::StoreError;

/// What somebody wants for every table; nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// A table cannot be deleted before this is switched off by hand.
    pub deletion: bool,
    /// Any second of the last 35 days can be restored into a new table.
    pub pitr: bool,
    /// KMS key: id, ARN or `alias/…`.
    pub kms_key: Option<String>,
    /// Tags, name and value.
    pub tags: Vec<(String, String)>,
}

/// One measure that a table lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Deletion protection.
    Deletion,
    /// Point-in-time recovery.
    Pitr,
    /// Encryption with this key.
    Key(String),
    /// These tags.
    Tags(Vec<(String, String)>),
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
        }
    }
}

/// Returns what is wanted and a table lacks. Asks DynamoDB only for what the description does not
/// tell, and only if it is wanted.
///
/// # Errors
/// What DynamoDB answers.
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
    Ok(out)
}

/// DynamoDB tells the key's ARN, whatever way it was named; an alias cannot be compared with it, and
/// stands for any key of one's own.
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

/// Takes one measure on an active table.
///
/// # Errors
/// What DynamoDB answers.
pub async fn take(
    client: &Client,
    found: &TableDescription,
    measure: &Measure,
) -> Result<(), StoreError> {
    let table = found.table_name().unwrap_or_default();
    match measure {
        Measure::Deletion => {
            let request = client.update_table().table_name(table);
            let sent = request.deletion_protection_enabled(true).send().await;
            sent.map_err(|e| StoreError::from_sdk("UpdateTable", table, e))?;
        }
        Measure::Key(key) => {
            let request = client.update_table().table_name(table);
            let sent = request.sse_specification(sse(key)).send().await;
            sent.map_err(|e| StoreError::from_sdk("UpdateTable", table, e))?;
        }
        Measure::Pitr => {
            let on = PointInTimeRecoverySpecification::builder()
                .point_in_time_recovery_enabled(true)
                .build()
                .expect("its one part is set");
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
    }
    Ok(())
}

/// Returns encryption with a key of one's own.
pub fn sse(key: &str) -> SseSpecification {
    SseSpecification::builder()
        .enabled(true)
        .sse_type(SseType::Kms)
        .kms_master_key_id(key)
        .build()
}

/// Returns tags as the SDK has them.
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
    use aws_sdk_dynamodb::types::SseDescription;

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
    fn a_key_is_known_by_its_id_or_its_arn() {
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
