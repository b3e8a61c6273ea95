//! Counts the resources that each client uses: connections, and bytes of requests and responses in flight.
//!
//! Connections and bytes are limited in total and for each client, so that one client cannot starve the other clients.
//! A client is an IPv4 address or the /64 network of an IPv6 address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// Maximum number of bytes of requests and responses in flight, over all clients.
pub(super) const BYTES_MAX: usize = 128 << 20;
/// The divisor that limits one client to a quarter of all connections and a quarter of all bytes in flight.
pub(super) const CLIENT_PART: usize = 4;
/// Memory in bytes that a request and its response use for tasks, buffers and headers, in addition to their text. In a
/// test with 3,200 HTTP/2 streams and a client that read nothing, each stream used 13 KiB.
pub(crate) const BASE_BYTES: usize = 16 * 1_024;
/// Number of spare connections, which are accepted above the limit and serve only `/livez`.
pub(super) const SPARE_MAX: usize = 16;
/// Maximum number of spare connections that one client may have.
const CLIENT_SPARE_MAX: usize = 2;

/// The limits on connections and bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections_max: usize,
    pub(super) client_connections_max: usize,
    pub(super) bytes_max: usize,
}

/// Counts the connections and bytes of all clients. All clones share one count.
#[derive(Clone)]
pub(super) struct Shares(Arc<Mutex<AllShares>>);

struct AllShares {
    limits: Limits,
    connections: usize,
    spare: usize,
    bytes: usize,
    clients: HashMap<IpAddr, ClientShares>,
}

#[derive(Default)]
struct ClientShares {
    connections: usize,
    spare: usize,
    bytes: usize,
    crowded: Arc<Notify>,
}

impl ClientShares {
    fn is_empty(&self) -> bool {
        self.connections == 0 && self.spare == 0 && self.bytes == 0
    }
}

impl Shares {
    pub(super) fn new(limits: Limits) -> Shares {
        Shares(Arc::new(Mutex::new(AllShares {
            limits,
            connections: 0,
            spare: 0,
            bytes: 0,
            clients: HashMap::new(),
        })))
    }

    fn lock(&self) -> MutexGuard<'_, AllShares> {
        self.0.lock().expect("no panic holds the shares")
    }

    /// Counts a connection of `client`. Returns `None` if the client may open neither a normal nor a spare connection.
    ///
    /// If the client has reached its limit of connections, the function asks all idle connections of the client to end.
    /// If the server is full, the function asks all idle connections of all clients to end.
    pub(super) fn add_connection(&self, client: IpAddr) -> Option<ConnectionShare> {
        let mut held = self.lock();
        let limits = held.limits;
        let is_full = held.connections >= limits.connections_max;
        if is_full {
            for one in held.clients.values() {
                one.crowded.notify_waiters();
            }
        }
        let spare_left = held.spare < SPARE_MAX;
        let one = held.clients.entry(client).or_default();
        let is_at_limit = one.connections >= limits.client_connections_max;
        if is_at_limit {
            one.crowded.notify_waiters();
        }
        let is_spare = is_full || is_at_limit;
        let crowded = Arc::clone(&one.crowded);
        if !is_spare {
            one.connections += 1;
            held.connections += 1;
        } else if spare_left && one.spare < CLIENT_SPARE_MAX {
            one.spare += 1;
            held.spare += 1;
        } else {
            return None;
        }
        Some(ConnectionShare {
            shares: self.clone(),
            client,
            is_spare,
            crowded,
        })
    }
}

/// Counts one connection against the limits until the value is dropped.
pub(super) struct ConnectionShare {
    shares: Shares,
    client: IpAddr,
    /// True if the connection is above the limit and may request only `/livez`.
    pub(super) is_spare: bool,
    crowded: Arc<Notify>,
}

impl ConnectionShare {
    /// Waits until a new connection arrives while the server or the client of this connection is at its limit of
    /// connections.
    pub(super) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// Counts `bytes` bytes for the client of the connection. Returns `None` if the bytes would exceed the limit of the
    /// client or the limit of all clients together.
    pub(super) fn bytes(&self, bytes: usize) -> Option<ByteShare> {
        let share = ByteShare(Arc::new(ClientBytes {
            shares: self.shares.clone(),
            client: self.client,
            bytes: AtomicUsize::new(0),
        }));
        share.resize(bytes).then_some(share)
    }
}

impl Drop for ConnectionShare {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        if let Some(one) = held.clients.get_mut(&self.client) {
            if self.is_spare {
                one.spare -= 1;
            } else {
                one.connections -= 1;
            }
            if one.is_empty() {
                held.clients.remove(&self.client);
            }
        }
        if self.is_spare {
            held.spare -= 1;
        } else {
            held.connections -= 1;
        }
    }
}

/// The bytes that count against the limits for one request and its response. The bytes stop counting when the last
/// clone of the `ByteShare` is dropped. All clones share one count. A route that reads request bodies finds a `ByteShare` in the extensions of the request.
#[derive(Clone)]
pub(crate) struct ByteShare(Arc<ClientBytes>);

struct ClientBytes {
    shares: Shares,
    client: IpAddr,
    /// The number of counted bytes, which changes only while `shares` is locked.
    bytes: AtomicUsize,
}

impl ByteShare {
    /// Changes the number of counted bytes to `bytes`. If the additional bytes would exceed a limit, returns false and
    /// changes nothing. Reducing the number of bytes always succeeds.
    #[must_use]
    pub(crate) fn resize(&self, bytes: usize) -> bool {
        self.0.resize(bytes)
    }

    /// Returns a share of at most `bytes_max` bytes, for a client that has no other requests.
    #[cfg(test)]
    pub(crate) fn alone(bytes_max: usize) -> ByteShare {
        let shares = Shares::new(Limits {
            connections_max: 1,
            client_connections_max: 1,
            bytes_max: bytes_max * CLIENT_PART,
        });
        let connection = shares.add_connection(IpAddr::from([127, 0, 0, 1]));
        let share = connection.and_then(|connection| connection.bytes(0));
        share.expect("nothing else is held")
    }
}

impl ClientBytes {
    fn resize(&self, bytes: usize) -> bool {
        let mut held = self.shares.lock();
        let before = self.bytes.load(Ordering::Relaxed);
        let bytes_max = held.limits.bytes_max;
        let of_all = held.bytes - before + bytes;
        let one = held.clients.entry(self.client).or_default();
        let of_client = one.bytes - before + bytes;
        let fits = of_all <= bytes_max && of_client <= bytes_max / CLIENT_PART;
        if fits || bytes <= before {
            one.bytes = of_client;
            held.bytes = of_all;
            self.bytes.store(bytes, Ordering::Relaxed);
            return true;
        }
        false
    }
}

impl Drop for ClientBytes {
    fn drop(&mut self) {
        let fits = self.resize(0);
        debug_assert!(fits, "releasing bytes always succeeds");
        let mut held = self.shares.lock();
        if held
            .clients
            .get(&self.client)
            .is_some_and(ClientShares::is_empty)
        {
            held.clients.remove(&self.client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares() -> Shares {
        Shares::new(Limits {
            connections_max: 4,
            client_connections_max: 2,
            bytes_max: 400,
        })
    }

    fn client(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[test]
    fn one_client_gets_its_part_of_the_connections_and_a_few_spares() {
        let shares = shares();
        let held: Vec<_> = (0..10).map(|_| shares.add_connection(client(1))).collect();
        let spare: Vec<_> = held.iter().flatten().map(|one| one.is_spare).collect();
        assert_eq!(spare, [false, false, true, true]);
        let others: Vec<_> = (0..2).map(|_| shares.add_connection(client(2))).collect();
        assert!(others.iter().flatten().all(|one| !one.is_spare));
        // The server is full now, so a third client gets only a spare connection.
        assert!(
            shares
                .add_connection(client(3))
                .is_some_and(|one| one.is_spare)
        );
        drop((held, others));
        assert!(
            shares
                .add_connection(client(3))
                .is_some_and(|one| !one.is_spare)
        );
        assert!(shares.lock().clients.is_empty());
    }

    #[test]
    fn spare_connections_are_limited_over_all_clients() {
        let shares = shares();
        let held: Vec<_> = (0..100).map(|n| shares.add_connection(client(n))).collect();
        assert_eq!(held.iter().flatten().count(), 4 + SPARE_MAX);
    }

    #[test]
    fn one_client_gets_its_part_of_the_bytes() {
        let shares = shares();
        let (one, other) = (
            shares.add_connection(client(1)),
            shares.add_connection(client(2)),
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        let first = one.bytes(60).unwrap();
        assert!(one.bytes(41).is_none());
        assert!(other.bytes(100).is_some());
        assert!(!first.resize(101) && first.resize(100) && one.bytes(1).is_none());
        drop(first);
        assert!(one.bytes(100).is_some());
        drop((one, other));
        let held = shares.lock();
        assert!(held.clients.is_empty() && held.bytes == 0 && held.connections == 0);
    }

    #[test]
    fn all_clients_together_stay_below_the_limit() {
        let shares = shares();
        let connections: Vec<_> = (0..5)
            .filter_map(|n| shares.add_connection(client(n)))
            .collect();
        let held: Vec<_> = connections.iter().map(|one| one.bytes(90)).collect();
        assert_eq!(held.iter().flatten().count(), 4);
    }
}
