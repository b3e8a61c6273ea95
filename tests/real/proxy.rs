//! A proxy in front of a real DynamoDB.
//!
//! It breaks requests as [`Faults`] draws them, tells the lies of [`Liar`], is silent on request, and can kill a
//! process at a named point of a request's life. It keeps an [`Account`] of all requests and responses.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::http::request::Parts;
use hyper::{Request, Response};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::account::{Account, Entry};
use crate::faults::{Fault, Faults, refusal, with_unprocessed};
use crate::lies::{self, Liar, Lie};

/// When in a request's life the proxy kills the process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    /// Before the request reaches DynamoDB.
    Before,
    /// After the request took effect, and before the sender receives the response.
    Applied,
    /// Just after the sender received the response.
    Answered,
}

/// A place in the consumer's work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    /// The end of the request's target.
    pub(crate) operation: &'static str,
    /// A text in the request's body.
    pub(crate) says: &'static str,
    /// A text that is not in the request's body.
    pub(crate) says_not: &'static str,
    pub(crate) when: When,
}

#[derive(Debug, Default)]
struct Trap {
    armed: Option<(Point, u32)>,
    sprung: bool,
}

#[derive(Debug)]
struct Shared {
    faults: Arc<Faults>,
    trap: Mutex<Trap>,
    liar: Liar,
    account: Account,
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A running proxy. It stops when it is dropped.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    url: String,
    runtime: Option<Runtime>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Proxy {
    /// Starts a proxy in front of `upstream`, a URL without a path.
    pub(crate) fn start(upstream: &str, faults: &Arc<Faults>) -> Proxy {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            faults: Arc::clone(faults),
            trap: Mutex::default(),
            liar: Liar::default(),
            account: Account::default(),
            upstream: upstream.trim_end_matches('/').to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        });
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Proxy {
            shared,
            url: format!("http://{address}"),
            runtime: Some(runtime),
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Kills process `pid` when the next request passes `point`.
    pub(crate) fn arm(&self, point: Point, pid: u32) {
        *self.shared.trap.lock().unwrap() = Trap {
            armed: Some((point, pid)),
            sprung: false,
        };
    }

    /// Answers `per_cent` of the suitable requests with this lie from now on.
    pub(crate) fn lie(&self, lie: Lie, per_cent: u64) {
        self.shared.liar.tell(lie, per_cent);
    }

    /// Returns how many lies were told.
    pub(crate) fn lies_told(&self) -> u64 {
        self.shared.liar.told()
    }

    /// Returns the account of all requests and responses.
    pub(crate) fn account(&self) -> &Account {
        &self.shared.account
    }

    /// Returns whether the process was killed.
    pub(crate) fn sprung(&self) -> bool {
        self.shared.trap.lock().unwrap().sprung
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
            // The connection fails whenever the proxy withholds a response.
            drop(
                connection
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

/// Closes the connection without a response.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut")]
struct Cut;

type Answer = Result<lies::Answer, Cut>;

fn kill(pid: u32) {
    let mut command = Command::new("kill");
    // The process may have ended by itself.
    drop(command.args(["-s", "KILL", &pid.to_string()]).status());
}

impl Shared {
    /// Answers a request and records what the sender received.
    async fn answer(
        self: Arc<Shared>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Cut> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
        let target = head.headers.get("x-amz-target");
        let target = target.and_then(|t| t.to_str().ok()).unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        self.faults.held().await;
        let entry = self.account.begin(&operation, body.clone());
        let (shared, exchange) = (Arc::clone(&self), entry.clone());
        // A task of its own ends even if the sender dies meanwhile, so that the account knows what DynamoDB did.
        let decided =
            tokio::spawn(async move { shared.decide(&operation, head, body, &exchange).await });
        let answer = decided.await.map_err(|_| Cut)?;
        entry.hand_on(answer.as_ref().ok());
        answer.map(respond)
    }

    async fn decide(
        self: Arc<Shared>,
        operation: &str,
        head: Parts,
        body: Bytes,
        entry: &Entry,
    ) -> Answer {
        let batch = operation == "BatchWriteItem";
        if let Some((point, pid)) = self.take_trap(operation, &body) {
            // A task of its own continues even if the sender stops waiting.
            let trapped = tokio::spawn(self.trapped(point, pid, head, body, entry.clone()));
            return trapped.await.map_err(|_| Cut)?;
        }
        if batch && self.faults.refuses(&body) {
            return Ok(lies::Answer::new(400, refusal("ValidationException")));
        }
        if let Some(lie) = self.liar.pick(self.faults.draw()) {
            return self.lied(lie, operation, &head, body, entry).await;
        }
        match self.faults.pick(batch) {
            None => self.forward(&head, body, entry).await,
            Some(Fault::Throttled) => {
                let body = refusal("ProvisionedThroughputExceededException");
                Ok(lies::Answer::new(400, body))
            }
            Some(Fault::ServerError) => Ok(lies::Answer::new(500, refusal("InternalServerError"))),
            Some(Fault::LostRequest) => Err(Cut),
            Some(Fault::LostAnswer) => {
                self.forward(&head, body, entry).await?;
                Err(Cut)
            }
            Some(Fault::LandsLate) => {
                let (wait, entry) = (self.faults.pause(3_000), entry.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    drop(self.forward(&head, body, &entry).await);
                });
                Err(Cut)
            }
            Some(Fault::Unprocessed) => {
                let (less, left) = self.faults.leave_out(&body);
                let answer = self.forward(&head, less.into(), entry).await?;
                let body = with_unprocessed(&answer.body, left);
                Ok(lies::Answer::new(answer.status, body))
            }
            Some(Fault::Slow) => {
                tokio::time::sleep(self.faults.pause(100)).await;
                self.forward(&head, body, entry).await
            }
        }
    }

    async fn lied(
        &self,
        lie: Lie,
        operation: &str,
        head: &Parts,
        body: Bytes,
        entry: &Entry,
    ) -> Answer {
        if let Some(answer) = self.liar.make_up(lie, operation, &body) {
            return Ok(answer);
        }
        if lie == Lie::ForeignUnprocessed && operation == "BatchWriteItem" {
            let (less, left) = self.faults.leave_out(&body);
            let answer = self.forward(head, less.into(), entry).await?;
            let body = self.liar.hide_unprocessed(&answer.body, &left);
            return Ok(lies::Answer::new(answer.status, body));
        }
        let answer = self.forward(head, body, entry).await?;
        Ok(self.liar.twist(lie, answer, self.faults.draw()))
    }

    fn take_trap(&self, target: &str, body: &[u8]) -> Option<(Point, u32)> {
        let mut trap = self.trap.lock().unwrap();
        let (point, _) = trap.armed?;
        let body = String::from_utf8_lossy(body);
        let passes = target.ends_with(point.operation)
            && body.contains(point.says)
            && (point.says_not.is_empty() || !body.contains(point.says_not));
        if passes { trap.armed.take() } else { None }
    }

    async fn trapped(
        self: Arc<Shared>,
        point: Point,
        pid: u32,
        head: Parts,
        body: Bytes,
        entry: Entry,
    ) -> Answer {
        if let When::Before = point.when {
            self.spring(pid);
            return Err(Cut);
        }
        let answer = self.forward(&head, body, &entry).await;
        if answer.is_err() {
            // If this request did not take effect, the next one triggers the kill.
            self.trap.lock().unwrap().armed = Some((point, pid));
        } else if let When::Applied = point.when {
            self.spring(pid);
            return Err(Cut);
        } else {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                self.spring(pid);
            });
        }
        answer
    }

    fn spring(&self, pid: u32) {
        kill(pid);
        self.trap.lock().unwrap().sprung = true;
    }

    /// Forwards a request, and records the request and its response.
    async fn forward(&self, head: &Parts, body: Bytes, entry: &Entry) -> Answer {
        let mut request = Request::builder().method(head.method.clone()).uri(format!(
            "{}{}",
            self.upstream,
            head.uri.path()
        ));
        for (name, value) in &head.headers {
            // The signature stays valid for the host that the client used. DynamoDB Local does not check it.
            if name != hyper::header::HOST && name != hyper::header::CONTENT_LENGTH {
                request = request.header(name, value);
            }
        }
        entry.send_on(body.clone());
        let sent = request.body(Full::new(body.clone())).map_err(|_| Cut)?;
        let answer = self.client.request(sent).await.map_err(|_| Cut)?;
        let (head, answered) = answer.into_parts();
        let checksum = head.headers.get("x-amz-crc32");
        let checksum = checksum.and_then(|value| value.to_str().ok());
        let answered = answered.collect().await.map_err(|_| Cut)?.to_bytes();
        // AWS sends this header with errors too, and DynamoDB Local does not.
        let checksum =
            checksum.map_or_else(|| crc32fast::hash(&answered).to_string(), ToOwned::to_owned);
        let answer = lies::Answer {
            status: head.status.as_u16(),
            checksum,
            body: answered.to_vec(),
        };
        entry.answered(&answer);
        self.liar.remember(entry.operation(), &body, &answer);
        Ok(answer)
    }
}

fn respond(answer: lies::Answer) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .status(answer.status)
        .header(CONTENT_TYPE, "application/x-amz-json-1.0")
        .header("x-amz-crc32", answer.checksum);
    response.body(Full::new(answer.body.into())).unwrap()
}
