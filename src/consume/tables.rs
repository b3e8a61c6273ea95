//! What the tables say about themselves: whether they are there, and which set of tables they are.

use aws_sdk_dynamodb::Client;

use crate::consume::locate::{Trouble, dynamodb};
use crate::core::keys::{TOTALS, TableNames};
use crate::exit::SettingsError;
use crate::store::config::{ConfigItem, read_config};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::former;
use crate::store::rights::TableUser;

/// The tables of one prefix.
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

    /// Returns the config item.
    ///
    /// # Errors
    /// [`Trouble::Wait`] while there is none, or no answer; [`Trouble::Settings`] if it can be none of ours.
    pub(super) async fn config(&self) -> Result<ConfigItem, Trouble> {
        let config = match read_config(&self.client, &self.names).await {
            Err(error) if error.kind() == StoreErrorKind::NotFound && self.has_windows().await => {
                let (totals, windows) = (&self.names.totals, &self.names.aggregations);
                return Err(Trouble::Wait(format!(
                    "table {totals} to exist; {windows} is there without it: {}",
                    former::REMEDY
                )));
            }
            Err(error) => return Err(self.trouble(TOTALS, &error)),
            Ok(config) => config,
        };
        config.ok_or_else(|| {
            let table = &self.names.totals;
            Trouble::Wait(format!(
                "the config item of {table} (citystream init-tables makes it)"
            ))
        })
    }

    async fn has_windows(&self) -> bool {
        former::has_windows(&self.client, &self.names, TableUser::Consume).await
    }

    /// Returns the tables' random id now; `None` if there is no config item, or no table for it.
    pub(super) async fn id(&self) -> Result<Option<String>, Trouble> {
        match read_config(&self.client, &self.names).await {
            Ok(config) => Ok(config.map(|config| config.tables_id)),
            Err(error) if error.kind() == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.trouble(TOTALS, &error)),
        }
    }

    /// Says what an error of a table's means.
    fn trouble(&self, table: usize, error: &StoreError) -> Trouble {
        let name = self.names.all()[table];
        match error.kind() {
            StoreErrorKind::NotFound => Trouble::Wait(format!(
                "table {name} to exist (citystream init-tables makes it)"
            )),
            StoreErrorKind::Invalid | StoreErrorKind::Corrupt | StoreErrorKind::Settings => {
                let what = format!("table {name} is not as citystream init-tables makes it");
                let error = SettingsError::new(what)
                    .with_why(error.to_string())
                    .with_remedy("use another --table-prefix, or make the tables anew");
                Trouble::Settings(error)
            }
            _ => Trouble::Wait(dynamodb(error)),
        }
    }
}
