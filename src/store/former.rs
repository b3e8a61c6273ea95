//! Tables of the system that this one replaces: the same names, without the totals.
//!
//! Nobody can go on counting in them, since their rows have no fences. A role that finds them under its
//! prefix says so, instead of waiting for the one table that is missing.

use aws_sdk_dynamodb::Client;

use crate::core::keys::{AGGREGATIONS, TableNames};
use crate::store::error::Kind;
use crate::store::rights::{User, try_grant};

/// What to do about them.
pub const REMEDY: &str = "if these tables belong to the system that citystream replaces, count into tables of your own: \
     citystream init-tables --table-prefix city2, and the same option here; if the totals were lost, \
     restore them, or rebuild all tables from the log";

/// Tells whether there is a table of windows under this prefix. Ask where the totals are missing;
/// it asks by what `user` may do with the windows, and changes nothing.
pub async fn has_windows(client: &Client, names: &TableNames, user: User) -> bool {
    let grants = user.grants().into_iter();
    let Some(grant) = grants.into_iter().find(|grant| grant.table == AGGREGATIONS) else {
        return false;
    };
    match try_grant(client, names, grant).await {
        Ok(()) => true,
        // It is there, with other keys or without our index.
        Err(error) => error.kind() == Kind::Invalid,
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
    async fn tables_of_the_former_system_are_told_from_none() {
        let client = embedded::client(Database::memory().unwrap()).await.unwrap();
        let names = TableNames::new("citystream");
        let users = [User::Consume, User::Serve];
        for user in users {
            assert!(
                !has_windows(&client, &names, user).await,
                "nothing is there"
            );
        }
        // Keys of their own, and no index by series.
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
