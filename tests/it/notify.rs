//! Tests of `notify` as roles inside this process, with receivers that fail, stall and repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use citystream::api::ops::Probe as _;
use citystream::core::clock::UnixMs;
use citystream::core::event::{Event, Offset, Severity};
use citystream::core::incident::Incident;
use citystream::core::incident::fold::{Checkpoint, Fold, IncidentSource};
use citystream::core::parse::Body;
use citystream::core::window::Rules;
use citystream::exit::Exit;
use citystream::notify::config::{NotifyConfig, SecretReading};
use citystream::notify::run_with;
use citystream::notify::status::NotifyStatus;
use citystream::settings::{Cli, Command};
use citystream::shutdown::Shutdown;
use citystream::store::config::set_topic;
use citystream::store::incidents::{IncidentTable, StoredIncident};
use citystream::store::tables::{create, incidents_spec};
use citystream::telemetry::Metrics;
use clap::Parser as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::Value;

use crate::world::{BASE_MS, TOPIC, WAIT_MAX, World, is_settings};

const MINUTE_MS: i64 = 60_000;
const RULES: &str = r#"
[[rule]]
name = "critical"
severity = ["critical"]
group_by = ["city"]
quiet = "15m"

[[rule]]
name = "surge"
event_type = ["traffic"]
count = 5
window = "5m"
group_by = ["city"]
quiet = "15m"

[[rule]]
name = "silent"
silence = "30m"
group_by = ["city"]

[[receiver]]
name = "ops"
type = "webhook"
url = "URL"
allow_private = true
min_interval = "1s"
"#;

/// A message that a receiver got: its id and its body.
type Got = (String, Value);

/// A receiver of webhooks. Of every six requests, it answers one with 503, loses the answer of another, and takes the
/// rest.
struct Webhook {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Webhook {
    async fn start() -> Webhook {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (shared, count) = (Arc::clone(&got), Arc::new(AtomicU32::new(0)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, count) = (Arc::clone(&shared), Arc::clone(&count));
                let answer = move |request: Request<Incoming>| {
                    let shared = Arc::clone(&shared);
                    let n = count.fetch_add(1, Ordering::Relaxed);
                    async move { take(request, n, &shared).await }
                };
                let io = hyper_util::rt::TokioIo::new(stream);
                let service = hyper::service::service_fn(answer);
                tokio::spawn(async move {
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(io, service)
                            .await,
                    );
                });
            }
        });
        Webhook { url, got }
    }
}

async fn take(
    request: Request<Incoming>,
    n: u32,
    got: &Mutex<Vec<Got>>,
) -> Result<Response<Empty<Bytes>>, &'static str> {
    let id = request.headers()["webhook-id"].to_str().unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let mut response = Response::new(Empty::new());
    if n % 6 == 1 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(response);
    }
    got.lock()
        .unwrap()
        .push((id, serde_json::from_slice(&body).unwrap()));
    if n % 6 == 4 {
        return Err("the answer is lost");
    }
    Ok(response)
}

pub(crate) struct Running {
    stop: Shutdown,
    pub(crate) metrics: Metrics,
    pub(crate) status: Arc<NotifyStatus>,
    task: tokio::task::JoinHandle<anyhow::Result<Exit>>,
}

impl Running {
    /// Waits until the role ends by itself.
    async fn end(self) -> anyhow::Result<Exit> {
        let ended = tokio::time::timeout(WAIT_MAX, self.task).await;
        ended.expect("it ends").unwrap()
    }

    /// Waits until `is` returns true of this role.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Running) -> bool) {
        let begun = Instant::now();
        while !is(self) {
            assert!(!self.task.is_finished(), "it ended before: {what}");
            assert!(
                begun.elapsed() < WAIT_MAX,
                "never: {what}: {:?}",
                self.status.ready()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the role as SIGTERM does.
    pub(crate) async fn stop(self) -> anyhow::Result<Exit> {
        self.stop.trigger();
        self.end().await
    }
}

fn start(world: &World, config: &NotifyConfig) -> Running {
    start_with(world, config, world.client.clone(), &[])
}

/// Starts a role with another client of the database and more arguments.
pub(crate) fn start_with(
    world: &World,
    config: &NotifyConfig,
    client: Client,
    more: &[&str],
) -> Running {
    let line = format!(
        "citystream notify --config none --from beginning --brokers {} \
         --kafka-property session.timeout.ms=3300 --kafka-property heartbeat.interval.ms=100",
        world.broker.bootstrap_servers()
    );
    let words = line.split_whitespace().chain(more.iter().copied());
    let Command::Notify(args) = Cli::try_parse_from(words).unwrap().command else {
        panic!("not notify");
    };
    let (stop, config) = (Shutdown::default(), config.clone());
    let (metrics, status) = (Metrics::new(), Arc::new(NotifyStatus::default()));
    let role = (metrics.clone(), Arc::clone(&status), stop.clone());
    let task = tokio::spawn(async move {
        let (metrics, status, shutdown) = role;
        run_with(&args, config, client, metrics, status, shutdown).await
    });
    Running {
        stop,
        metrics,
        status,
        task,
    }
}

/// Returns the rules, with a receiver at the address `url`.
pub(crate) fn config(url: &str) -> NotifyConfig {
    let text = RULES.replace("URL", url);
    let path = std::path::Path::new("rules.toml");
    NotifyConfig::parse(path, &text, None, SecretReading::Check).unwrap()
}

/// Creates the table of incidents.
pub(crate) async fn make_table(world: &World) {
    let incidents = incidents_spec(&world.names);
    assert!(create(&world.client, &incidents).await.unwrap());
}

/// The events of a partition: time, city, severity.
type Log = Vec<(i64, &'static str, usize)>;

/// Returns events of three hours in three partitions, with the end of every incident.
fn logs() -> [Log; 3] {
    let cities = [["NYC", "LA"], ["SF", "Boston"], ["Seattle", "Chicago"]];
    cities.map(|cities| {
        let mut log = Log::new();
        for minute in 0..180 {
            // A city pauses for 40 minutes in each hour.
            let city = cities[usize::from(minute % 60 >= 40)];
            let severity = if minute % 7 == 0 { 3 } else { 0 };
            for _ in 0..=minute % 3 {
                log.push((BASE_MS + minute * MINUTE_MS, city, severity));
            }
        }
        for minute in [240, 241] {
            for city in cities {
                log.push((BASE_MS + minute * MINUTE_MS, city, 0));
            }
        }
        log
    })
}

/// Returns the incidents of the log, by rule and id.
fn want(
    config: &NotifyConfig,
    topic_id: &str,
    logs: &[Log; 3],
) -> BTreeMap<(String, String), Incident> {
    let mut out = BTreeMap::new();
    for (partition, log) in (0..).zip(logs) {
        let source = IncidentSource {
            topic: TOPIC.into(),
            topic_id: topic_id.into(),
            partition,
            times: Rules::default(),
        };
        let mut fold = Fold::new(source, &config.rules, &Checkpoint::begin(Offset(0)), &[]);
        let mut changes = Vec::new();
        for (offset, (time_ms, city, severity)) in (0..).zip(log) {
            let event = Event {
                city: (*city).into(),
                event_type: "traffic".into(),
                severity: Severity::ALL[*severity],
                time_ms: UnixMs(*time_ms),
                description: "d".into(),
                event_id: None,
                extra: None,
            };
            // The records have timestamps of today, so no event is ahead of its record.
            let record_ms = Some(UnixMs(BASE_MS * 2));
            fold.take(
                Offset(offset),
                record_ms,
                Some(&Body::Event(event)),
                &mut changes,
            );
        }
        for change in changes {
            let incident = (*change.incident).clone();
            out.insert(
                (incident.rule.to_string(), incident.id.to_string()),
                incident,
            );
        }
    }
    out
}

/// Waits until every incident of the log has a row, and every message that is due has arrived. Returns the rows, and what
/// they must be.
async fn wait_for_all(
    world: &World,
    config: &NotifyConfig,
    logs: &[Log; 3],
    webhook: &Webhook,
) -> (Vec<StoredIncident>, BTreeMap<(String, String), Incident>) {
    let table = IncidentTable::new(world.client.clone(), &world.names.incidents);
    let begun = Instant::now();
    loop {
        let mut rows = Vec::new();
        for rule in &config.rules {
            rows.extend(table.of_rule(&rule.name).await.unwrap());
        }
        let first = rows
            .first()
            .and_then(|row| row.incident.id.split('#').next());
        let wanted = want(config, first.unwrap_or_default(), logs);
        let messages: usize = wanted.values().map(|i| 1 + usize::from(!i.is_open())).sum();
        let arrived = without_updates(&webhook.got.lock().unwrap()).len();
        if rows.len() == wanted.len() && arrived >= messages {
            return (rows, wanted);
        }
        let count = rows.len();
        assert!(
            begun.elapsed() < WAIT_MAX,
            "{count} of {} rows, {arrived} of {messages} messages",
            wanted.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sends the log to two roles, and kills one of them again and again. Returns the last two.
async fn send_and_kill(world: &World, config: &NotifyConfig, logs: &[Log; 3]) -> Vec<Running> {
    let mut roles = vec![start(world, config), start(world, config)];
    let longest = logs.iter().map(Vec::len).max().unwrap();
    for at in 0..longest {
        for (partition, log) in (0..).zip(logs) {
            if let Some((time_ms, city, severity)) = log.get(at) {
                world.event(partition, city, "traffic", *severity, *time_ms);
            }
        }
        if at % 60 == 59 {
            world.flush();
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            roles.remove(0).task.abort();
            roles.push(start(world, config));
        }
    }
    world.flush();
    roles
}

/// Returns rule, incident and type of the messages that do not depend on the time of sending.
fn without_updates(got: &[Got]) -> BTreeSet<(String, String, String)> {
    let text = |body: &Value, name: &str| body[name].as_str().unwrap().to_owned();
    got.iter()
        .map(|(_, body)| {
            (
                text(body, "rule"),
                text(body, "incident"),
                text(body, "type"),
            )
        })
        .filter(|(_, _, kind)| kind != "incident.updated")
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_incident_is_sent_under_one_id_when_processes_die() {
    let world = World::new(3).await;
    make_table(&world).await;
    let webhook = Webhook::start().await;
    let config = config(&webhook.url);
    let logs = logs();
    let roles = send_and_kill(&world, &config, &logs).await;
    let (rows, wanted) = wait_for_all(&world, &config, &logs, &webhook).await;
    for mut row in rows {
        let name = (row.incident.rule.to_string(), row.incident.id.to_string());
        let mut want = wanted[&name].clone();
        // The timestamps of the records are not those of the fold above.
        for incident in [&mut row.incident, &mut want] {
            incident.opened_at_ms = UnixMs(0);
            if let citystream::core::incident::IncidentPhase::Resolved { at_ms } =
                &mut incident.state
            {
                *at_ms = UnixMs(0);
            }
        }
        assert_eq!(row.incident, want);
    }
    let got = webhook.got.lock().unwrap().clone();
    let mut by_id: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for (id, body) in &got {
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        by_id
            .entry(id.clone())
            .or_default()
            .insert((text("incident"), text("type")));
    }
    assert!(
        by_id.values().all(|meanings| meanings.len() == 1),
        "{by_id:?}"
    );
    let told = without_updates(&got);
    let mut expected = BTreeSet::new();
    for ((rule, id), incident) in &wanted {
        expected.insert((rule.clone(), id.clone(), "incident.opened".to_owned()));
        if !incident.is_open() {
            expected.insert((rule.clone(), id.clone(), "incident.resolved".to_owned()));
        }
    }
    assert_eq!(told, expected);
    assert!(expected.len() > 30, "{}", expected.len());
    for role in roles {
        assert_eq!(role.stop().await.unwrap(), Exit::Done);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_topic_end_it() {
    let world = World::new(1).await;
    set_topic(&world.client, &world.names, "another-topic", "1", None)
        .await
        .unwrap();
    let role = start(&world, &config("http://127.0.0.1:1/hook"));
    let error = role.end().await.unwrap_err();
    assert!(is_settings(&error), "{error:#}");
    assert!(
        error
            .to_string()
            .contains("belong to topic another-topic, not city-events"),
        "{error:#}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_refuse_the_membership_end_it_with_the_remedy() {
    let world = World::new(1).await;
    make_table(&world).await;
    let id = ["--kafka-property", "group.instance.id=a"];
    for (error, remedy) in [
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL,
            "choose another --notify-group",
        ),
        (
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
            "the same --kafka-property group.instance.id; give each member its own id",
        ),
    ] {
        world
            .broker
            .request_errors(RDKafkaApiKey::JoinGroup, &[error]);
        let hook = config("http://127.0.0.1:1/hook");
        let role = start_with(&world, &hook, world.client.clone(), &id);
        let error = role.end().await.unwrap_err();
        assert!(is_settings(&error), "{error:#}");
        assert!(error.to_string().ends_with(remedy), "{error:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_the_config_item_the_topic_and_the_table_of_incidents() {
    let world = World::new(1).await;
    let key = [("shard", "config"), ("series", "tables")];
    let key = key.map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned())));
    let totals = &world.names.totals;
    let get = world.client.get_item().table_name(totals);
    let config_item = get.set_key(Some(key.clone().into())).send().await.unwrap();
    let delete = world.client.delete_item().table_name(totals);
    delete.set_key(Some(key.into())).send().await.unwrap();
    let hook = config("http://127.0.0.1:1/hook");
    let client = world.client.clone();
    let set_error = |error| world.broker.topic_error("later", error).unwrap();
    set_error(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    let role = start_with(&world, &hook, client, &["--topic", "later"]);
    let waits_for = async |what: &str| {
        let says = |role: &Running| role.status.ready().is_err_and(|why| why.contains(what));
        role.until(what, says).await;
    };
    waits_for("the config item of citystream-totals").await;
    let put = world.client.put_item().table_name(totals);
    put.set_item(config_item.item).send().await.unwrap();
    waits_for("topic later to exist").await;
    set_error(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
    waits_for("run citystream init-tables --incidents").await;
    make_table(&world).await;
    role.until("it is ready", |role| role.status.ready().is_ok())
        .await;
    assert_eq!(role.stop().await.unwrap(), Exit::Done);
}
