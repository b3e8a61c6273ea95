//! What clients hold of this server: connections, and bytes of requests and answers under way.
//!
//! Both are bounded in all and for each client, so one client cannot take what everybody needs. A
//! client is an address, or the /64 of an IPv6 address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

/// Most bytes of requests and answers under way, of all clients.
pub(super) const BYTES_MAX: usize = 128 << 20;
/// One client has at most this part of the connections and bytes.
pub(super) const CLIENT_PART: usize = 4;
/// Connections beyond the most there may be, for `/livez` alone.
pub(super) const SPARE_MAX: usize = 16;
/// How many of them one client may have.
const CLIENT_SPARE_MAX: usize = 2;

/// How much there is to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) connections_max: usize,
    pub(super) client_connections_max: usize,
    pub(super) bytes_max: usize,
}

/// Who holds what. Clones are the same.
#[derive(Clone)]
pub(super) struct Shares(Arc<Mutex<Held>>);

struct Held {
    limits: Limits,
    connections: usize,
    spare: usize,
    bytes: usize,
    clients: HashMap<IpAddr, Client>,
}

#[derive(Default)]
struct Client {
    connections: usize,
    spare: usize,
    bytes: usize,
    crowded: Arc<Notify>,
}

impl Client {
    fn is_gone(&self) -> bool {
        self.connections == 0 && self.spare == 0 && self.bytes == 0
    }
}

impl Shares {
    pub(super) fn new(limits: Limits) -> Shares {
        Shares(Arc::new(Mutex::new(Held {
            limits,
            connections: 0,
            spare: 0,
            bytes: 0,
            clients: HashMap::new(),
        })))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().expect("no panic holds the shares")
    }

    /// Counts a connection of `client`; `None` if it may have no more, not even a spare one.
    ///
    /// Where there is no room, idle connections are asked to end: those of the client if it has its
    /// part, those of everybody if the server is full.
    pub(super) fn connect(&self, client: IpAddr) -> Option<ConnectionShare> {
        let mut held = self.held();
        let limits = held.limits;
        let is_full = held.connections >= limits.connections_max;
        if is_full {
            for one in held.clients.values() {
                one.crowded.notify_waiters();
            }
        }
        let spare_left = held.spare < SPARE_MAX;
        let one = held.clients.entry(client).or_default();
        let has_its_part = one.connections >= limits.client_connections_max;
        if has_its_part {
            one.crowded.notify_waiters();
        }
        let is_spare = is_full || has_its_part;
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

/// A connection that is counted until this is dropped.
pub(super) struct ConnectionShare {
    shares: Shares,
    client: IpAddr,
    /// Whether it is beyond the bounds and so for `/livez` alone.
    pub(super) is_spare: bool,
    crowded: Arc<Notify>,
}

impl ConnectionShare {
    /// Waits until there is no room for further connections.
    pub(super) async fn crowded(&self) {
        self.crowded.notified().await;
    }

    /// Counts bytes; `None` if the client or all clients together hold too many.
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
        let mut held = self.shares.held();
        if let Some(one) = held.clients.get_mut(&self.client) {
            if self.is_spare {
                one.spare -= 1;
            } else {
                one.connections -= 1;
            }
            if one.is_gone() {
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

/// Bytes that are counted until this is dropped.
pub(super) struct ByteShare {
    shares: Shares,
    client: IpAddr,
    bytes: usize,
}

impl ByteShare {
    /// Counts as many bytes from now on; leaves it as it was and returns false if these are too many.
    #[must_use]
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        let mut held = self.shares.held();
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
        debug_assert!(fits, "nothing always fits");
        let mut held = self.shares.held();
        if held.clients.get(&self.client).is_some_and(Client::is_gone) {
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
    fn one_client_gets_its_part_of_the_connections_and_a_few_spare_ones() {
        let shares = shares();
        let held: Vec<_> = (0..10).map(|_| shares.connect(client(1))).collect();
        let spare: Vec<_> = held.iter().flatten().map(|one| one.is_spare).collect();
        assert_eq!(spare, [false, false, true, true]);
        let others: Vec<_> = (0..2).map(|_| shares.connect(client(2))).collect();
        assert!(others.iter().flatten().all(|one| !one.is_spare));
        // The server is full now: a third client has spare ones only.
        assert!(shares.connect(client(3)).is_some_and(|one| one.is_spare));
        drop((held, others));
        assert!(shares.connect(client(3)).is_some_and(|one| !one.is_spare));
        assert!(shares.held().clients.is_empty());
    }

    #[test]
    fn spare_connections_are_few_whoever_asks() {
        let shares = shares();
        let held: Vec<_> = (0..100).map(|n| shares.connect(client(n))).collect();
        assert_eq!(held.iter().flatten().count(), 4 + SPARE_MAX);
    }

    #[test]
    fn one_client_gets_its_part_of_the_bytes() {
        let shares = shares();
        let (one, other) = (shares.connect(client(1)), shares.connect(client(2)));
        let (one, other) = (one.unwrap(), other.unwrap());
        let mut first = one.bytes(60).unwrap();
        assert!(one.bytes(41).is_none());
        assert!(other.bytes(100).is_some());
        assert!(!first.resize(101) && first.resize(100) && one.bytes(1).is_none());
        drop(first);
        assert!(one.bytes(100).is_some());
        drop((one, other));
        let held = shares.held();
        assert!(held.clients.is_empty() && held.bytes == 0 && held.connections == 0);
    }

    #[test]
    fn all_clients_together_hold_no_more_than_there_is() {
        let shares = shares();
        let connections: Vec<_> = (0..5).filter_map(|n| shares.connect(client(n))).collect();
        let held: Vec<_> = connections.iter().map(|one| one.bytes(90)).collect();
        assert_eq!(held.iter().flatten().count(), 4);
    }
}
