//! A front that makes DynamoDB Local behave like AWS: see [`Behaviour`].
//!
//! If `AWS_REQUEST_LOG` names a file, the front appends every request as a line of JSON, so that `scripts/check-aws`
//! can compare it with the service model.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use citystream::store::client::{ConnectOptions, connect};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::aws_behaviour::{ACCOUNT, Behaviour, Table, allows, needed, overloads, tables};
use crate::services::Services;
use crate::world::World;

/// The largest age of a signature.
const SIGNATURE_S_MAX: i64 = 300;
/// One request: the access key, the operation, and the code of its refusal or "".
pub(crate) type Sent = (String, String, String);

#[derive(Debug)]
struct State {
    how: Behaviour,
    tables: BTreeMap<String, Table>,
    sent: Vec<Sent>,
    /// Rights that were used, as action and resource.
    used: BTreeSet<(String, String)>,
    /// When an item was first requested from an index.
    indexed: BTreeMap<String, Instant>,
    /// Draws which request is refused.
    draws: fastrand::Rng,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A running front. It stops when it is dropped.
pub(crate) struct Front {
    shared: Arc<Shared>,
    url: String,
    runtime: Option<Runtime>,
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Front {
    pub(crate) fn start(services: &Services, how: Behaviour) -> Front {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                how,
                tables: BTreeMap::new(),
                sent: Vec::new(),
                used: BTreeSet::new(),
                indexed: BTreeMap::new(),
                draws: fastrand::Rng::with_seed(7),
            }),
            upstream: services.dynamodb_url().trim_end_matches('/').to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        });
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Front {
            shared,
            url,
            runtime: Some(runtime),
        }
    }

    /// Returns a client with all rights.
    pub(crate) fn client(&self, services: &Services) -> aws_sdk_dynamodb::Client {
        let options = ConnectOptions {
            endpoint_url: Some(self.url.clone()),
            test_credentials: true,
            ..ConnectOptions::default()
        };
        services.block_on(connect(options)).unwrap()
    }

    /// Changes the behaviour. Tables keep their state.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.state.lock().unwrap().how);
    }

    /// Returns all requests so far, in order.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.shared.state.lock().unwrap().sent.clone()
    }

    /// Returns the rights that were needed so far, as action and resource.
    pub(crate) fn used(&self) -> BTreeSet<(String, String)> {
        self.shared.state.lock().unwrap().used.clone()
    }

    /// Runs a role to its end with this front as DynamoDB, signing with `key`. Returns what it printed and logged.
    pub(crate) fn run(
        &self,
        world: &World,
        key: &str,
        line: &[&str],
        code: i32,
    ) -> (String, String) {
        let mut role = world.start_with(line[0], &line[1..], &self.env(key));
        role.ends_with(code);
        (role.out(), role.err())
    }

    /// Returns the environment variables that make a role use this front.
    pub(crate) fn env<'a>(&'a self, key: &'a str) -> [(&'a str, &'a str); 2] {
        [
            ("AWS_ENDPOINT_URL_DYNAMODB", &self.url),
            ("AWS_ACCESS_KEY_ID", key),
        ]
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        let service = hyper::service::service_fn(move |request| {
            let shared = Arc::clone(&shared);
            async move { shared.answer(request).await }
        });
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new();
            // A connection fails whenever its client goes away.
            drop(
                connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

type Answer = Result<Response<Full<Bytes>>, hyper::Error>;

impl Shared {
    async fn answer(self: Arc<Shared>, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let target = header("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let authorization = header("authorization").unwrap_or_default();
        let who = authorization.split_once("Credential=");
        let who = who
            .and_then(|(_, rest)| rest.split('/').next())
            .unwrap_or_default();
        log(&operation, &body);

        let early = self.decide(who, &operation, &mut body, header("x-amz-date"));
        let (status, answer) = match early {
            Some(answer) => answer,
            None => self.forward(&head, &operation, &body).await,
        };
        let code = answer["__type"].as_str().unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default().to_owned();
        let mut state = self.state.lock().unwrap();
        state.sent.push((who.to_owned(), operation, code));
        let date = Timestamp::now().as_second() + state.how.clock_ahead_s;
        let date = Timestamp::from_second(date).unwrap();
        let answer = Response::builder()
            .status(StatusCode::from_u16(status).unwrap())
            .header(CONTENT_TYPE, "application/x-amz-json-1.0")
            .header(DATE, date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
            .body(Full::new(answer.to_string().into()));
        Ok(answer.unwrap())
    }

    /// Returns the response if the front answers by itself. Otherwise prepares the request for DynamoDB Local.
    fn decide(
        &self,
        who: &str,
        operation: &str,
        body: &mut Value,
        signed: Option<&str>,
    ) -> Option<(u16, Value)> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        let how = state.how.clone();
        if let Some(refusal) = judge_signature(&how, signed) {
            return Some(refusal);
        }
        for (action, resource) in needed(operation, body) {
            let policy = how.policies.get(who);
            if policy.is_some_and(|policy| !allows(policy, &action, &resource)) {
                return Some((
                    400,
                    json!({
                        "__type": "com.amazon.coral.service#AccessDeniedException",
                        "message": format!("User: arn:aws:sts::{ACCOUNT}:assumed-role/citystream/{who} is not \
                            authorized to perform: {action} on resource: {resource} because no \
                            identity-based policy allows the {action} action"),
                    }),
                ));
            }
            state.used.insert((action, resource));
        }
        let named = tables(body);
        for name in &named {
            let table = state.tables.entry(name.clone()).or_default();
            if let Some(refusal) = table.refusal(&how, operation, now) {
                let code = format!("com.amazonaws.dynamodb.v20120810#{}", refusal.code);
                return Some((400, json!({"__type": code, "message": refusal.message})));
            }
            if operation == "DescribeTable"
                && let Some(description) = table.while_deleting(&how, now)
            {
                return Some((200, json!({"Table": description})));
            }
            if let Some(answer) = table.answer(operation, body) {
                if operation == "UpdateTable" {
                    table.note(operation, &answer, now);
                }
                return Some((200, answer));
            }
        }
        let has_items = operation.ends_with("Item") || operation == "Query";
        if has_items && state.draws.u32(0..100) < how.throttled_per_cent {
            return state.draws.choice(overloads());
        }
        if let ("Query", Some(most)) = (operation, how.page_items_max) {
            let limit = body["Limit"].as_u64().unwrap_or(u64::MAX);
            body["Limit"] = json!(limit.min(most));
        }
        None
    }

    async fn forward(&self, head: &Parts, operation: &str, body: &Value) -> (u16, Value) {
        let mut request = Request::builder()
            .method(head.method.clone())
            .uri(format!("{}/", self.upstream));
        for (name, value) in &head.headers {
            if name != HOST && name != CONTENT_LENGTH {
                request = request.header(name, value);
            }
        }
        let sent = request.body(Full::new(body.to_string().into())).unwrap();
        let answer = self
            .client
            .request(sent)
            .await
            .expect("DynamoDB Local answers");
        let status = answer.status().as_u16();
        let bytes = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        let mut answer: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({}));
        if status == 200 {
            self.adjust(operation, body, &mut answer);
        }
        (status, answer)
    }

    /// Turns a response of DynamoDB Local into one of AWS.
    fn adjust(&self, operation: &str, body: &Value, answer: &mut Value) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        let state = &mut *state;
        for name in tables(body) {
            let table = state.tables.entry(name).or_default();
            table.note(operation, answer, now);
            if operation == "DescribeTable" {
                table.describe(&state.how, &mut answer["Table"], now);
            }
        }
        let Some(index) = body["IndexName"].as_str().filter(|_| operation == "Query") else {
            return;
        };
        let lag = state.how.index_lag;
        if lag.is_zero() {
            return;
        }
        let items = answer["Items"].as_array_mut().unwrap();
        items.retain(|item| {
            let first = state
                .indexed
                .entry(format!("{index} {item}"))
                .or_insert(now);
            now >= *first + lag
        });
        answer["Count"] = json!(items.len());
    }
}

fn judge_signature(how: &Behaviour, signed: Option<&str>) -> Option<(u16, Value)> {
    let signed = DateTime::strptime("%Y%m%dT%H%M%SZ", signed?).unwrap();
    let signed = TimeZone::UTC.to_timestamp(signed).unwrap().as_second();
    let now = Timestamp::now().as_second() + how.clock_ahead_s;
    let way = if signed < now {
        "Signature expired"
    } else {
        "Signature not yet current"
    };
    ((signed - now).abs() > SIGNATURE_S_MAX).then(|| {
        (
            400,
            json!({
                "__type": "com.amazon.coral.service#InvalidSignatureException",
                "message": format!("{way}: {signed} is more than 5 min. from {now}"),
            }),
        )
    })
}

/// Appends a request to the log that `scripts/check-aws` reads.
fn log(operation: &str, body: &Value) {
    static LOG: Mutex<()> = Mutex::new(());
    let Some(path) = std::env::var_os("AWS_REQUEST_LOG") else {
        return;
    };
    let _one_at_a_time = LOG.lock().unwrap();
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    writeln!(file, "{}", json!({"operation": operation, "body": body})).unwrap();
}
