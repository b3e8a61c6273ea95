//! `citystream dev`: runs every role in one process, with an embedded broker and an embedded DynamoDB.

use std::sync::Arc;

use anyhow::Context as _;
use aws_sdk_dynamodb::Client;
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::api::dashboard::Dashboard;
use crate::api::{self, ApiState, ops, server};
use crate::core::keys::TableNames;
use crate::dev::broker::Broker;
use crate::dev::consumers::Consumers;
use crate::dev::faults::WriteFaults;
use crate::dev::incidents::PageReceiver;
use crate::dev::panel::{Panel, PanelParts};
use crate::dev::ports::{self, Ports};
use crate::dev::source::SendOptions;
use crate::dev::{
    CREDIT_BYTES_MAX, CREDIT_RECORDS_MAX, PARTITIONS, TOPIC, comparison, consumer_settings,
    data_dir, greeting, incidents, random_token,
};
use crate::exit::Exit;
use crate::kafka::client::client_config;
use crate::produce::accept::{EventDoor, UPLOADS};
use crate::produce::credit::Credit;
use crate::produce::producer::EventProducer;
use crate::settings::Dev;
use crate::shutdown::Shutdown;
use crate::store::embedded;
use crate::store::reads::DynamoReads;
use crate::tables;
use crate::tables::dynamodb::WantedTables;
use crate::tables::steps::StepDisplay;
use crate::telemetry::{self, Metrics};
use crate::verify::compare::CompareSource;

/// Runs all roles until `shutdown` is triggered.
///
/// # Errors
/// Returns the error with which a role ended.
pub async fn run(args: Dev, metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let ports = Ports::open(&args).await?;
    let is_new = !data_dir::has_tables(args.data_dir.as_deref());
    let sending = SendOptions::open(&args, is_new)?;
    let (database, _lock) = data_dir::open_database(args.data_dir.as_deref())?;
    let client = embedded::client(database.clone()).await?;
    let names = TableNames::new("citystream");
    make_tables(&client, &names).await?;
    let broker = start_broker(ports.kafka, &shutdown)?;
    let answering = ports::serve_database(ports.dynamodb, database.clone(), shutdown.clone());
    tokio::spawn(answering);

    let settings = consumer_settings(&broker.servers)?;
    let kafka = client_config(&settings.kafka, "dev")?;
    let producer = Arc::new(EventProducer::new(kafka.clone(), TOPIC, &metrics)?);
    let partitions = usize::try_from(PARTITIONS).expect("the number is small");
    let credit = Credit::new(partitions, CREDIT_RECORDS_MAX, CREDIT_BYTES_MAX);
    let faults = WriteFaults::default();
    let source = CompareSource {
        client: client.clone(),
        names: names.clone(),
        kafka,
        topic: TOPIC.to_owned(),
        group: settings.group.clone(),
    };
    let raw_ttl_ms = settings.raw_ttl;
    let brokers = settings.kafka.brokers.clone();
    let consumers = Consumers::new(settings, database, &faults, &credit, &metrics).await?;
    let token = random_token().context("failed to read random bytes")?;
    let receiver = PageReceiver::default();
    let parts = PanelParts {
        consumers: consumers.clone(),
        faults,
        receiver: receiver.clone(),
        broker,
        producer: Arc::clone(&producer),
        credit: credit.clone(),
        partitions: PARTITIONS,
        shutdown: shutdown.clone(),
    };
    let panel = Panel::new(parts, token.clone());
    // Only the HTTP server owns the `EventDoor`, so that its producer ends before the embedded broker.
    let door = EventDoor::new(Arc::clone(&producer), TOPIC, &metrics, &shutdown);
    let door = door.with_credit(credit.clone(), PARTITIONS).router();
    let comparing = comparison::watch(panel.clone(), source, raw_ttl_ms, shutdown.clone());
    let comparing = tokio::spawn(comparing);
    let dashboard = Dashboard::with_token(&token);
    let page = ports.addresses.page;
    let telling = incidents::start(brokers, page, &client, &metrics, &shutdown);
    let api = api_state(client, names, &metrics, dashboard, &shutdown);
    let routes = api::router(api).merge(panel.router()).merge(door);
    let routes = routes.merge(receiver.router());
    let http = serve(ports.page, routes, &args, &consumers, &shutdown);
    let own = greeting::own_command();
    telemetry::print_stdout(&greeting::greeting(&args, ports.addresses, &own));

    let stop = shutdown.clone();
    let sending = tokio::task::spawn_blocking(move || sending.run(&producer, credit, &stop));
    let result = consumers.run(&shutdown).await;
    // The producer waits for the consumer, so the producer must also stop if the consumer has failed.
    shutdown.trigger();
    sending.await.context("the producer panicked")??;
    comparing.await.context("the comparison panicked")?;
    telling.await.context("the role notify panicked")?;
    http.await.context("the HTTP server panicked")?;
    // The variable `panel` owns the embedded broker and is dropped last, because all roles need the broker until they
    // end.
    drop(panel);
    result
}

/// Creates the missing tables, including the table of incidents.
async fn make_tables(client: &Client, names: &TableNames) -> anyhow::Result<()> {
    let wanted = WantedTables {
        incidents: true,
        ..WantedTables::default()
    };
    tables::dynamodb::ensure(client, names, &wanted, &StepDisplay::silent()).await?;
    Ok(())
}

/// Starts the embedded broker, and forwards connections from `listener` to the broker.
fn start_broker(listener: TcpListener, shutdown: &Shutdown) -> anyhow::Result<Broker> {
    let broker = Broker::start(vec![
        (TOPIC.to_owned(), PARTITIONS),
        (format!("{TOPIC}-dlq"), 1),
    ])?;
    let target = broker.servers.parse();
    let target = target.context("failed to read the broker's address")?;
    tokio::spawn(ports::forward(listener, target, shutdown.clone()));
    Ok(broker)
}

fn api_state(
    client: Client,
    names: TableNames,
    metrics: &Metrics,
    dashboard: Dashboard,
    shutdown: &Shutdown,
) -> ApiState {
    let reads = Arc::new(DynamoReads::new(client, names, metrics.clone()));
    ApiState::new(reads, metrics.clone())
        .with_dashboard(dashboard)
        .with_shutdown(shutdown.clone())
}

fn serve(
    listener: TcpListener,
    routes: Router,
    args: &Dev,
    consumers: &Consumers,
    shutdown: &Shutdown,
) -> JoinHandle<()> {
    let probe = Arc::clone(&consumers.status) as Arc<dyn ops::Probe>;
    let metrics = consumers.metrics.clone();
    let router = routes
        .merge(ops::actuator(metrics.clone(), Arc::clone(&probe)))
        .merge(ops::router(metrics, probe));
    let options = server::ServeOptions {
        uploads: Some(UPLOADS),
        ..server::ServeOptions::without_login(&args.allowed_host)
    };
    tokio::spawn(server::serve(listener, router, options, shutdown.clone()))
}
