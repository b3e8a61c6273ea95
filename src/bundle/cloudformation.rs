//! Generates a CloudFormation template that creates the tables, including the table of incidents, and an IAM policy for
//! each role.
//!
//! The template is generated from the same table specifications that `init-tables` uses. After creating the stack, the
//! operator must also run `init-tables` once. `init-tables` keeps the tables that CloudFormation has created, writes
//! the config item, and creates the Kafka topics.

use serde_json::{Map, Value, json};

use crate::core::keys::{TABLES, TableNames};
use crate::store::attributes::TTL;
use crate::store::rights::{TableUser, grants_after_template, policy_of};
use crate::store::tables::{Keys, TableSpec, incidents_spec, key_attributes, specs};

/// Returns the CloudFormation template. The parameters of the template let the operator choose how the tables are
/// protected.
pub(super) fn template(names: &TableNames) -> Value {
    let mut resources = tables(names);
    let mut outputs = Map::new();
    for user in TableUser::ALL {
        let name = format!("{}Policy", logical_id(user.name()));
        outputs.insert(name.clone(), json!({"Value": {"Ref": name}}));
        resources.insert(name, policy(user, names));
    }
    json!({
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Tables and IAM policies of citystream; run citystream init-tables afterwards",
        "Parameters": parameters(),
        "Conditions": {
            "AlertsExpire": {"Fn::Equals": [{"Ref": "AlertTtl"}, "true"]},
            "OwnKey": {"Fn::Not": [{"Fn::Equals": [{"Ref": "KmsKey"}, ""]}]},
        },
        "Resources": resources,
        "Outputs": outputs,
    })
}

fn parameters() -> Value {
    let flag = |description: &str, default: &str| {
        json!({
            "Type": "String",
            "AllowedValues": ["true", "false"],
            "Default": default,
            "Description": description,
        })
    };
    json!({
        "DeletionProtection": flag("Tables cannot be deleted until it is off", "true"),
        "PointInTimeRecovery": flag("Any second of the last 35 days can be restored", "true"),
        "AlertTtl": flag("Alerts expire after the time of consume --alert-ttl", "false"),
        "KmsKey": {
            "Type": "String",
            "Default": "",
            "Description": "Your own KMS key: id, ARN or alias; empty for a key of AWS",
        },
    })
}

fn tables(names: &TableNames) -> Map<String, Value> {
    let mut resources = Map::new();
    // CloudFormation would create all tables at once, but DynamoDB allows the creation of only one table with an index
    // at a time. The template makes each table with an index depend on the previous table with an index.
    let mut previous: Option<String> = None;
    let incidents = (incidents_spec(names), "incidents");
    for (spec, suffix) in specs(names).into_iter().zip(TABLES).chain([incidents]) {
        let mut resource = table(&spec);
        if spec.name == names.alerts {
            resource["Properties"]["TimeToLiveSpecification"] = json!({"Fn::If": [
                "AlertsExpire", time_to_live(TTL), {"Ref": "AWS::NoValue"},
            ]});
        }
        if spec.index.is_some()
            && let Some(previous) = previous.replace(logical_id(suffix))
        {
            resource["DependsOn"] = json!(previous);
        }
        resources.insert(logical_id(suffix), resource);
    }
    resources
}

fn policy(user: TableUser, names: &TableNames) -> Value {
    // CloudFormation replaces the placeholders in the ARN with the AWS partition, the Region and the account.
    let arn = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/";
    // The template creates the tables, so `init-tables` only needs the right to describe the tables.
    let grants = match user {
        TableUser::InitTables => grants_after_template(),
        user => user.grants(),
    };
    let mut document = policy_of(grants, names, arn);
    for statement in document["Statement"].as_array_mut().into_iter().flatten() {
        let resource = statement["Resource"].take();
        statement["Resource"] = json!({"Fn::Sub": resource});
    }
    json!({
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {
            "Description": format!("What citystream {} does with its tables", user.name()),
            "PolicyDocument": document,
        },
    })
}

/// Returns the logical id of a resource, such as `RawEvents` for `raw-events`.
fn logical_id(name: &str) -> String {
    let capital = |word: &str| {
        let mut chars = word.chars();
        let first = chars.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(chars).collect::<String>()
    };
    name.split('-').map(capital).collect()
}

fn table(spec: &TableSpec) -> Value {
    let attributes: Vec<Value> = key_attributes(spec)
        .into_iter()
        .map(|name| json!({"AttributeName": name, "AttributeType": "S"}))
        .collect();
    let mut properties = json!({
        "TableName": spec.name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": attributes,
        "KeySchema": key_schema(spec.keys),
        "DeletionProtectionEnabled": {"Ref": "DeletionProtection"},
        "PointInTimeRecoverySpecification": {
            "PointInTimeRecoveryEnabled": {"Ref": "PointInTimeRecovery"},
        },
        "SSESpecification": {"Fn::If": [
            "OwnKey",
            {"SSEEnabled": true, "SSEType": "KMS", "KMSMasterKeyId": {"Ref": "KmsKey"}},
            {"Ref": "AWS::NoValue"},
        ]},
    });
    if let Some(index) = &spec.index {
        properties["GlobalSecondaryIndexes"] = json!([{
            "IndexName": index.name,
            "KeySchema": key_schema(index.keys),
            "Projection": {"ProjectionType": index.projection.as_str()},
        }]);
    }
    if let Some(ttl) = spec.ttl {
        properties["TimeToLiveSpecification"] = time_to_live(ttl);
    }
    json!({
        "Type": "AWS::DynamoDB::Table",
        // The tables and their counts must remain when the stack is deleted.
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": properties,
    })
}

fn time_to_live(attribute: &str) -> Value {
    json!({"AttributeName": attribute, "Enabled": true})
}

fn key_schema(keys: Keys) -> Value {
    let mut out = vec![json!({"AttributeName": keys.0, "KeyType": "HASH"})];
    out.extend(
        keys.1
            .map(|sk| json!({"AttributeName": sk, "KeyType": "RANGE"})),
    );
    Value::Array(out)
}

#[cfg(test)]
#[cfg(feature = "dev")]
mod tests {
    use super::*;
    use crate::store::embedded;
    use crate::store::tables::{describe_table, differences};

    /// Creates the tables from the template, and tests that `init-tables --check` would find no differences.
    #[tokio::test]
    async fn the_template_creates_the_tables_that_init_tables_expects() {
        let db = dynoxide::Database::memory().unwrap();
        let client = embedded::client(db.clone()).await.unwrap();
        let names = TableNames::new("stack");
        let template = template(&names);
        for (_, resource) in template["Resources"].as_object().unwrap() {
            if resource["Type"] != "AWS::DynamoDB::Table" {
                continue;
            }
            let mut request = resource["Properties"].clone();
            let fields = request.as_object_mut().unwrap();
            fields.remove("TimeToLiveSpecification");
            fields.remove("PointInTimeRecoverySpecification");
            fields.remove("SSESpecification");
            fields.remove("DeletionProtectionEnabled");
            db.create_table(serde_json::from_value(request).unwrap())
                .unwrap();
        }
        for spec in specs(&names).into_iter().chain([incidents_spec(&names)]) {
            let found = describe_table(&client, &spec.name).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("{} is missing", spec.name));
            assert_eq!(differences(&spec, &found), Vec::<String>::new());
        }
        let resources = &template["Resources"];
        assert_eq!(resources["RawEvents"]["DependsOn"], Value::Null);
        assert_eq!(resources["Aggregations"]["DependsOn"], "RawEvents");
        assert_eq!(resources["Alerts"]["DependsOn"], "Aggregations");
        assert_eq!(resources["Totals"]["DependsOn"], Value::Null);
        assert_eq!(resources["Incidents"]["DependsOn"], "Alerts");
        let raw = &template["Resources"]["RawEvents"]["Properties"];
        assert_eq!(raw["TimeToLiveSpecification"]["AttributeName"], "ttl");
        let alerts = &template["Resources"]["Alerts"]["Properties"]["TimeToLiveSpecification"];
        assert_eq!(alerts["Fn::If"][0], "AlertsExpire");
        assert_eq!(alerts["Fn::If"][1]["AttributeName"], "ttl");
        assert_eq!(template["Parameters"]["AlertTtl"]["Default"], "false");
        let init = template["Resources"]["InitTablesPolicy"].to_string();
        assert_eq!(init.matches("dynamodb:DescribeTimeToLive").count(), 2);
        let serve = template["Resources"]["ServePolicy"].to_string();
        assert!(serve.contains(r#"{"Fn::Sub":"arn:${AWS::Partition}:dynamodb:"#));
    }
}
