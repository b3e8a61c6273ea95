//! Why a broker does not let a client in, and which option to look at.
//!
//! librdkafka tries for ever and reports each failure as text. [`judge`] finds in that text the causes
//! that no waiting mends: a certificate that is not trusted, a wrong password, a port that speaks
//! another protocol. Everything else (nobody listens, a name that does not resolve, a broker that
//! restarts) is an outage and passes.
//!
//! What OpenSSL finds wrong with a certificate is not in librdkafka's text. [`examine`] asks the same
//! port once more with another TLS library and the same authorities, and says it in full.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConnection, RootCertStore};

use crate::failure::Failure;

/// Longest wait of [`examine`] for a connection and for each of its answers.
const EXAMINE_TIMEOUT: Duration = Duration::from_secs(2);

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The broker's certificate was not accepted by this side.
    Certificate,
    /// The broker wants a certificate of this side, or another one.
    ClientCertificate,
    /// User name or password are wrong.
    Password,
    /// The broker does not take the token.
    Token,
    /// There is no token to send.
    NoToken,
    /// The broker does not know this way to log in.
    Mechanism,
    /// The listener takes no login at all.
    NoLogin,
    /// The listener wants a login.
    LoginWanted,
    /// This side speaks TLS, the port does not.
    NoTls,
    /// The port speaks TLS, this side does not.
    TlsWanted,
}

/// A cause in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind.
    pub cause: Cause,
    /// The broker as librdkafka names it: `host:port`.
    pub broker: String,
    /// What else is known.
    pub detail: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Failure::from(self).fmt(f)
    }
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Failure {
        let (what, remedy) = refusal.words();
        let mut what = format!("the Kafka broker at {} {what}", refusal.broker);
        if !refusal.detail.is_empty() {
            what = format!("{what} ({})", refusal.detail);
        }
        Failure::new(what).with_remedy(remedy)
    }
}

impl Refusal {
    fn words(&self) -> (&'static str, &'static str) {
        match self.cause {
            Cause::Certificate => (
                "has a certificate that cannot be trusted",
                "--kafka-ca-file must hold the authority that signed it, --brokers its host name",
            ),
            Cause::ClientCertificate => (
                "wants a client certificate that it trusts",
                "check --kafka-cert-file and --kafka-key-file",
            ),
            Cause::Password => (
                "refuses the login",
                "check --kafka-username and --kafka-password-file",
            ),
            Cause::Token => (
                "refuses the token of the AWS credentials",
                "--kafka-auth msk-iam needs the right kafka-cluster:Connect on this cluster, its region \
                 in AWS_REGION, and a clock that is right",
            ),
            Cause::NoToken => (
                "wants a login with AWS credentials, which are not to be had",
                "--kafka-auth msk-iam takes them from the instance's role, a profile or the environment",
            ),
            Cause::Mechanism => (
                "does not know this way to log in",
                "check --kafka-auth, and the port in --brokers",
            ),
            Cause::NoLogin => (
                "takes no login on this port",
                "check --kafka-auth, and the port in --brokers",
            ),
            Cause::LoginWanted => (
                "hangs up, which it does where it wants a login",
                "check --kafka-auth, and the port in --brokers",
            ),
            Cause::NoTls => (
                "does not speak TLS on this port",
                "check --kafka-auth, and the port in --brokers",
            ),
            Cause::TlsWanted => (
                "hangs up, which it does where it wants TLS",
                "check --kafka-auth, and the port in --brokers",
            ),
        }
    }

    /// Tells whether the cause is certain. The others are what a hang-up most likely means; a load
    /// balancer without a broker behind it hangs up as well.
    pub fn is_certain(&self) -> bool {
        match self.cause {
            Cause::Certificate
            | Cause::ClientCertificate
            | Cause::Password
            | Cause::Token
            | Cause::Mechanism
            | Cause::NoLogin => true,
            Cause::NoToken | Cause::LoginWanted | Cause::NoTls | Cause::TlsWanted => false,
        }
    }
}

/// How long a connection lives at most that a broker gives up because nobody logs in. It takes its time to
/// say so: `connection.failed.authentication.delay.ms`, 100 by default, which is 6 ms on Kafka 4.1 and 300 on 3.9.
const HUNG_UP_WITHIN_MS: u64 = 1_000;

/// Finds the refusal in what librdkafka says of a failed connection, if it is one.
///
/// The texts are those of librdkafka 2.12 with OpenSSL 3; the tests with real brokers hold them to it.
pub fn judge(reason: &str) -> Option<Refusal> {
    let says = |words: &str| reason.contains(words);
    let (cause, detail) =
        if says("certificate verify failed") || says("Failed to verify broker certificate") {
            (Cause::Certificate, String::new())
        } else if says("not sending any client certificates") {
            let detail = "it trusts no authority that signed this one";
            (Cause::ClientCertificate, detail.to_owned())
        } else if says("SSL alert number") || says("client SSL authentication might be required") {
            let alert = between(reason, " alert ", ": SSL alert");
            let wants = [
                "certificate",
                "unknown ca",
                "handshake failure",
                "access denied",
            ];
            if !alert.is_empty() && !wants.iter().any(|words| alert.contains(words)) {
                return None;
            }
            (Cause::ClientCertificate, alert.to_owned())
        } else if says("Failed to acquire SASL OAUTHBEARER token") {
            let why = between(reason, "OAUTHBEARER token: ", "");
            (Cause::NoToken, why.to_owned())
        } else if says("SASL authentication error") {
            let said = between(reason, "SASL authentication error: ", " (after ");
            // Not what ends a connection in the middle of it.
            if said.contains("Disconnected") || said.contains("timed out") {
                return None;
            }
            let token = said.contains("OAUTHBEARER") || said.contains("invalid_token");
            let cause = if token { Cause::Token } else { Cause::Password };
            (cause, said.to_owned())
        } else if says("Unsupported SASL mechanism") {
            let known = between(reason, "supported mechanisms: ", " (after ");
            (Cause::Mechanism, format!("it knows {known}"))
        } else if says("mechanism handshake failed") && says("SASL state") {
            (Cause::NoLogin, String::new())
        } else if says("connecting to a PLAINTEXT broker listener?") {
            (Cause::NoTls, String::new())
        } else if says("Disconnected") && says("in state APIVERSION_QUERY") && !is_tls(reason) {
            (Cause::TlsWanted, String::new())
        } else if says("Disconnected") && hung_up_soon(reason) && !is_sasl(reason) {
            (Cause::LoginWanted, String::new())
        } else {
            return None;
        };
    Some(Refusal {
        cause,
        broker: broker(reason).unwrap_or("(unknown)").to_owned(),
        detail,
    })
}

/// Returns what stands after `begin` and before `end` (or the text's end); nothing without `begin`.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let Some((_, rest)) = text.split_once(begin) else {
        return "";
    };
    let end = if end.is_empty() { None } else { rest.find(end) };
    rest[..end.unwrap_or(rest.len())].trim()
}

/// A broker's name is `[protocol://]host:port/id`; without a protocol it is plain.
fn name(reason: &str) -> Option<&str> {
    reason
        .split(": ")
        .find(|part| part.contains(":") && part.contains('/'))
}

fn is_tls(reason: &str) -> bool {
    name(reason).is_some_and(|name| name.contains("ssl://"))
}

fn is_sasl(reason: &str) -> bool {
    name(reason).is_some_and(|name| name.contains("sasl_"))
}

fn broker(reason: &str) -> Option<&str> {
    let name = name(reason)?;
    let name = name.rsplit_once("://").map_or(name, |(_, rest)| rest);
    name.trim_start_matches("[thrd:").split('/').next()
}

/// Tells whether the connection had been up for no longer than a broker waits for a login.
fn hung_up_soon(reason: &str) -> bool {
    let up_ms = between(reason, "(after ", "ms in state UP").parse::<u64>();
    up_ms.is_ok_and(|ms| ms < HUNG_UP_WITHIN_MS)
}

/// Tells what is wrong with the certificate that `broker` (`host:port`) shows, by the authorities in
/// the PEM file `ca` or, without one, the host's. Blocks for some seconds at most; `None` where nothing
/// can be found out.
pub fn examine(broker: &str, ca: Option<&str>) -> Option<String> {
    let (host, _) = broker.rsplit_once(':')?;
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let found = CertificateDer::pem_file_iter(path).ok()?;
            let (_, _) = roots.add_parsable_certificates(found.filter_map(Result::ok));
            if roots.is_empty() {
                return Some(format!("{path} holds no certificate"));
            }
        }
        None => {
            let (_, _) =
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Some("this host has no certificate authorities".to_owned());
            }
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()?;
    let mut tls = ClientConnection::new(Arc::new(config), server).ok()?;
    let address = broker.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, EXAMINE_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(EXAMINE_TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(EXAMINE_TIMEOUT)).ok()?;
    let error = tls.complete_io(&mut stream).err()?;
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match error {
        rustls::Error::InvalidCertificate(wrong) => Some(flaw(wrong, host)),
        _ => None,
    }
}

fn flaw(error: &CertificateError, host: &str) -> String {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => "signed by an authority that is not trusted here".to_owned(),
        E::Expired | E::ExpiredContext { .. } => "it has expired".to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        E::NotValidForName => format!("it is not for {host}"),
        E::NotValidForNameContext { presented, .. } => {
            // As `DnsName("a")` or `IpAddress(1.2.3.4)`.
            let names: Vec<String> = presented
                .iter()
                .map(|name| {
                    let inner = between(name, "(", ")").trim_matches('"');
                    if inner.is_empty() {
                        name.clone()
                    } else {
                        inner.to_owned()
                    }
                })
                .collect();
            format!("it is not for {host}, but for {}", names.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_waiting_mends_is_told_from_what_passes() {
        let tls = "ssl://b-1.example.com:9094/bootstrap: ";
        let sasl = "sasl_ssl://b-1.example.com:9094/bootstrap: ";
        let plain = "b-1.example.com:9094/bootstrap: ";
        let numbered = "[thrd:ssl://b-1.example.com:9094/2]: ssl://b-1.example.com:9094/2: ";
        for (broker, text, cause, detail) in [
            (
                tls,
                "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
                 certificate could not be verified, verify … (after 4ms in state SSL_HANDSHAKE)",
                Some(Cause::Certificate),
                "",
            ),
            (
                numbered,
                "Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL \
                 alert number 42 (after 3ms in state APIVERSION_QUERY)",
                Some(Cause::ClientCertificate),
                "bad certificate",
            ),
            (
                tls,
                "Receive failed: error:0A0000FF:SSL routines::tlsv1 alert internal error: SSL alert \
                 number 80 (after 3ms in state APIVERSION_QUERY)",
                None,
                "",
            ),
            (
                sasl,
                "SASL authentication error: Authentication failed during authentication due to invalid \
                 credentials with SASL mechanism SCRAM-SHA-512 (after 301ms in state AUTH_REQ)",
                Some(Cause::Password),
                "Authentication failed during authentication due to invalid credentials with SASL \
                 mechanism SCRAM-SHA-512",
            ),
            (
                sasl,
                "SASL authentication error: {\"status\":\"invalid_token\"} (after 5ms in state AUTH_REQ)",
                Some(Cause::Token),
                "{\"status\":\"invalid_token\"}",
            ),
            (
                sasl,
                "SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Unsupported SASL mechanism: \
                 broker's supported mechanisms: OAUTHBEARER (after 302ms in state AUTH_HANDSHAKE)",
                Some(Cause::Mechanism),
                "it knows OAUTHBEARER",
            ),
            (
                sasl,
                "SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Request not valid in current \
                 SASL state: broker's supported mechanisms:  (after 1ms in state AUTH_HANDSHAKE)",
                Some(Cause::NoLogin),
                "",
            ),
            (
                tls,
                "SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a \
                 PLAINTEXT broker listener? (after 8ms in state SSL_HANDSHAKE)",
                Some(Cause::NoTls),
                "",
            ),
            (
                plain,
                "Disconnected: connection closed by peer: receive 0 after POLLIN (after 3ms in state \
                 APIVERSION_QUERY)",
                Some(Cause::TlsWanted),
                "",
            ),
            (
                tls,
                "Disconnected: SSL connection closed by peer (after 6ms in state UP)",
                Some(Cause::LoginWanted),
                "",
            ),
            (
                tls,
                "Disconnected: SSL connection closed by peer (after 301ms in state UP)",
                Some(Cause::LoginWanted),
                "",
            ),
            (
                numbered,
                "No matching issuer found in server trusted certificate authorities, not sending any \
                 client certificates",
                Some(Cause::ClientCertificate),
                "it trusts no authority that signed this one",
            ),
            (tls, "Disconnected (after 600123ms in state UP)", None, ""),
            (
                sasl,
                "Disconnected: closed by peer (after 6ms in state UP)",
                None,
                "",
            ),
            (
                plain,
                "Connect to ipv4#10.0.0.1:9094 failed: Connection refused (after 0ms in state CONNECT)",
                None,
                "",
            ),
            (
                plain,
                "Failed to resolve 'b-1.example.com:9094': Name or service not known (after 5ms in \
                 state CONNECT)",
                None,
                "",
            ),
        ] {
            let found = judge(&format!("{broker}{text}"));
            let Some(cause) = cause else {
                assert_eq!(found, None, "{text}");
                continue;
            };
            let found = found.unwrap_or_else(|| panic!("no refusal: {text}"));
            assert_eq!(found.cause, cause, "{text}");
            assert_eq!(found.broker, "b-1.example.com:9094", "{text}");
            assert_eq!(found.detail, detail, "{text}");
            assert!(found.to_string().contains("--kafka-"), "{found}");
        }
        let text = "Failed to acquire SASL OAUTHBEARER token: no AWS credentials: none";
        let found = judge(text).unwrap();
        assert_eq!(
            (found.cause, found.detail.as_str()),
            (Cause::NoToken, "no AWS credentials: none")
        );
    }
}
