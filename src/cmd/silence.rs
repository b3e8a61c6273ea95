//! `citystream silence`: adds, lists and ends silences.

use crate::cmd::connect_dynamodb;
use crate::core::keys::TableNames;
use crate::exit::{Exit, SettingsError};
use crate::notify::silences;
use crate::settings::{SilenceAction, SilenceCommand};
use crate::store::client::ConnectOptions;
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::incidents::{IncidentTable, describe_missing_table};

/// Adds, lists or ends silences, as the arguments request.
///
/// # Errors
/// Returns an error if DynamoDB does not answer, if the incident table does not exist, or if there is no silence with
/// the given id.
pub async fn run(args: SilenceCommand) -> anyhow::Result<Exit> {
    let client = connect_dynamodb(ConnectOptions::default()).await?;
    let names = TableNames::new(&args.tables.table_prefix);
    let table = IncidentTable::new(client, &names.incidents);
    let done = match args.action {
        SilenceAction::Add(add) => silences::add(&table, add).await,
        SilenceAction::List => silences::list(&table).await,
        SilenceAction::End { id } => silences::end(&table, &id).await,
    };
    done.map_err(|error| match error.downcast_ref::<StoreError>() {
        Some(store) if store.kind() == StoreErrorKind::NotFound => {
            SettingsError(describe_missing_table(&names)).into()
        }
        _ => error,
    })?;
    Ok(Exit::Done)
}
