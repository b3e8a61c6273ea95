//! Tests of the roles on tables of the system that citystream replaces.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use dynoxide::Database;
use rdkafka::mocking::MockCluster;

use crate::process::Start as _;
use crate::world::WAIT_MAX;

/// A DynamoDB with the windows table of the former system, and its address.
fn former() -> String {
    let database = Database::memory().unwrap();
    let table = serde_json::json!({
        "TableName": "citystream-aggregations",
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "partition_key", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "partition_key", "KeyType": "HASH"}],
    });
    database
        .create_table(serde_json::from_value(table).unwrap())
        .unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap().to_string())
                .unwrap();
            dynoxide::server::serve_on(listener, database).await;
        });
    });
    told.recv().unwrap()
}

/// A role that is killed at the end of the test.
struct Role(Child);

impl Drop for Role {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn roles_that_find_tables_of_the_former_system_report_it_with_the_remedy() {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic("city-events", 1, 1).unwrap();
    let (servers, dynamodb) = (broker.bootstrap_servers(), former());
    for args in [
        &["consume", "--listen", "127.0.0.1:0"][..],
        &["serve", "--port", "0"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_citystream"))
            .args(args)
            .env_clear()
            .env("KAFKA_BOOTSTRAP_SERVERS", &servers)
            .env("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{dynamodb}"))
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "x")
            .env("AWS_SECRET_ACCESS_KEY", "x")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .start()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let _role = Role(child);
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if line.contains("the system that citystream replaces") {
                    drop(tell.send(line));
                }
            }
        });
        let line = told
            .recv_timeout(WAIT_MAX)
            .unwrap_or_else(|_| panic!("{args:?}"));
        assert!(line.contains("init-tables --table-prefix city2"), "{line}");
    }
}
