//! Tests DynamoDB for `citystream check`: the Region, the credentials, the tables and their rules, the rights, and the
//! clock.

use aws_sdk_dynamodb::Client;
use prometheus::Gauge;

use super::{CheckOutcome, CheckTable};
use crate::core::RULES;
use crate::core::keys::{INCIDENTS, TableNames};
use crate::failure::chain;
use crate::remedy;
use crate::settings::{Role, TableArgs};
use crate::store::client::{ConnectOptions, connect, describe_target};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::rights::{Grant, TableUser, try_grant};
use crate::store::{config, tables};

/// Maximum accepted difference between this host's clock and the clock of AWS, in seconds. AWS refuses requests if the
/// clocks differ by 300 seconds or more.
const SKEW_S_MAX: f64 = 5.0;

/// Tests what `role` needs from DynamoDB. `incidents` is true if the role needs the table of incidents. `topic` is the
/// topic whose events the tables should count.
pub(crate) async fn check(
    table: &mut CheckTable,
    (role, incidents): (Role, bool),
    args: &TableArgs,
    topic: Option<&str>,
) {
    let clock_skew = Gauge::new("clock_skew", "seconds").expect("the name is valid");
    // If an emulator sends no date in its responses, the gauge of the clock skew keeps the value NaN.
    clock_skew.set(f64::NAN);
    let options = ConnectOptions {
        log_credentials: false,
        clock_skew: Some(clock_skew.clone()),
        ..ConnectOptions::default()
    };
    let client = match connect(options).await {
        Ok(client) => client,
        Err(error) => {
            let failure = remedy::describe_error(&error.into());
            let found = failure.cause();
            return table.add(
                CheckOutcome::Wrong,
                "DynamoDB client",
                found,
                failure.remedy,
            );
        }
    };
    let names = TableNames::new(&args.table_prefix);
    if !can_reach(table, &client, &names).await {
        return;
    }
    check_clock(table, clock_skew.get());
    if !check_tables(table, &client, &names, (role, incidents)).await {
        return;
    }
    if role != Role::Tail {
        check_rules(table, &client, &names, topic).await;
    }
    check_rights(table, &client, &names, (role, incidents)).await;
}

/// Tests each table. Returns true if all tables exist.
async fn check_tables(
    table: &mut CheckTable,
    client: &Client,
    names: &TableNames,
    (role, incidents): (Role, bool),
) -> bool {
    let mut all_exist = true;
    let incidents = incidents.then(|| tables::incidents_spec(names));
    // The role `tail` reads only the table of incidents.
    let counting = tables::specs(names).into_iter();
    let counting = counting.filter(|_| role != Role::Tail);
    for spec in counting.chain(incidents) {
        let what = format!("table {}", spec.name);
        match tables::describe_table(client, &spec.name).await {
            Ok(None) => {
                all_exist = false;
                if role == Role::InitTables {
                    table.add_ok(&what, "does not exist yet");
                } else {
                    let remedy = if spec.name == names.incidents {
                        "run citystream init-tables --incidents"
                    } else {
                        "run citystream init-tables"
                    };
                    table.add_bad(CheckOutcome::Away, &what, "does not exist", remedy);
                }
            }
            Ok(Some(found)) => {
                let differences = tables::differences(&spec, &found);
                if let tables::TableReadiness::Never(failure) = tables::readiness(&found) {
                    table.add(CheckOutcome::Wrong, &what, failure.cause(), failure.remedy);
                } else if differences.is_empty() {
                    table.add_ok(&what, "keys and index are correct");
                } else {
                    let remedy =
                        "choose another --table-prefix: init-tables did not create this table";
                    table.add_bad(CheckOutcome::Wrong, &what, differences.join("; "), remedy);
                }
            }
            Err(error) if error.kind() == StoreErrorKind::Denied => {
                let found = "not described, because the role does not need that right";
                table.add_ok(&what, found);
            }
            Err(error) => add_error(table, &what, &error),
        }
    }
    all_exist
}

/// Requests the description of a table. Returns true if DynamoDB answers, even if the response is a refusal.
async fn can_reach(table: &mut CheckTable, client: &Client, names: &TableNames) -> bool {
    let target = describe_target(client);
    let error = tables::describe_table(client, &names.totals).await.err();
    if error
        .as_ref()
        .is_some_and(|e| e.is_about_credentials() && e.kind() == StoreErrorKind::Denied)
    {
        let remedy = "give the host a role, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and \
                      AWS_SECRET_ACCESS_KEY; tests that need them were skipped";
        table.add_bad(CheckOutcome::Wrong, "AWS credentials", "none found", remedy);
        return false;
    }
    match error.filter(|error| error.kind() != StoreErrorKind::Denied) {
        None => {
            table.add_ok("DynamoDB", format!("answers: {target}"));
            true
        }
        Some(error) => {
            let remedy = "check AWS_REGION, AWS_ENDPOINT_URL_DYNAMODB, the role of the instance, and \
                          the route to the endpoint";
            let found = format!("{target}: {}", chain(&error));
            let outcome = match error.kind() {
                StoreErrorKind::Settings => CheckOutcome::Wrong,
                _ => CheckOutcome::Away,
            };
            table.add_bad(outcome, "DynamoDB", found, remedy);
            false
        }
    }
}

fn add_error(table: &mut CheckTable, what: &str, error: &StoreError) {
    let (outcome, remedy) = match error.kind() {
        StoreErrorKind::Denied => (
            CheckOutcome::Wrong,
            "give the role the policy that init-tables --print-iam-policy prints",
        ),
        kind if kind.is_retryable() => (
            CheckOutcome::Away,
            "check the state of DynamoDB, and try again",
        ),
        _ => (CheckOutcome::Wrong, "follow the message of DynamoDB"),
    };
    table.add_bad(outcome, what, chain(error), remedy);
}

async fn check_rules(
    table: &mut CheckTable,
    client: &Client,
    names: &TableNames,
    topic: Option<&str>,
) {
    let what = "rules";
    match config::read_config(client, names).await {
        Ok(Some(found)) if found.rules_number != RULES => table.add_bad(
            CheckOutcome::Wrong,
            what,
            format!(
                "the tables have version {} of the rules, but this program has version {RULES}",
                found.rules_number
            ),
            "use another --table-prefix and replay the topic, or use the version that created the tables",
        ),
        Ok(Some(found)) => match (&found.topic, topic) {
            (Some(owner), Some(topic)) if owner != topic => table.add_bad(
                CheckOutcome::Wrong,
                what,
                format!("the tables count topic {owner}, not {topic}"),
                &format!("give --topic {owner}, or another --table-prefix"),
            ),
            _ => table.add_ok(what, format!("rules {RULES}, tables {}", found.tables_id)),
        },
        Ok(None) => table.add_bad(
            CheckOutcome::Away,
            what,
            "the config item is missing",
            "run citystream init-tables",
        ),
        Err(error) => add_error(table, what, &error),
    }
}

async fn check_rights(
    table: &mut CheckTable,
    client: &Client,
    names: &TableNames,
    (role, incidents): (Role, bool),
) {
    let user = match role {
        Role::Produce => return,
        Role::Consume => TableUser::Consume,
        Role::Serve => TableUser::Serve,
        Role::Verify => TableUser::Verify,
        Role::Notify => TableUser::Notify,
        Role::Tail => TableUser::Tail,
        Role::InitTables => TableUser::InitTables,
    };
    let is_optional = |grant: Grant| grant.table == INCIDENTS && !incidents;
    let (mut tried, mut skipped) = (0, 0);
    for grant in user.grants() {
        match try_grant(client, names, grant).await {
            Ok(()) => tried += 1,
            // Only installations that use `notify` have the table of incidents.
            Err(error) if is_optional(grant) && error.kind() == StoreErrorKind::NotFound => {
                skipped += 1;
            }
            // If the role lacks the right to query the table, the error does not show whether the table exists.
            Err(error) if is_optional(grant) && error.kind() == StoreErrorKind::Denied => {
                skipped += 1;
                let found = format!("missing; {} cannot list incidents", role.name());
                let remedy = "if you run notify, give the role the policy that init-tables \
                              --print-iam-policy prints";
                table.add_bad(CheckOutcome::Note, "right Query", found, remedy);
            }
            Err(error) => {
                let on = grant.index.unwrap_or(names.of(grant.table));
                add_error(table, &format!("right {}", grant.operation), &error);
                tracing::debug!(on, "a right is missing");
            }
        }
    }
    if tried + skipped == user.grants().len() {
        table.add_ok(
            "rights",
            format!(
                "citystream {} has all {tried} rights that it needs",
                role.name()
            ),
        );
    }
}

fn check_clock(table: &mut CheckTable, skew_s: f64) {
    if skew_s.is_nan() {
        return;
    }
    if skew_s.abs() > SKEW_S_MAX {
        table.add_bad(
            CheckOutcome::Wrong,
            "clock",
            format!("differs from DynamoDB's clock by {skew_s:.0} s; from 300 s on, DynamoDB refuses all requests"),
            "run chrony or systemd-timesyncd on this host",
        );
    } else {
        table.add_ok(
            "clock",
            format!("within {SKEW_S_MAX} s of DynamoDB's clock"),
        );
    }
}

#[cfg(all(test, feature = "dev"))]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::store::embedded;

    #[tokio::test]
    async fn serve_needs_no_table_of_incidents() {
        let database = dynoxide::Database::memory().expect("a database");
        let client = embedded::client(database).await.expect("a client");
        let names = TableNames::new("citystream");
        let rights = async || {
            let mut table = CheckTable::new();
            check_rights(&mut table, &client, &names, (Role::Serve, false)).await;
            table.exit()
        };
        assert_eq!(rights().await, Exit::Failed, "there is no table at all");
        for spec in tables::specs(&names) {
            tables::create(&client, &spec).await.expect("a table");
        }
        assert_eq!(rights().await, Exit::Done);
        let has_tables =
            async |role| check_tables(&mut CheckTable::new(), &client, &names, role).await;
        assert!(has_tables((Role::Serve, false)).await);
        for role in [Role::Notify, Role::Tail, Role::Verify] {
            assert!(!has_tables((role, true)).await, "{}", role.name());
        }
        let incidents = tables::incidents_spec(&names);
        tables::create(&client, &incidents).await.expect("a table");
        assert_eq!(rights().await, Exit::Done);
        assert!(has_tables((Role::Notify, true)).await);
        for spec in tables::specs(&names) {
            let limit = std::time::Duration::from_secs(10);
            let deleted = tables::delete(&client, &spec.name, limit).await;
            assert!(deleted.expect("a table"));
        }
        assert!(has_tables((Role::Tail, true)).await, "tail needs no counts");
    }
}
