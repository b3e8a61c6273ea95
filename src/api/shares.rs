//! What each client holds of this server: connections, and bytes of requests and answers in flight.
//!
//! Both are limited in total and per client, so one client cannot starve the others. A client is an IPv4
//! address or the /64 of an IPv6 address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// Maximum number of bytes of requests and answers in flight, over all clients.
pub(super) const BYTES_MAX: usize = 128 << 20;
/// One client may hold one part in this many of the connections and bytes.
pub(super) const CLIENT_PART: usize = 4;
/// Memory of a request and its answer in addition to their text: tasks, buffers, headers. Measured: 13 KiB for
/// each of 3,200 HTTP/2 streams whose client reads nothing.
pub(super) const BASE_BYTES: usize = 16 * 1_024;
/// Connections above the limit that may ask for `/livez` only.
pub(super) const SPARE_MAX: usize = 16;
/// How many of these one client may have.
const CLIENT_SPARE_MAX: usize = 2;

/// The limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections_max: usize,
    pub(super) client_connections_max: usize,
    pub(super) bytes_max: usize,
}

/// What all clients hold. Clones share one count.
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

    /// Counts a connection of `client`. Returns `None` if the client may not even have a spare one.
    ///
    /// A client at its limit makes its own idle connections end. A full server makes all idle connections
    /// end.
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

/// A connection that counts until this is dropped.
pub(super) struct ConnectionShare {
    shares: Shares,
    client: IpAddr,
    /// True if the connection is above the limit and may only ask for `/livez`.
    pub(super) is_spare: bool,
    crowded: Arc<Notify>,
}

impl ConnectionShare {
    /// Waits until another connection finds no room.
    pub(super) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// Counts bytes. Returns `None` if the client, or all clients together, would hold too many.
    pub(super) fn bytes(&self, bytes: usize) -> Option<ByteShare> {
        let mut share = ByteShare {
            shares: self.shares.clone(),
            client: self.client,
            bytes: 0,
        };
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

/// Bytes that count until this is dropped.
pub(super) struct ByteShare {
    shares: Shares,
    client: IpAddr,
    bytes: usize,
}

impl ByteShare {
    /// Changes the number of bytes. Returns false and changes nothing if they are too many.
    #[must_use]
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        let mut held = self.shares.lock();
        let bytes_max = held.limits.bytes_max;
        let of_all = held.bytes - self.bytes + bytes;
        let one = held.clients.entry(self.client).or_default();
        let of_client = one.bytes - self.bytes + bytes;
        let fits = of_all <= bytes_max && of_client <= bytes_max / CLIENT_PART;
        if fits || bytes <= self.bytes {
            one.bytes = of_client;
            held.bytes = of_all;
            self.bytes = bytes;
            return true;
        }
        false
    }
}

impl Drop for ByteShare {
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
        // The server is full now, so a third client gets a spare connection.
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
        let mut first = one.bytes(60).unwrap();
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
