//! What AWS does and emulators of DynamoDB do not: table states that take time, and rights by action and resource.
//!
//! A test sets values, and functions decide from them. `tests/real/aws_front.rs` puts this in front of DynamoDB
//! Local.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The account in every ARN.
pub(crate) const ACCOUNT: &str = "123456789012";
/// The Region in every ARN.
pub(crate) const REGION: &str = "us-east-1";
/// Write units per second that a new table accepts at once.
const WARM_WRITES: i64 = 4_000;

/// How the front behaves. The default is that of an emulator.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// How long a table is CREATING.
    pub(crate) creating: Duration,
    /// How long a table is UPDATING after each UpdateTable.
    pub(crate) updating: Duration,
    /// How long a table is DELETING.
    pub(crate) deleting: Duration,
    /// How long after CREATING the table refuses point-in-time recovery.
    pub(crate) pitr_after: Duration,
    /// How long an index lacks a new item.
    pub(crate) index_lag: Duration,
    /// Items on a page of a Query.
    pub(crate) page_items_max: Option<u64>,
    /// Of 100 requests for data, this many are refused.
    pub(crate) throttled_per_cent: u32,
    /// How far the clock is ahead. Signatures that are five minutes off are refused.
    pub(crate) clock_ahead_s: i64,
    /// The rights of each access key, as an IAM policy. A key that is not listed has all rights.
    pub(crate) policies: BTreeMap<String, Value>,
}

/// A refusal: the error's code and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

fn refuse(code: &'static str, message: String) -> Refusal {
    Refusal { code, message }
}

/// The state of a table that DynamoDB Local does not keep.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    made: Option<Instant>,
    updated: Option<Instant>,
    deleted: Option<(Instant, Value)>,
    pitr: bool,
    key: Option<Value>,
    tags: Vec<Value>,
    /// Write units of the table ("") and of its indexes.
    warm: BTreeMap<String, i64>,
}

fn within(since: Option<Instant>, limit: Duration, now: Instant) -> bool {
    since.is_some_and(|since| now < since + limit)
}

impl Table {
    fn is_creating(&self, how: &Behaviour, now: Instant) -> bool {
        within(self.made, how.creating, now)
    }

    fn is_updating(&self, how: &Behaviour, now: Instant) -> bool {
        within(self.updated, how.updating, now)
    }

    fn is_deleting(&self, how: &Behaviour, now: Instant) -> bool {
        within(self.deleted.as_ref().map(|(at, _)| *at), how.deleting, now)
    }

    /// Returns why a request on the table is refused in its present state.
    pub(crate) fn refusal(
        &self,
        how: &Behaviour,
        operation: &str,
        now: Instant,
    ) -> Option<Refusal> {
        let creating = self.is_creating(how, now);
        let busy = creating || self.is_updating(how, now);
        let changes = [
            "UpdateTable",
            "DeleteTable",
            "UpdateTimeToLive",
            "TagResource",
        ];
        if self.is_deleting(how, now) {
            return match operation {
                "DescribeTable" | "DeleteTable" => None,
                "CreateTable" => Some(refuse(
                    "ResourceInUseException",
                    "Table is being deleted".to_owned(),
                )),
                _ => Some(refuse(
                    "ResourceNotFoundException",
                    "Requested resource not found".to_owned(),
                )),
            };
        }
        if busy && changes.contains(&operation) {
            let doing = if creating { "created" } else { "updated" };
            return Some(refuse(
                "ResourceInUseException",
                format!(
                    "Attempt to change a resource which is still in use: Table is being {doing}"
                ),
            ));
        }
        if operation == "UpdateContinuousBackups"
            && within(self.made, how.creating + how.pitr_after, now)
        {
            return Some(refuse(
                "ContinuousBackupsUnavailableException",
                "Backups are being enabled for the table. Please retry later".to_owned(),
            ));
        }
        let data = ["GetItem", "PutItem", "UpdateItem", "Query", "Scan"];
        (creating && data.contains(&operation)).then(|| {
            refuse(
                "ResourceNotFoundException",
                "Requested resource not found".to_owned(),
            )
        })
    }

    /// Answers what DynamoDB Local cannot, or removes what it cannot do from a request that goes on to it.
    pub(crate) fn answer(&mut self, operation: &str, body: &mut Value) -> Option<Value> {
        match operation {
            "DescribeContinuousBackups" => Some(self.backups()),
            "UpdateContinuousBackups" => {
                let wanted = &body["PointInTimeRecoverySpecification"];
                self.pitr = wanted["PointInTimeRecoveryEnabled"] == true;
                Some(self.backups())
            }
            "ListTagsOfResource" => Some(json!({"Tags": self.tags})),
            "TagResource" => {
                self.tags
                    .extend(body["Tags"].as_array().cloned().unwrap_or_default());
                Some(json!({}))
            }
            "UpdateTable" if body["SSESpecification"].is_object() => {
                self.key = Some(body["SSESpecification"]["KMSMasterKeyId"].clone());
                Some(json!({}))
            }
            "UpdateTable" if body["WarmThroughput"].is_object() => {
                self.warm(String::new(), &body["WarmThroughput"]);
                Some(json!({}))
            }
            "UpdateTable" if body["GlobalSecondaryIndexUpdates"].is_array() => {
                let update = &body["GlobalSecondaryIndexUpdates"][0]["Update"];
                let index = update["IndexName"].as_str().unwrap().to_owned();
                self.warm(index, &update["WarmThroughput"]);
                Some(json!({}))
            }
            "CreateTable" => {
                *self = Table::default();
                self.take_from_creation(body);
                None
            }
            _ => None,
        }
    }

    fn take_from_creation(&mut self, body: &mut Value) {
        let fields = body.as_object_mut().unwrap();
        if let Some(Value::Array(tags)) = fields.remove("Tags") {
            self.tags = tags;
        }
        if let Some(sse) = fields.remove("SSESpecification") {
            self.key = Some(sse["KMSMasterKeyId"].clone());
        }
        if let Some(warm) = fields.remove("WarmThroughput") {
            self.warm(String::new(), &warm);
        }
        for index in body["GlobalSecondaryIndexes"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            let name = index["IndexName"].as_str().unwrap().to_owned();
            if let Some(warm) = index.as_object_mut().unwrap().remove("WarmThroughput") {
                self.warm(name, &warm);
            }
        }
    }

    fn warm(&mut self, what: String, warm: &Value) {
        self.warm
            .insert(what, warm["WriteUnitsPerSecond"].as_i64().unwrap());
    }

    fn backups(&self) -> Value {
        let status = if self.pitr { "ENABLED" } else { "DISABLED" };
        json!({"ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": status},
        }})
    }

    /// Records that DynamoDB Local has carried out a request.
    pub(crate) fn note(&mut self, operation: &str, answer: &Value, now: Instant) {
        match operation {
            "CreateTable" => self.made = Some(now),
            "UpdateTable" => self.updated = Some(now),
            "DeleteTable" => self.deleted = Some((now, answer["TableDescription"].clone())),
            _ => {}
        }
    }

    /// Returns the description while the table is being deleted, when DynamoDB Local no longer has one.
    pub(crate) fn while_deleting(&self, how: &Behaviour, now: Instant) -> Option<Value> {
        let (_, description) = self
            .deleted
            .as_ref()
            .filter(|_| self.is_deleting(how, now))?;
        let mut description = description.clone();
        description["TableStatus"] = json!("DELETING");
        Some(description)
    }

    /// Adds what AWS has in the description of a table and DynamoDB Local has not.
    pub(crate) fn describe(&self, how: &Behaviour, description: &mut Value, now: Instant) {
        let name = description["TableName"].as_str().unwrap().to_owned();
        description["TableArn"] = json!(arn(&name, None));
        if self.is_creating(how, now) {
            description["TableStatus"] = json!("CREATING");
        } else if self.is_updating(how, now) {
            description["TableStatus"] = json!("UPDATING");
        }
        let warm = |what: &str| {
            let units = self.warm.get(what).copied().unwrap_or(WARM_WRITES);
            json!({"ReadUnitsPerSecond": 12_000, "WriteUnitsPerSecond": units, "Status": "ACTIVE"})
        };
        description["WarmThroughput"] = warm("");
        for index in description["GlobalSecondaryIndexes"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            index["WarmThroughput"] = warm(index["IndexName"].as_str().unwrap());
            if self.is_creating(how, now) {
                index["IndexStatus"] = json!("CREATING");
            }
        }
        if let Some(key) = &self.key {
            description["SSEDescription"] =
                json!({"Status": "ENABLED", "SSEType": "KMS", "KMSMasterKeyArn": key});
        }
    }
}

/// Returns the ARN of a table or its index.
pub(crate) fn arn(table: &str, index: Option<&str>) -> String {
    let index = index.map_or(String::new(), |index| format!("/index/{index}"));
    format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}{index}")
}

/// Returns the tables that a request names.
pub(crate) fn tables(body: &Value) -> Vec<String> {
    if let Some(items) = body["RequestItems"].as_object() {
        return items.keys().cloned().collect();
    }
    let named = body["TableName"].as_str().or(body["ResourceArn"].as_str());
    let name = named.and_then(|name| name.rsplit('/').next());
    name.into_iter().map(str::to_owned).collect()
}

/// Returns the actions and resources that IAM checks for a request.
///
/// Source: "Actions, resources, and condition keys for Amazon DynamoDB" in AWS's documentation.
pub(crate) fn needed(operation: &str, body: &Value) -> Vec<(String, String)> {
    let index = body["IndexName"].as_str();
    let mut out: Vec<(String, String)> = Vec::new();
    for table in tables(body) {
        let resource = arn(&table, index);
        out.push((format!("dynamodb:{operation}"), resource.clone()));
        if operation == "CreateTable" && body["Tags"].is_array() {
            out.push(("dynamodb:TagResource".to_owned(), resource));
        }
    }
    out
}

/// Returns whether an IAM policy allows an action on a resource.
pub(crate) fn allows(policy: &Value, action: &str, resource: &str) -> bool {
    let one_of = |value: &Value, text: &str| match value {
        Value::Array(patterns) => patterns.iter().any(|p| matches(p.as_str().unwrap(), text)),
        pattern => matches(pattern.as_str().unwrap(), text),
    };
    let statements = policy["Statement"].as_array().unwrap();
    statements.iter().any(|statement| {
        assert_eq!(statement["Effect"], "Allow", "the program prints no other");
        one_of(&statement["Action"], action) && one_of(&statement["Resource"], resource)
    })
}

/// Returns whether a text matches a pattern in which `*` matches anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
        }),
    }
}

/// Refusals of a table, an index and an account that accept no more, with both spellings of their reasons, and other
/// errors of AWS.
pub(crate) fn overloads() -> Vec<(u16, Value)> {
    let table = arn("citystream-raw-events", None);
    let index = arn("citystream-raw-events", Some("city-timestamp-index"));
    let error = |code: &str| format!("com.amazonaws.dynamodb.v20120810#{code}");
    vec![
        (
            400,
            json!({"__type": error("ProvisionedThroughputExceededException"),
            "message": "The level of configured provisioned throughput for the table was exceeded.",
            "ThrottlingReasons": [{"reason": "TableWriteProvisionedThroughputExceeded", "resource": table}]}),
        ),
        (
            400,
            json!({"__type": error("ThrottlingException"),
            "message": "Throughput exceeds the current capacity of your table or index.",
            "throttlingReasons": [{"reason": "IndexWriteKeyRangeThroughputExceeded", "resource": index}]}),
        ),
        (
            400,
            json!({"__type": error("RequestLimitExceeded"),
            "message": "Throughput exceeds the current throughput limit for your account.",
            "ThrottlingReasons": [{"reason": "TableWriteAccountLimitExceeded", "resource": table}]}),
        ),
        (
            400,
            json!({"__type": "com.amazon.coral.availability#ThrottlingException",
            "message": "Rate of requests exceeds the allowed throughput."}),
        ),
        (
            500,
            json!({"__type": error("InternalServerError"), "message": "Internal server error"}),
        ),
    ]
}

#[test]
fn a_policy_allows_what_it_names_and_nothing_else() {
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["dynamodb:Query"], "Resource": "arn:aws:dynamodb:*:*:table/a/index/i"},
        {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": [arn("b", None)]},
    ]});
    for (action, resource, allowed) in [
        ("dynamodb:Query", arn("a", Some("i")), true),
        ("dynamodb:Query", arn("a", None), false),
        ("dynamodb:Query", arn("a", Some("other")), false),
        ("dynamodb:GetItem", arn("b", None), true),
        ("dynamodb:PutItem", arn("b", None), false),
    ] {
        assert_eq!(
            allows(&policy, action, &resource),
            allowed,
            "{action} {resource}"
        );
    }
}

#[test]
fn a_table_is_busy_for_as_long_as_was_said() {
    let how = Behaviour {
        creating: Duration::from_secs(3),
        updating: Duration::from_secs(4),
        pitr_after: Duration::from_secs(6),
        ..Behaviour::default()
    };
    let begin = Instant::now();
    let mut table = Table::default();
    table.note("CreateTable", &Value::Null, begin);
    let code = |table: &Table, operation: &str, seconds: u64| {
        let at = begin + Duration::from_secs(seconds);
        table
            .refusal(&how, operation, at)
            .map(|refusal| refusal.code)
    };
    assert_eq!(code(&table, "Query", 2), Some("ResourceNotFoundException"));
    assert_eq!(
        code(&table, "UpdateTable", 2),
        Some("ResourceInUseException")
    );
    assert_eq!(code(&table, "UpdateTable", 3), None);
    let unavailable = Some("ContinuousBackupsUnavailableException");
    assert_eq!(code(&table, "UpdateContinuousBackups", 8), unavailable);
    assert_eq!(code(&table, "UpdateContinuousBackups", 9), None);
    table.note("UpdateTable", &Value::Null, begin + Duration::from_secs(10));
    assert_eq!(
        code(&table, "DeleteTable", 13),
        Some("ResourceInUseException")
    );
    assert_eq!(code(&table, "Query", 13), None);
    assert_eq!(code(&table, "DeleteTable", 14), None);
}
