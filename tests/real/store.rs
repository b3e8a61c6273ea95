//! The tests of `tests/store` on DynamoDB Local.

use aws_sdk_dynamodb::Client;

use crate::services::services;

fn run<T: Future<Output = ()>>(name: &str, test: impl FnOnce(Client, String) -> T) {
    let services = services();
    let _calm = services.calm(false);
    // DynamoDB bounds the length of a table's name.
    let prefix = format!("k3-{}", &name[..name.len().min(60)]);
    services.block_on(test(services.dynamodb(), prefix));
}

crate::suite::store_suite!(run, ignored);
