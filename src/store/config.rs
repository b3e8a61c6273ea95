//! placeholder until merged
use crate::core::keys::TableNames;
use crate::core::window::Rules;
use crate::settings::RawRows;
use crate::store::error::StoreError;
#[derive(Clone, Debug)]
pub struct Config {
    pub rules: Rules,
    pub shards: u32,
    pub rules_number: u32,
    pub raw: RawRows,
    pub tables_id: String,
    pub topic: Option<String>,
    pub topic_id: Option<String>,
}
pub async fn read_config(
    _c: &aws_sdk_dynamodb::Client,
    _n: &TableNames,
) -> Result<Option<Config>, StoreError> {
    todo!()
}
pub async fn set_topic(
    _c: &aws_sdk_dynamodb::Client,
    _n: &TableNames,
    _t: &str,
    _i: &str,
) -> Result<(), StoreError> {
    todo!()
}
