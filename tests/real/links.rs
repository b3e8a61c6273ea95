//! Proxies between clients and brokers: one link per broker, which can be slow, cut, or dead in one direction. A link can
//! also hold one request back and deliver it later.
//!
//! `scripts/real-services start --links` makes each broker advertise the port of its link, so all requests of a client
//! that begins with [`Links::servers`] pass the links.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};

use crate::role::wait_for;
use crate::services::{Services, three_brokers};

/// Kafka's numbers of requests.
pub(crate) const END_TXN: i16 = 26;
pub(crate) const TXN_OFFSET_COMMIT: i16 = 28;

/// What a link does with the bytes of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Open,
    /// Each request and each part of an answer waits for up to this time.
    Slow(Duration),
    /// Connections end, and new ones are refused.
    Cut,
    /// Requests wait until the mode changes.
    NoRequests,
    /// Answers wait until the mode changes.
    NoAnswers,
}

/// What becomes of the first request of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Catch {
    /// Its connection ends. The broker gets the request when the test wants it, as if the network had delayed it.
    Delay,
    /// It waits, and its connection stays open.
    Hold,
}

#[derive(Debug)]
struct Trap {
    kind: i16,
    catch: Catch,
    caught: Arc<Caught>,
}

/// A request that a link held back.
#[derive(Debug, Default)]
pub(crate) struct Caught {
    /// 0: not yet caught, 1: caught, 2: the broker has answered it.
    state: Mutex<u8>,
    answer: Mutex<Vec<u8>>,
    release: Notify,
}

impl Caught {
    fn reach(&self, state: u8) {
        *self.state.lock().unwrap() = state;
    }

    fn wait(&self, what: &str, state: u8) {
        wait_for(what, || {
            (*self.state.lock().unwrap() >= state).then_some(())
        });
    }

    /// Waits until the request is held back.
    pub(crate) fn is_caught(&self) {
        self.wait("a request to be held back", 1);
    }

    /// Delivers the request to its broker. Returns the answer, which the client never gets, without its size.
    pub(crate) fn deliver(&self) -> Vec<u8> {
        self.release.notify_one();
        self.wait("the broker to answer a late request", 2);
        self.answer.lock().unwrap()[4..].to_vec()
    }
}

struct Link {
    mode: watch::Sender<Mode>,
    /// How many connections, requests and parts of answers a mode other than open has delayed, held back or ended.
    disturbed: AtomicUsize,
    upstream: u16,
    traps: Arc<Mutex<Vec<Trap>>>,
}

impl Link {
    fn disturb(&self) {
        self.disturbed.fetch_add(1, Ordering::Relaxed);
    }
}

/// The links of all brokers. Every mode is open until a test changes it.
pub(crate) struct Links {
    links: Vec<Arc<Link>>,
    traps: Arc<Mutex<Vec<Trap>>>,
    servers: String,
    _runtime: Runtime,
}

impl Links {
    /// Starts a proxy on each link of the services.
    pub(crate) fn start(services: &Services) -> Links {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let traps: Arc<Mutex<Vec<Trap>>> = Arc::default();
        let (mut links, mut servers) = (Vec::new(), Vec::new());
        for pair in services.export("KAFKA_LINKS").split(',') {
            let (advertised, listening) = pair.split_once(':').unwrap();
            servers.push(format!("127.0.0.1:{advertised}"));
            let link = Arc::new(Link {
                mode: watch::Sender::new(Mode::Open),
                disturbed: AtomicUsize::new(0),
                upstream: listening.parse().unwrap(),
                traps: Arc::clone(&traps),
            });
            let address = servers.last().unwrap();
            let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
            runtime.spawn(accept(listener, Arc::clone(&link)));
            links.push(link);
        }
        Links {
            links,
            traps,
            servers: servers.join(","),
            _runtime: runtime,
        }
    }

    /// Returns the bootstrap servers of clients that shall pass the links.
    pub(crate) fn servers(&self) -> &str {
        &self.servers
    }

    /// Changes the link of broker `node`, from 1.
    pub(crate) fn set(&self, node: usize, mode: Mode) {
        self.links[node - 1].mode.send_replace(mode);
    }

    /// Waits until the link of broker `node` has disturbed `count` more connections, requests and answers.
    pub(crate) fn disturbs(&self, node: usize, count: usize) {
        let disturbed = || self.links[node - 1].disturbed.load(Ordering::Relaxed);
        let before = disturbed();
        wait_for("a link to disturb its clients", || {
            (disturbed() >= before + count).then_some(())
        });
    }

    pub(crate) fn set_all(&self, mode: Mode) {
        for link in &self.links {
            link.mode.send_replace(mode);
        }
    }

    /// Holds back the next request with this number, whichever link it passes.
    pub(crate) fn catch(&self, kind: i16, catch: Catch) -> Arc<Caught> {
        let caught = Arc::new(Caught::default());
        self.traps.lock().unwrap().push(Trap {
            kind,
            catch,
            caught: Arc::clone(&caught),
        });
        caught
    }
}

async fn accept(listener: TcpListener, link: Arc<Link>) {
    while let Ok((client, _)) = listener.accept().await {
        if *link.mode.borrow() == Mode::Cut {
            link.disturb();
        } else {
            tokio::spawn(connect(client, Arc::clone(&link)));
        }
    }
}

async fn connect(client: TcpStream, link: Arc<Link>) {
    let Ok(broker) = TcpStream::connect(("127.0.0.1", link.upstream)).await else {
        return;
    };
    client.set_nodelay(true).ok();
    broker.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let (over, is_over) = watch::channel(None);
    let requests = requests(from_client, to_broker, &link, over);
    let answers = answers(from_broker, to_client, &link, is_over);
    let cut = async {
        let mut mode = link.mode.subscribe();
        mode.wait_for(|mode| *mode == Mode::Cut).await.ok();
    };
    tokio::select! {
        () = cut => link.disturb(),
        _ = async { tokio::join!(requests, answers) } => {}
    }
}

/// Waits as the mode of the link demands. Later bytes wait after earlier ones, as TCP keeps their order.
async fn pass(link: &Link, dead: Mode) {
    let mut modes = link.mode.subscribe();
    let mode = *modes.borrow_and_update();
    if mode == dead {
        link.disturb();
    }
    if let Mode::Slow(most) = mode {
        link.disturb();
        tokio::time::sleep(most.mul_f64(fastrand::f64())).await;
    }
    modes.wait_for(|mode| *mode != dead).await.ok();
}

/// Passes whole requests to the broker. Tells `over` what to wait for when the client's connection shall end.
async fn requests(
    mut client: OwnedReadHalf,
    mut broker: OwnedWriteHalf,
    link: &Link,
    over: watch::Sender<Option<Arc<Caught>>>,
) {
    let mut size = [0; 4];
    while client.read_exact(&mut size).await.is_ok() {
        let length = usize::try_from(i32::from_be_bytes(size)).unwrap_or(0);
        let mut request = vec![0; length];
        if client.read_exact(&mut request).await.is_err() {
            break;
        }
        pass(link, Mode::NoRequests).await;
        let kind = i16::from_be_bytes([request[0], request[1]]);
        let trap = {
            let mut traps = link.traps.lock().unwrap();
            let found = traps.iter().position(|trap| trap.kind == kind);
            found.map(|n| traps.remove(n))
        };
        if let Some(trap) = trap {
            if trap.catch == Catch::Delay {
                over.send_replace(Some(Arc::clone(&trap.caught)));
            }
            trap.caught.reach(1);
            trap.caught.release.notified().await;
        }
        if broker
            .write_all(&[&size[..], &request].concat())
            .await
            .is_err()
        {
            break;
        }
        if over.borrow().is_some() {
            // The answer to the late request ends the connection.
            over.closed().await;
            break;
        }
    }
}

/// Passes answers to the client until its connection shall end, and then waits for one answer more.
async fn answers(
    mut broker: OwnedReadHalf,
    client: OwnedWriteHalf,
    link: &Link,
    mut is_over: watch::Receiver<Option<Arc<Caught>>>,
) {
    let mut client = Some(client);
    let mut part = vec![0; 65_536];
    loop {
        let read = tokio::select! {
            read = broker.read(&mut part) => read.unwrap_or(0),
            Ok(()) = is_over.changed() => {
                client = None;
                continue;
            }
        };
        if let Some(caught) = &*is_over.borrow() {
            *caught.answer.lock().unwrap() = part[..read].to_vec();
            caught.reach(2);
            return;
        }
        let Some(client) = client.as_mut().filter(|_| read > 0) else {
            return;
        };
        pass(link, Mode::NoAnswers).await;
        if client.write_all(&part[..read]).await.is_err() {
            return;
        }
    }
}

/// Returns the links of [`three_brokers`], all open; the first call starts them.
pub(crate) fn links() -> &'static Links {
    static LINKS: OnceLock<Links> = OnceLock::new();
    let links = LINKS.get_or_init(|| Links::start(three_brokers()));
    links.set_all(Mode::Open);
    links
}
