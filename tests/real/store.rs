//! The store on DynamoDB Local: see `tests/store`.

use aws_sdk_dynamodb::Client;

use crate::services::services;

fn run<T: Future<Output = ()>>(name: &str, test: impl FnOnce(Client, String) -> T) {
    let Some(services) = services() else {
        return;
    };
    let _calm = services.calm(false);
    // A table's name has room for so much.
    let prefix = format!("k3-{}", &name[..name.len().min(60)]);
    services.block_on(test(services.dynamodb(), prefix));
}

crate::suite::store_suite!(run);
