//! Finds the tables of the former system, which citystream replaces. The former system used the same table names, but
//! had no totals table.
//!
//! Consumers cannot use the tables of the former system, because the rows of these tables have no fences. If a
//! subcommand finds such tables, it reports them and does not wait for the totals table.

use aws_sdk_dynamodb::Client;

use crate::core::keys::{AGGREGATIONS, TableNames};
use crate::store::error::StoreErrorKind;
use crate::store::rights::{TableUser, try_grant};

/// The advice in the error message about tables that belong to the former system.
pub const REMEDY: &str = "if these tables belong to the system that citystream replaces, count into other tables: \
     citystream init-tables --table-prefix city2, and the same option here; if the totals were lost, \
     restore them, or rebuild all tables from the log";

/// Returns true if the aggregations table of `names` exists. The caller has found that the totals table is missing. The
/// function sends a request that the role `user` has the right to send, and that changes nothing.
pub async fn has_windows(client: &Client, names: &TableNames, user: TableUser) -> bool {
    let grants = user.grants().into_iter();
    let Some(grant) = grants.into_iter().find(|grant| grant.table == AGGREGATIONS) else {
        return false;
    };
    match try_grant(client, names, grant).await {
        Ok(()) => true,
        // The aggregations table exists, but its keys are different or its index is missing.
        Err(error) => error.kind() == StoreErrorKind::Invalid,
    }
}

#[cfg(all(test, feature = "dev"))]
mod tests {
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    };
    use dynoxide::Database;

    use super::*;
    use crate::store::embedded;

    #[tokio::test]
    async fn tables_of_the_former_system_are_found() {
        let client = embedded::client(Database::memory().unwrap()).await.unwrap();
        let names = TableNames::new("citystream");
        let users = [TableUser::Consume, TableUser::Serve];
        for user in users {
            assert!(
                !has_windows(&client, &names, user).await,
                "there is no table"
            );
        }
        // The aggregations table of the former system had another key, and no index by series.
        let key = "window_key";
        client
            .create_table()
            .table_name(&names.aggregations)
            .billing_mode(BillingMode::PayPerRequest)
            .attribute_definitions(
                AttributeDefinition::builder()
                    .attribute_name(key)
                    .attribute_type(ScalarAttributeType::S)
                    .build()
                    .unwrap(),
            )
            .key_schema(
                KeySchemaElement::builder()
                    .attribute_name(key)
                    .key_type(KeyType::Hash)
                    .build()
                    .unwrap(),
            )
            .send()
            .await
            .unwrap();
        for user in users {
            assert!(has_windows(&client, &names, user).await, "{user:?}");
        }
    }
}
