//! Reads and writes the incident table, which holds incidents, checkpoints and silences.
//!
//! | item | `rule` | `incident` |
//! |---|---|---|
//! | an incident | the rule's name | `<topic id>#<partition>#<offset>` |
//! | the checkpoint of a partition | `#checkpoint` | `<topic id>#<partition>` |
//! | a silence | `#silence` | its id |
//!
//! A write replaces all attributes of an incident if the stored fence `next` is smaller than the new fence. All writers
//! process the same log, so two versions of a row with the same fence are equal. The attribute `sent#<receiver>` of an
//! incident's row stores the last message to that receiver. A write of the attribute `sent#<receiver>` has its own
//! condition, which compares the stored message.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};

use crate::core::incident::Incident;
use crate::core::incident::outbox::Sent;
use crate::core::incident::silence::Silence;
use crate::core::keys::{CHECKPOINT_PK, SILENCE_PK, TableNames, log_key};
use crate::failure::Failure;
use crate::store::answers::Flaw;
use crate::store::attributes::{INCIDENT, Item, NEXT, RULE, string, text};
use crate::store::error::StoreError;
use crate::store::incident_items::{
    checkpoint_item, checkpoint_of, incident_item, incident_of, sent_attribute, sent_item, sent_of,
    silence_item, silence_of,
};
use crate::store::requests::refusing_item;

pub use crate::store::incident_items::{StoredBase, StoredCheckpoint, StoredIncident};

/// Reads and writes the items of the incident table.
#[derive(Clone)]
pub struct IncidentTable {
    client: Client,
    table: Arc<str>,
}

impl IncidentTable {
    /// Returns a handle for the table with the name `table`.
    pub fn new(client: Client, table: &str) -> IncidentTable {
        IncidentTable {
            client,
            table: table.into(),
        }
    }

    /// Writes an incident, unless the stored row of the incident is at least as new. Returns the row as it is stored
    /// after the call.
    ///
    /// # Errors
    /// Returns an error if the outcome of the write is unknown or the row is damaged. The caller may repeat the call.
    pub async fn write(&self, incident: &Incident) -> Result<StoredIncident, StoreError> {
        let mut request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key(RULE, string(&*incident.rule))
            .key(INCIDENT, string(&*incident.id))
            .expression_attribute_names("#next", NEXT)
            .condition_expression("attribute_not_exists(#next) OR #next < :next");
        let mut set = Vec::new();
        for (at, (name, value)) in incident_item(incident).into_iter().enumerate() {
            if name == NEXT {
                request = request.expression_attribute_values(":next", value);
                continue;
            }
            set.push(format!("#a{at} = :a{at}"));
            request = request
                .expression_attribute_names(format!("#a{at}"), name)
                .expression_attribute_values(format!(":a{at}"), value);
        }
        let request = request.update_expression(format!("SET #next = :next, {}", set.join(", ")));
        self.update(request, &incident.rule, &incident.id).await
    }

    /// Replaces the stored last message to a receiver, if the stored message still equals `last`. Returns the row as it
    /// is stored after the call. The returned row shows whether the message was replaced.
    ///
    /// # Errors
    /// Returns an error if the outcome of the write is unknown. The caller may repeat the call.
    pub async fn write_sent(
        &self,
        (rule, id): (&str, &str),
        receiver: &str,
        last: Option<&Sent>,
        sent: &Sent,
    ) -> Result<StoredIncident, StoreError> {
        let mut request = self
            .client
            .update_item()
            .table_name(&*self.table)
            .key(RULE, string(rule))
            .key(INCIDENT, string(id))
            .expression_attribute_names("#sent", sent_attribute(receiver))
            .expression_attribute_names("#next", NEXT)
            .expression_attribute_values(":sent", AttributeValue::M(sent_item(sent)))
            .update_expression("SET #sent = :sent");
        request = match last {
            None => request
                .condition_expression("attribute_exists(#next) AND attribute_not_exists(#sent)"),
            Some(last) => request
                .expression_attribute_values(":last", AttributeValue::M(sent_item(last)))
                .condition_expression("attribute_exists(#next) AND #sent = :last"),
        };
        self.update(request, rule, id).await
    }

    /// Sends a conditional update. Returns the row as it is stored after the update, even if the condition failed.
    async fn update(
        &self,
        request: UpdateItemFluentBuilder,
        rule: &str,
        id: &str,
    ) -> Result<StoredIncident, StoreError> {
        let answer = request
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let stored = match answer {
            Ok(answer) => answer.attributes,
            Err(error) => match refusing_item(&error) {
                Some(Some(item)) => Some(item.clone()),
                _ => return Err(StoreError::from_sdk("UpdateItem", &self.table, error)),
            },
        };
        self.row(stored, rule, id)
    }

    fn row(&self, item: Option<Item>, rule: &str, id: &str) -> Result<StoredIncident, StoreError> {
        let damaged = || StoreError::wrong_answer("UpdateItem", &self.table, Flaw::OtherItem);
        let item = item.ok_or_else(damaged)?;
        let stored = stored_incident(&item).ok_or_else(damaged)?;
        let same = *stored.incident.rule == *rule && *stored.incident.id == *id;
        same.then_some(stored).ok_or_else(damaged)
    }

    /// Returns the stored rows of the given incidents. The result leaves out incidents that have no row.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer or a row is damaged.
    pub async fn read(
        &self,
        keys: &[(Arc<str>, Arc<str>)],
    ) -> Result<Vec<StoredIncident>, StoreError> {
        let mut out = Vec::new();
        for (rule, id) in keys {
            let answer = self
                .client
                .get_item()
                .table_name(&*self.table)
                .key(RULE, string(&**rule))
                .key(INCIDENT, string(&**id))
                .consistent_read(true)
                .send()
                .await
                .map_err(|error| StoreError::from_sdk("GetItem", &self.table, error))?;
            if let Some(item) = answer.item {
                out.push(self.row(Some(item), rule, id)?);
            }
        }
        Ok(out)
    }

    /// Returns the checkpoint of a partition, or `None` if the table contains no such checkpoint.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer or the item is damaged.
    pub async fn checkpoint(
        &self,
        topic_id: &str,
        partition: i32,
    ) -> Result<Option<StoredCheckpoint>, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&*self.table)
            .key(RULE, string(CHECKPOINT_PK))
            .key(INCIDENT, string(log_key(topic_id, partition)))
            .consistent_read(true)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("GetItem", &self.table, error))?;
        let damaged = || StoreError::wrong_answer("GetItem", &self.table, Flaw::OtherItem);
        answer
            .item
            .map(|item| checkpoint_of(&item).ok_or_else(damaged))
            .transpose()
    }

    /// Returns true if the table contains a checkpoint for a topic id other than `topic_id`.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer.
    pub async fn knows_another_topic(&self, topic_id: &str) -> Result<bool, StoreError> {
        let items = self.query(CHECKPOINT_PK).await?;
        Ok(items
            .iter()
            .any(|item| !text(item, INCIDENT).starts_with(&format!("{topic_id}#"))))
    }

    /// Stores the first checkpoint of a partition, unless a checkpoint already exists.
    ///
    /// # Errors
    /// Returns an error if the outcome of the write is unknown. The caller may repeat the call.
    pub async fn create_checkpoint(
        &self,
        topic_id: &str,
        partition: i32,
        first: &StoredCheckpoint,
    ) -> Result<(), StoreError> {
        self.put_checkpoint(topic_id, partition, first, "attribute_not_exists(#next)")
            .await
    }

    /// Replaces the stored checkpoint of a partition, unless the stored checkpoint is further ahead in the log.
    ///
    /// # Errors
    /// Returns an error if the outcome of the write is unknown. The caller may repeat the call.
    pub async fn publish(
        &self,
        topic_id: &str,
        partition: i32,
        stored: &StoredCheckpoint,
    ) -> Result<(), StoreError> {
        let condition = "attribute_exists(#next) AND #next <= :next";
        self.put_checkpoint(topic_id, partition, stored, condition)
            .await
    }

    async fn put_checkpoint(
        &self,
        topic_id: &str,
        partition: i32,
        stored: &StoredCheckpoint,
        condition: &str,
    ) -> Result<(), StoreError> {
        let mut item = checkpoint_item(stored);
        item.insert(RULE.to_owned(), string(CHECKPOINT_PK));
        item.insert(INCIDENT.to_owned(), string(log_key(topic_id, partition)));
        let next = stored.checkpoint.next.0.to_string();
        let mut request = self
            .client
            .put_item()
            .table_name(&*self.table)
            .set_item(Some(item))
            .expression_attribute_names("#next", NEXT)
            .condition_expression(condition);
        if condition.contains(":next") {
            request = request.expression_attribute_values(":next", AttributeValue::N(next));
        }
        let answer = request.send().await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                Some(service) if service.is_conditional_check_failed_exception() => Ok(()),
                _ => Err(StoreError::from_sdk("PutItem", &self.table, error)),
            },
        }
    }

    /// Returns all incidents of a rule, oldest first within a partition.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer or a row is damaged.
    pub async fn of_rule(&self, rule: &str) -> Result<Vec<StoredIncident>, StoreError> {
        let items = self.query(rule).await?;
        let damaged = || StoreError::wrong_answer("Query", &self.table, Flaw::OtherItem);
        items
            .iter()
            .map(|item| stored_incident(item).ok_or_else(damaged))
            .collect()
    }

    /// Returns the checkpoints of all partitions of a topic, by partition.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer or an item is damaged.
    pub async fn checkpoints(
        &self,
        topic_id: &str,
    ) -> Result<BTreeMap<i32, StoredCheckpoint>, StoreError> {
        let items = self.query(CHECKPOINT_PK).await?;
        let damaged = || StoreError::wrong_answer("Query", &self.table, Flaw::OtherItem);
        let own = items.iter().filter_map(|item| {
            let (topic, partition) = text(item, INCIDENT).rsplit_once('#')?;
            (topic == topic_id).then_some((partition, item))
        });
        own.map(|(partition, item)| {
            let partition = partition.parse().map_err(|_| damaged())?;
            Ok((partition, checkpoint_of(item).ok_or_else(damaged)?))
        })
        .collect()
    }

    /// Returns all silences, including those that have ended.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer.
    pub async fn silences(&self) -> Result<Vec<Silence>, StoreError> {
        let items = self.query(SILENCE_PK).await?;
        Ok(items.iter().filter_map(silence_of).collect())
    }

    /// Stores a silence, and replaces any stored silence with the same id.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer.
    pub async fn put_silence(&self, silence: &Silence) -> Result<(), StoreError> {
        let mut item = silence_item(silence);
        item.insert(RULE.to_owned(), string(SILENCE_PK));
        item.insert(INCIDENT.to_owned(), string(&*silence.id));
        let answer = self
            .client
            .put_item()
            .table_name(&*self.table)
            .set_item(Some(item))
            .send()
            .await;
        let answer = answer.map_err(|error| StoreError::from_sdk("PutItem", &self.table, error));
        answer.map(|_| ())
    }

    async fn query(&self, rule: &str) -> Result<Vec<Item>, StoreError> {
        let (mut items, mut start) = (Vec::new(), None);
        loop {
            let answer = self
                .client
                .query()
                .table_name(&*self.table)
                .key_condition_expression("#rule = :rule")
                .expression_attribute_names("#rule", RULE)
                .expression_attribute_values(":rule", string(rule))
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| StoreError::from_sdk("Query", &self.table, error))?;
            items.extend(answer.items.unwrap_or_default());
            start = answer.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }
}

/// Returns the error message for a command that needs the incident table if the table does not exist.
pub fn describe_missing_table(names: &TableNames) -> Failure {
    Failure::new(format!("there is no table {}", names.incidents))
        .with_remedy("citystream init-tables --incidents makes it, and citystream notify fills it")
}

/// Returns the incident in an item, or `None` if the item is damaged.
pub(super) fn stored_incident(item: &Item) -> Option<StoredIncident> {
    Some(StoredIncident {
        incident: incident_of(item)?,
        sent: sent_of(item)?,
    })
}
