//! Reads and writes the incident table, which contains incidents, checkpoints and silences.
//!
//! | item | `rule` | `incident` |
//! |---|---|---|
//! | an incident | the rule's name | `<topic id>#<partition>#<offset>` |
//! | the checkpoint of a partition | `#checkpoint` | `<topic id>#<partition>` |
//! | a silence | `#silence` | its id |
//!
//! A write of an incident replaces all its attributes if the stored fence `next` is smaller than the new fence. All
//! writers process the same log, so two versions of a row with the same fence are equal. The attribute
//! `sent#<receiver>` of the row contains the last message to this receiver. A write of a message has another condition:
//! the stored message must be the one that the writer has read.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::get_item::GetItemOutput;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};

use crate::core::event::Offset;
use crate::core::incident::Incident;
use crate::core::incident::outbox::SentMessages;
use crate::core::incident::silence::Silence;
use crate::core::keys::{CHECKPOINT_PK, SILENCE_PK, TableNames, log_key};
use crate::failure::Failure;
use crate::store::answers::Flaw;
use crate::store::attributes::{INCIDENT, Item, NEXT, RULE, string, text};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::incident_items::{
    checkpoint_item, checkpoint_of, incident_item, incident_of, sent_attribute, sent_item, sent_of,
    silence_item, silence_of,
};
use crate::store::requests::{Counted, refusing_item};
use crate::telemetry::Metrics;

pub use crate::store::incident_items::{StoredBase, StoredCheckpoint, StoredIncident};

/// Reads and writes the items of the incident table.
#[derive(Clone)]
pub struct IncidentTable {
    client: Client,
    table: Arc<str>,
    metrics: Metrics,
}

impl IncidentTable {
    /// Returns a handle for the table with the name `table`. To count its requests in the metrics of the process, call
    /// [`IncidentTable::with_metrics`].
    pub fn new(client: Client, table: &str) -> IncidentTable {
        IncidentTable {
            client,
            table: table.into(),
            metrics: Metrics::new(),
        }
    }

    /// Makes the handle count its requests in `metrics`. Returns the changed handle.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> IncidentTable {
        IncidentTable { metrics, ..self }
    }

    fn counted(&self, operation: &'static str) -> Counted<'_> {
        Counted::begin(&self.metrics, operation, &self.table)
    }

    /// Writes an incident, unless the stored row of the incident is at least as new. Returns the row that is stored
    /// after the write.
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
        let name = (&*incident.rule, &*incident.id);
        self.update(request, name, incident.next).await
    }

    /// Replaces the stored message to a receiver if it still equals `last`. Returns the row that is stored after the
    /// write. The caller finds out from the row whether the message was replaced.
    ///
    /// # Errors
    /// Returns an error if the outcome of the write is unknown. The caller may repeat the call.
    pub async fn write_sent(
        &self,
        (rule, id): (&str, &str),
        receiver: &str,
        last: Option<&SentMessages>,
        sent: &SentMessages,
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
        self.update(request, (rule, id), Offset(0)).await
    }

    /// Sends a conditional update. Returns the row that is stored after the update, even if the condition failed. The
    /// fence of the returned row is at least `next`.
    async fn update(
        &self,
        request: UpdateItemFluentBuilder,
        (rule, id): (&str, &str),
        next: Offset,
    ) -> Result<StoredIncident, StoreError> {
        let counted = self.counted("UpdateItem");
        let answer = request
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        let (stored, capacity, outcome) = match answer {
            Ok(answer) => (answer.attributes, answer.consumed_capacity, "ok"),
            Err(error) => match refusing_item(&error) {
                Some(Some(item)) => (Some(item.clone()), None, "conflict"),
                _ => return Err(counted.failed(error)),
            },
        };
        let stored = stored.ok_or_else(|| counted.wrong_answer(Flaw::OtherItem))?;
        let row = self.row(&counted, &stored, rule, id)?;
        if row.incident.next < next {
            return Err(counted.wrong_answer(Flaw::OtherValues));
        }
        counted.answered(outcome, capacity.as_ref());
        Ok(row)
    }

    /// Converts the item in a response to a row. The item must have the requested key.
    fn row(
        &self,
        counted: &Counted<'_>,
        item: &Item,
        rule: &str,
        id: &str,
    ) -> Result<StoredIncident, StoreError> {
        if text(item, RULE) != rule || text(item, INCIDENT) != id {
            return Err(counted.wrong_answer(Flaw::OtherItem));
        }
        stored_incident(item).ok_or_else(|| counted.ended_with(self.damaged(item)))
    }

    /// Returns the error for an item that does not have the shape in `docs/TABLES.md`.
    fn damaged(&self, item: &Item) -> StoreError {
        StoreError::Corrupt {
            table: self.table.to_string(),
            key: format!("{}/{}", text(item, RULE), text(item, INCIDENT)),
            message: "an attribute is missing or has the wrong type".to_owned(),
        }
    }

    /// Reads an item with a consistent read.
    async fn get(
        &self,
        counted: &Counted<'_>,
        rule: &str,
        id: &str,
    ) -> Result<GetItemOutput, StoreError> {
        let answer = self
            .client
            .get_item()
            .table_name(&*self.table)
            .key(RULE, string(rule))
            .key(INCIDENT, string(id))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await;
        answer.map_err(|error| counted.failed(error))
    }

    /// Returns the stored rows of the given incidents. The result excludes incidents without a row.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer or a row is damaged.
    pub async fn read(
        &self,
        keys: &[(Arc<str>, Arc<str>)],
    ) -> Result<Vec<StoredIncident>, StoreError> {
        let mut out = Vec::new();
        for (rule, id) in keys {
            let counted = self.counted("GetItem");
            let answer = self.get(&counted, rule, id).await?;
            if let Some(item) = answer.item() {
                out.push(self.row(&counted, item, rule, id)?);
            }
            counted.answered("ok", answer.consumed_capacity());
        }
        Ok(out)
    }

    /// Returns the checkpoint of a partition, or `None` if the table does not contain one.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer or the item is damaged.
    pub async fn checkpoint(
        &self,
        topic_id: &str,
        partition: i32,
    ) -> Result<Option<StoredCheckpoint>, StoreError> {
        let counted = self.counted("GetItem");
        let key = log_key(topic_id, partition);
        let answer = self.get(&counted, CHECKPOINT_PK, &key).await?;
        let damaged = |item| counted.ended_with(self.damaged(item));
        let read = |item| checkpoint_of(item).ok_or_else(|| damaged(item));
        let stored = answer.item().map(read).transpose()?;
        counted.answered("ok", answer.consumed_capacity());
        Ok(stored)
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
        match self.put(request).await {
            Err(error) if error.kind() == StoreErrorKind::Conflict => Ok(()),
            other => other,
        }
    }

    async fn put(&self, request: PutItemFluentBuilder) -> Result<(), StoreError> {
        let counted = self.counted("PutItem");
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = request
            .send()
            .await
            .map_err(|error| counted.failed(error))?;
        counted.answered("ok", answer.consumed_capacity());
        Ok(())
    }

    /// Returns all incidents of a rule, oldest first within a partition.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not answer or a row is damaged.
    pub async fn of_rule(&self, rule: &str) -> Result<Vec<StoredIncident>, StoreError> {
        let items = self.query(rule).await?;
        items
            .iter()
            .map(|item| stored_incident(item).ok_or_else(|| self.damaged(item)))
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
        let own = items.iter().filter_map(|item| {
            let (topic, partition) = text(item, INCIDENT).rsplit_once('#')?;
            (topic == topic_id).then_some((partition, item))
        });
        own.map(|(partition, item)| {
            let damaged = || self.damaged(item);
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
        let request = self.client.put_item().table_name(&*self.table);
        self.put(request.set_item(Some(item))).await
    }

    async fn query(&self, rule: &str) -> Result<Vec<Item>, StoreError> {
        let (mut items, mut start) = (Vec::new(), None);
        loop {
            let counted = self.counted("Query");
            let answer = self
                .client
                .query()
                .table_name(&*self.table)
                .key_condition_expression("#rule = :rule")
                .expression_attribute_names("#rule", RULE)
                .expression_attribute_values(":rule", string(rule))
                .consistent_read(true)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .set_exclusive_start_key(start)
                .send()
                .await;
            let answer = answer.map_err(|error| counted.failed(error))?;
            if !answer.items().iter().all(|item| text(item, RULE) == rule) {
                return Err(counted.wrong_answer(Flaw::OtherItem));
            }
            counted.answered("ok", answer.consumed_capacity());
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

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::http::{
        HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::http::StatusCode;
    use aws_smithy_types::body::SdkBody;

    use super::*;
    use crate::store::client::{ConnectOptions, connect};

    /// Answers every request with an empty object.
    #[derive(Debug)]
    struct NothingInside;

    impl HttpConnector for NothingInside {
        fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
            let status = StatusCode::try_from(200).expect("a status");
            HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from("{}"))))
        }
    }

    #[tokio::test]
    async fn requests_are_counted_and_answers_that_prove_nothing_are_refused() {
        let metrics = Metrics::new();
        let http = http_client_fn(|_, _| SharedHttpConnector::new(NothingInside));
        let options = ConnectOptions {
            attempts: 1,
            http: Some(http),
            endpoint_url: Some("http://made-up.invalid".to_owned()),
            test_credentials: true,
            answers_refused: Some(metrics.answers_refused.clone()),
            ..ConnectOptions::default()
        };
        let client = connect(options).await.expect("no request is sent");
        let table = IncidentTable::new(client, "incidents").with_metrics(metrics.clone());
        table.silences().await.expect_err("nothing inside");
        let checkpoint = table.checkpoint("T", 0).await;
        checkpoint.expect_err("nothing inside");
        for operation in ["Query", "GetItem"] {
            let ended = [operation, "incidents", "unknown"];
            let requests = metrics.dynamodb_requests.with_label_values(&ended);
            assert_eq!(requests.get(), 1, "{operation}");
            let flaw = [operation, "no_capacity"];
            let refused = metrics.answers_refused.with_label_values(&flaw);
            assert_eq!(refused.get(), 1, "{operation}");
        }
    }
}
