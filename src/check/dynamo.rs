//! What a role needs of DynamoDB: region, credentials, tables, rules, rights, a clock that is right.

use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;

use super::{Outcome, Table};
use crate::core::RULES;
use crate::core::keys::TableNames;
use crate::failure::Failure;
use crate::settings::{Role, TableArgs};
use crate::store::client::{ConnectOptions, connect, describe_target};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::rights::{TableUser, try_grant};
use crate::store::{config, tables};
use crate::tables::steps::chain;
use crate::telemetry::unix_ms;

/// Clocks may differ so far before it is worth a line, in seconds; at 300 AWS refuses requests.
const SKEW_S_NOTE: i64 = 5;

pub(crate) async fn check(table: &mut Table, role: Role, args: &TableArgs, topic: Option<&str>) {
    let options = ConnectOptions {
        log_credentials: false,
        ..ConnectOptions::default()
    };
    let client = match connect(options).await {
        Ok(client) => client,
        Err(error) => {
            let Failure { what, why, todo } = Failure::of(&error.into());
            let found = why.map_or_else(|| what.clone(), |why| format!("{what}: {why}"));
            return table.row(Outcome::Wrong, "DynamoDB client", found, todo);
        }
    };
    let target = describe_target(&client);
    let names = TableNames::new(&args.table_prefix);
    let date = Arc::new(Mutex::new(None));
    if !reach(table, &client, &names, &target, &date).await {
        return;
    }
    clock(table, &date);
    let mut all_there = true;
    for spec in tables::specs(&names) {
        let what = format!("table {}", spec.name);
        match tables::describe(&client, &spec.name).await {
            Ok(None) => {
                all_there = false;
                if role == Role::InitTables {
                    table.ok(&what, "is not there yet");
                } else {
                    let remedy = "run citystream init-tables";
                    table.bad(Outcome::Away, &what, "does not exist", remedy);
                }
            }
            Ok(Some(found)) => {
                let differences = tables::differences(&spec, &found);
                if let tables::TableReadiness::Never(message) = tables::readiness(&found) {
                    let (found, remedy) = message.split_once("; ").unwrap_or((&message, ""));
                    table.bad(Outcome::Wrong, &what, found, remedy);
                } else if differences.is_empty() {
                    table.ok(&what, "keys and index as they should be");
                } else {
                    let remedy = "another --table-prefix: it is not one that init-tables makes";
                    table.bad(Outcome::Wrong, &what, differences.join("; "), remedy);
                }
            }
            Err(error) if error.kind() == StoreErrorKind::Denied => table.row(
                Outcome::Ok,
                &what,
                "not described, which the role need not be allowed",
                None,
            ),
            Err(error) => trouble(table, &what, &error),
        }
    }
    if !all_there {
        return;
    }
    rules(table, &client, &names, topic).await;
    rights(table, &client, &names, role).await;
}

/// Describes a table, whether or not the role may; returns whether DynamoDB answers.
async fn reach(
    table: &mut Table,
    client: &Client,
    names: &TableNames,
    target: &str,
    date: &Arc<Mutex<Option<String>>>,
) -> bool {
    let answer = client
        .describe_table()
        .table_name(&names.totals)
        .customize()
        .interceptor(DateOf(Arc::clone(date)))
        .send()
        .await;
    let error = answer
        .err()
        .map(|error| StoreError::from_sdk("DescribeTable", &names.totals, error));
    let lacks = |e: &StoreError| e.is_about_credentials() && e.kind() == StoreErrorKind::Denied;
    if error.as_ref().is_some_and(lacks) {
        let remedy = "give the host a role, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
                      AWS_SECRET_ACCESS_KEY; what needs them was not tried";
        table.bad(Outcome::Wrong, "AWS credentials", "none found", remedy);
        return false;
    }
    match error.filter(|e| !matches!(e.kind(), StoreErrorKind::NotFound | StoreErrorKind::Denied)) {
        None => {
            table.ok("DynamoDB", format!("answers: {target}"));
            true
        }
        Some(error) => {
            let remedy = "AWS_REGION, AWS_ENDPOINT_URL_DYNAMODB, the instance's role, the route to \
                          the endpoint";
            let found = format!("{target}: {}", chain(&error));
            let outcome = match error.kind() {
                StoreErrorKind::Settings => Outcome::Wrong,
                _ => Outcome::Away,
            };
            table.bad(outcome, "DynamoDB", found, remedy);
            false
        }
    }
}

fn trouble(table: &mut Table, what: &str, error: &StoreError) {
    let (outcome, remedy) = match error.kind() {
        StoreErrorKind::Denied => (
            Outcome::Wrong,
            "give the role the policy that init-tables --print-iam-policy prints",
        ),
        kind if kind.is_retryable() => (Outcome::Away, "see whether DynamoDB is well, try again"),
        _ => (Outcome::Wrong, "see what DynamoDB says"),
    };
    table.bad(outcome, what, chain(error), remedy);
}

async fn rules(table: &mut Table, client: &Client, names: &TableNames, topic: Option<&str>) {
    let what = "rules";
    match config::read_config(client, names).await {
        Ok(Some(found)) if found.rules_number != RULES => table.bad(
            Outcome::Wrong,
            what,
            format!(
                "the tables have rules {}, this program {RULES}",
                found.rules_number
            ),
            "another --table-prefix and a replay, or the program that made them",
        ),
        Ok(Some(found)) => match (&found.topic, topic) {
            (Some(owner), Some(topic)) if owner != topic => table.bad(
                Outcome::Wrong,
                what,
                format!("the tables count topic {owner}, not {topic}"),
                &format!("--topic {owner}, or another --table-prefix"),
            ),
            _ => table.ok(what, format!("rules {RULES}, tables {}", found.tables_id)),
        },
        Ok(None) => table.bad(
            Outcome::Away,
            what,
            "the config item is missing",
            "run citystream init-tables",
        ),
        Err(error) => trouble(table, what, &error),
    }
}

async fn rights(table: &mut Table, client: &Client, names: &TableNames, role: Role) {
    let user = match role {
        Role::Produce | Role::Tail => return,
        Role::Consume => TableUser::Consume,
        Role::Serve => TableUser::Serve,
        Role::Verify => TableUser::Verify,
        Role::InitTables => TableUser::InitTables,
    };
    let mut tried = 0;
    for grant in user.grants() {
        match try_grant(client, names, grant).await {
            Ok(()) => tried += 1,
            Err(error) => {
                let on = grant.index.unwrap_or(names.all()[grant.table]);
                trouble(table, &format!("right {}", grant.operation), &error);
                tracing::debug!(on, "a right is missing");
            }
        }
    }
    if tried == user.grants().len() {
        table.ok("rights", format!("all {tried} that {} needs", role.name()));
    }
}

fn clock(table: &mut Table, date: &Mutex<Option<String>>) {
    let date = date.lock().expect("no panic holds the date").take();
    let Some(theirs_ms) = date.as_deref().and_then(parse_http_date) else {
        return;
    };
    let skew_s = (unix_ms() - theirs_ms) / 1_000;
    if skew_s.abs() > SKEW_S_NOTE {
        table.bad(
            Outcome::Wrong,
            "clock",
            format!("differs from DynamoDB's by {skew_s} s; from 300 on all requests are refused"),
            "run chrony or systemd-timesyncd",
        );
    } else {
        table.ok("clock", format!("within {SKEW_S_NOTE} s of DynamoDB's"));
    }
}

/// Parses the form of HTTP's `Date` header: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn parse_http_date(text: &str) -> Option<i64> {
    let time =
        aws_smithy_types::DateTime::from_str(text, aws_smithy_types::date_time::Format::HttpDate);
    time.ok()?.to_millis().ok()
}

/// Notes an answer's date.
#[derive(Debug)]
struct DateOf(Arc<Mutex<Option<String>>>);

impl Intercept for DateOf {
    fn name(&self) -> &'static str {
        "DateOf"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").map(str::to_owned);
        *self.0.lock().expect("no panic holds the date") = date;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_of_an_answer_is_understood() {
        let ms = parse_http_date("Tue, 01 Jan 2013 06:00:00 GMT");
        assert_eq!(ms, Some(1_357_020_000_000));
        assert_eq!(parse_http_date("yesterday"), None);
    }
}
