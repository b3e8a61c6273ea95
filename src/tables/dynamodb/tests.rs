//! Tests that create and check tables in the embedded database.

use super::*;
use crate::exit::Exit;
use std::time::Duration;

use crate::core::keys::INCIDENTS;
use crate::core::plan::RawRows;
use crate::core::window::Rules;
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
    wanted: &WantedTables,
) -> anyhow::Result<(ConfigItem, Vec<Finding>)> {
    ensure(client, names, wanted, &StepDisplay::silent()).await
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

fn outcomes(findings: &[Finding]) -> Vec<FindingOutcome> {
    findings.iter().map(|finding| finding.outcome).collect()
}

#[tokio::test]
async fn a_second_run_keeps_everything_and_check_changes_nothing() {
    let (client, names) = start().await;
    let wanted = WantedTables::default();
    let findings = check(&client, &names, &wanted).await.unwrap();
    assert_eq!(outcomes(&findings), [FindingOutcome::Missing; 5]);
    let (first, findings) = run(&client, &names, &wanted).await.unwrap();
    assert_eq!(outcomes(&findings), [FindingOutcome::Made; 5]);
    assert_eq!((first.shards, first.rules), (4, Rules::default()));
    put_row(&client, &names).await;
    let (second, findings) = run(&client, &names, &wanted).await.unwrap();
    assert_eq!(outcomes(&findings), [FindingOutcome::Kept; 5]);
    assert_eq!(second, first);
    let findings = check(&client, &names, &wanted).await.unwrap();
    assert_eq!(outcomes(&findings), [FindingOutcome::Kept; 5]);
}

#[tokio::test]
async fn frozen_values_that_differ_exit_with_2_and_change_nothing() {
    let (client, names) = start().await;
    let made = WantedTables {
        window_ms: Some(60_000),
        shards: Some(8),
        topic: Some("a".to_owned()),
        ..WantedTables::default()
    };
    let (first, _) = run(&client, &names, &made).await.unwrap();
    config::set_topic(&client, &names, "a", "id", None)
        .await
        .unwrap();
    let base = WantedTables::default();
    for (wanted, word) in [
        (
            WantedTables {
                window_ms: Some(300_000),
                ..base.clone()
            },
            "--window",
        ),
        (
            WantedTables {
                lateness_ms: Some(0),
                ..base.clone()
            },
            "--lateness",
        ),
        (
            WantedTables {
                skew_ms: Some(1),
                ..base.clone()
            },
            "--max-skew",
        ),
        (
            WantedTables {
                raw: Some(RawRows::None),
                ..base.clone()
            },
            "--raw",
        ),
        (
            WantedTables {
                shards: Some(4),
                ..base.clone()
            },
            "--shards",
        ),
        (
            WantedTables {
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
        assert_eq!(findings[4].outcome, FindingOutcome::Differs, "{word}");
    }
    let (now, _) = run(&client, &names, &made).await.unwrap();
    assert_eq!((now.tables_id, now.rules), (first.tables_id, first.rules));
}

#[tokio::test]
async fn shards_grow_and_check_reports_too_few() {
    let (client, names) = start().await;
    run(&client, &names, &WantedTables::default())
        .await
        .unwrap();
    let wanted = WantedTables {
        shards: Some(16),
        ..WantedTables::default()
    };
    let findings = check(&client, &names, &wanted).await.unwrap();
    assert_eq!(findings[4].outcome, FindingOutcome::Differs);
    let (config, findings) = run(&client, &names, &wanted).await.unwrap();
    assert_eq!(
        (config.shards, findings[4].outcome),
        (16, FindingOutcome::Changed)
    );
}

#[tokio::test]
async fn alerts_expire_only_if_an_option_says_so() {
    let (client, names) = start().await;
    let plain = WantedTables::default();
    let expiring = WantedTables {
        alerts_expire: true,
        ..WantedTables::default()
    };
    let is_on = async || {
        let on = tables::ttl_is_on(&client, &names.alerts, TTL);
        on.await.unwrap()
    };
    run(&client, &names, &plain).await.unwrap();
    assert!(!is_on().await);
    let findings = check(&client, &names, &expiring).await.unwrap();
    assert_eq!(findings[2].notes, ["TTL on ttl is off"]);
    run(&client, &names, &expiring).await.unwrap();
    assert!(is_on().await);
    // A later run with `alerts_expire` set to false leaves the TTL on.
    run(&client, &names, &plain).await.unwrap();
    assert!(is_on().await);
}

#[tokio::test]
async fn a_lost_table_is_created_again_only_if_nothing_was_counted() {
    let (client, names) = start().await;
    let limit = Duration::from_secs(10);
    let wanted = WantedTables::default();
    for lost in names.all() {
        run(&client, &names, &wanted).await.unwrap();
        tables::delete(&client, lost, limit).await.unwrap();
        let (_, findings) = run(&client, &names, &wanted).await.unwrap();
        assert!(
            outcomes(&findings).contains(&FindingOutcome::Made),
            "{lost}"
        );
    }
    put_row(&client, &names).await;
    for lost in [&names.raw, &names.alerts, &names.totals] {
        tables::delete(&client, lost, limit).await.unwrap();
        let error = run(&client, &names, &wanted).await.expect_err(lost);
        assert_eq!(Exit::of(&error), Exit::Settings, "{error:#}");
        assert!(
            tables::describe_table(&client, lost)
                .await
                .unwrap()
                .is_none()
        );
    }
}

#[tokio::test]
async fn a_table_with_other_keys_prevents_every_change() {
    let wanted = WantedTables {
        incidents: true,
        ..WantedTables::default()
    };
    for (table, keys) in [(TOTALS, "(shard, series)"), (INCIDENTS, "(rule, incident)")] {
        let (client, names) = start().await;
        let wrong = TableSpec {
            name: names.of(table).to_owned(),
            ..tables::specs(&names)[1].clone()
        };
        tables::create(&client, &wrong).await.unwrap();
        let error = run(&client, &names, &wanted).await.expect_err("keys");
        assert_eq!(Exit::of(&error), Exit::Settings, "{error:#}");
        let difference = format!("(partition_key) instead of {keys}");
        assert!(format!("{error:#}").contains(&difference), "{error:#}");
        assert!(
            tables::describe_table(&client, &names.raw)
                .await
                .unwrap()
                .is_none()
        );
    }
}

#[tokio::test]
async fn the_incident_table_is_checked_as_thoroughly_as_the_others() {
    let (client, names) = start().await;
    let mut wanted = WantedTables {
        incidents: true,
        ..WantedTables::default()
    };
    let (_, findings) = run(&client, &names, &wanted).await.unwrap();
    assert_eq!(outcomes(&findings), [FindingOutcome::Made; 6]);
    let findings = check(&client, &names, &wanted).await.unwrap();
    assert_eq!(outcomes(&findings), [FindingOutcome::Kept; 6]);
    wanted.protection.deletion = true;
    let findings = check(&client, &names, &wanted).await.unwrap();
    for finding in &findings[..5] {
        assert_eq!(
            finding.notes,
            ["deletion protection is off"],
            "{}",
            finding.what
        );
    }
    // Rows of counts do not depend on the incident table, so a lost incident table can be created again.
    wanted.protection.deletion = false;
    put_row(&client, &names).await;
    let limit = Duration::from_secs(10);
    tables::delete(&client, &names.incidents, limit)
        .await
        .unwrap();
    let (_, findings) = run(&client, &names, &wanted).await.unwrap();
    assert_eq!(findings[4].outcome, FindingOutcome::Made);
}
