//! An HTTP server on the loopback interface, whose responses are chosen by the test.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use url::Url;

/// The response of the test server.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// A response with the given status, and with a header of the given name and value.
    Status(u16, &'static str, String),
    /// A response with the given status and a body that never ends.
    Endless(u16),
    /// A response with the given status, whose body never arrives.
    NoBody(u16),
    /// No response at all.
    Nothing,
}

/// A request that the server has received.
pub(super) struct Seen {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) seen: UnboundedReceiver<Seen>,
}

impl Server {
    /// Starts a server that answers each request with the result of `reply` for the request's path.
    pub(super) async fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Server {
        Server::start_with(reply, None).await
    }

    pub(super) async fn start_with(
        reply: impl Fn(&str) -> Reply + Send + Sync + 'static,
        tls: Option<TlsAcceptor>,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = unbounded_channel();
        let reply = Arc::new(reply);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (reply, sender, tls) = (Arc::clone(&reply), sender.clone(), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        answer(request, Arc::clone(&reply), sender.clone())
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    // A client that closes its connection early must not make the test fail.
                    let served = match tls {
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => {
                                http.serve_connection(TokioIo::new(stream), service).await
                            }
                            Err(_) => Ok(()),
                        },
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                    };
                    served.ok();
                });
            }
        });
        Server { address, seen }
    }

    pub(super) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).unwrap()
    }
}

async fn answer<R: Fn(&str) -> Reply>(
    request: Request<Incoming>,
    reply: Arc<R>,
    sender: UnboundedSender<Seen>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let body = body.collect().await.unwrap().to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let headers = head.headers;
    let chosen = reply(&path);
    // A test that does not inspect the requests may have dropped the receiving end of the channel, so a failure to send
    // is ignored.
    let seen = Seen {
        path,
        headers,
        body,
    };
    sender.send(seen).ok();
    let response = |status: u16| Response::builder().status(status);
    Ok(match chosen {
        Reply::Status(status, name, value) => {
            let body = Full::new(Bytes::from("no such\r\n hook\u{7}"));
            let name = if name.is_empty() { "x-none" } else { name };
            let response = response(status).header(name, value);
            response.body(body.boxed_unsync()).unwrap()
        }
        Reply::Endless(status) => {
            let chunk = || Ok(Frame::data(Bytes::from(vec![b'x'; 8_192])));
            let body = StreamBody::new(stream::repeat_with(chunk));
            response(status).body(body.boxed_unsync()).unwrap()
        }
        Reply::NoBody(status) => {
            let body = StreamBody::new(stream::pending::<Result<Frame<Bytes>, _>>());
            response(status).body(body.boxed_unsync()).unwrap()
        }
        Reply::Nothing => std::future::pending().await,
    })
}
