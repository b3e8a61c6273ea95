//! Reads the config item, which contains the rules and the random id of the tables.

use aws_sdk_dynamodb::Client;

use crate::consume::trouble::{Trouble, dynamodb};
use crate::core::keys::{TOTALS, TableNames};
use crate::exit::SettingsError;
use crate::store::config::{ConfigItem, read_config};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::former;
use crate::store::rights::TableUser;

/// The tables that share one prefix.
#[derive(Clone)]
pub(super) struct TableSet {
    client: Client,
    names: TableNames,
}

impl TableSet {
    pub(super) fn new(client: Client, names: TableNames) -> TableSet {
        TableSet { client, names }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn names(&self) -> &TableNames {
        &self.names
    }

    /// Returns the config item of the tables.
    ///
    /// # Errors
    /// Returns [`Trouble::Wait`] if the config item does not exist or DynamoDB does not answer. Returns
    /// [`Trouble::Settings`] if another program has written the config item.
    pub(super) async fn config(&self) -> Result<ConfigItem, Trouble> {
        let config = match read_config(&self.client, &self.names).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound && self.has_windows().await => {
                let (totals, windows) = (&self.names.totals, &self.names.aggregations);
                return Err(Trouble::Wait(format!(
                    "table {totals} to exist; table {windows} exists without it: {}",
                    former::REMEDY
                )));
            }
            Err(error) => return Err(self.trouble(TOTALS, &error)),
            Ok(config) => config,
        };
        config.ok_or_else(|| {
            let table = &self.names.totals;
            Trouble::Wait(format!(
                "the config item of {table} (citystream init-tables creates it)"
            ))
        })
    }

    async fn has_windows(&self) -> bool {
        former::has_windows(&self.client, &self.names, TableUser::Consume).await
    }

    /// Returns the random id of the tables. Returns `None` if the config item or its table does not exist.
    pub(super) async fn id(&self) -> Result<Option<String>, Trouble> {
        match read_config(&self.client, &self.names).await {
            Ok(config) => Ok(config.map(|config| config.tables_id)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.trouble(TOTALS, &error)),
        }
    }

    /// Decides whether the consumer waits or stops after a table has returned an error.
    fn trouble(&self, table: usize, error: &StoreError) -> Trouble {
        let name = self.names.all()[table];
        match error.kind() {
            StoreErrorKind::NotFound => Trouble::Wait(format!(
                "table {name} to exist (citystream init-tables creates it)"
            )),
            StoreErrorKind::Invalid | StoreErrorKind::Corrupt | StoreErrorKind::Settings => {
                let what = format!("table {name} is not as citystream init-tables creates it");
                let error = SettingsError::new(what)
                    .with_why(error.to_string())
                    .with_remedy("use another --table-prefix, or create the tables again");
                Trouble::Settings(error)
            }
            _ => Trouble::Wait(dynamodb(error)),
        }
    }
}
