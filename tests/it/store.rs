//! The tests of `tests/store` on the embedded database.

use aws_sdk_dynamodb::Client;
use citystream::store::embedded;

fn run<T: Future<Output = ()>>(_name: &str, test: impl FnOnce(Client, String) -> T) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let db = dynoxide::Database::memory().unwrap();
        test(embedded::client(db).await.unwrap(), "embedded".to_owned()).await;
    });
}

crate::suite::store_suite!(run);
