//! `citystream silence`: adds, lists and ends silences.

use crate::cmd::connect_dynamodb;
use crate::core::keys::TableNames;
use crate::exit::Exit;
use crate::notify::silences;
use crate::settings::{SilenceAction, SilenceCommand};
use crate::store::client::ConnectOptions;
use crate::store::incidents::IncidentTable;

/// Adds, lists or ends silences, as the arguments request.
///
/// # Errors
/// Returns an error if DynamoDB does not answer, or if there is no silence with the given id.
pub async fn run(args: SilenceCommand) -> anyhow::Result<Exit> {
    let client = connect_dynamodb(ConnectOptions::default()).await?;
    let names = TableNames::new(&args.tables.table_prefix);
    let table = IncidentTable::new(client, &names.incidents);
    match args.action {
        SilenceAction::Add(add) => silences::add(&table, add).await?,
        SilenceAction::List => silences::list(&table).await?,
        SilenceAction::End { id } => silences::end(&table, &id).await?,
    }
    Ok(Exit::Done)
}
