//! Decides which IP addresses may receive messages.
//!
//! A URL in the rules file may contain a host name that another party controls. The owner of the host name could make
//! the name resolve to the address of an internal service, such as the instance metadata service. To prevent such an
//! attack, the program sends messages only to public addresses, unless the receiver has `allow_private`. The host name
//! is resolved once per connection, and the connection uses only an address that has been checked.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use tower::Service;

/// Returns true if the address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Source: IANA's registry of IPv4 special-purpose addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || (a == 100 && (64..128).contains(&b)) // carrier-grade NAT
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99) // relays of 6to4
        || (a == 198 && (18..20).contains(&b)) // benchmarks
        || a >= 224; // multicast, reserved and broadcast
    !is_special
}

/// Source: IANA's registry of IPv6 special-purpose addresses. Only 2000::/3 is public. An IPv6 address that contains an
/// IPv4 address is public if the IPv4 address is public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4_at = |n: usize| {
        let [a, b] = segments[n].to_be_bytes();
        let [c, d] = segments[n + 1].to_be_bytes();
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => v4_at(6), // NAT64
        [0x2002, ..] => v4_at(1),                   // 6to4
        [0x2001, 0..=0x1ff, ..] => false,           // Teredo and other protocols
        [0x2001, 0xdb8, ..] => false,               // documentation
        [0x3fff, 0..=0xfff, ..] => false,           // documentation
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

/// Returns the reason why messages must not be sent to the address.
pub(super) fn refusal(host: &str, address: IpAddr) -> String {
    format!(
        "{host} has the address {address}, which is not public; set allow_private = true to \
         admit it"
    )
}

/// Resolves host names to the addresses to which messages may be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resolver {
    pub(super) allow_private: bool,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        Box::pin(async move {
            // The lookup uses the port 0, because the caller of the resolver sets the real port.
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let admitted = found.iter().copied();
            let admitted: Vec<SocketAddr> = admitted
                .filter(|address| allow_private || is_public(address.ip()))
                .collect();
            match found.first() {
                Some(first) if admitted.is_empty() => {
                    Err(io::Error::other(refusal(name.as_str(), first.ip())))
                }
                _ => Ok(admitted.into_iter()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2001:200::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b:1::808:808",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }
}
