//! Finds out why a broker refuses a client, and names the option that the operator should check.
//!
//! librdkafka retries forever and reports each failure as text. [`parse_refusal`] searches this text for causes that an
//! operator must fix, such as an untrusted certificate, a wrong password, or a port with another protocol.
//! [`parse_refusal`] ignores failures that may be temporary, such as a refused connection, a host name that does not
//! resolve, or a restarting broker.
//!
//! librdkafka's text does not say which flaw OpenSSL has found in a certificate. Therefore, [`examine_certificate`]
//! connects to the same port with another TLS library, which trusts the same certificate authorities, and returns the
//! flaw that this library finds.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConnection, RootCertStore};

use crate::failure::Failure;

/// Maximum time for which [`examine_certificate`] waits for a connection. The same maximum applies to each answer.
const EXAMINE_TIMEOUT: Duration = Duration::from_secs(2);

/// The cause of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This client does not accept the broker's certificate.
    Certificate,
    /// The client has no certificate or a wrong certificate, and the broker requires one.
    ClientCertificate,
    /// The user name or the password is wrong.
    Password,
    /// The broker does not accept the token.
    Token,
    /// This client does not have a token to send.
    NoToken,
    /// The broker does not support the login mechanism.
    Mechanism,
    /// The broker's listener does not support a login.
    NoLogin,
    /// The broker's listener requires a login, but this client does not log in.
    LoginWanted,
    /// This client uses TLS, but the broker's port does not.
    NoTls,
    /// The broker's port uses TLS, but this client does not.
    TlsWanted,
}

/// A broker's refusal of a client. The text of a refusal describes the reaction of the broker, and names the option
/// that the operator should check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The cause of the refusal.
    pub cause: Cause,
    /// The broker's address as librdkafka writes it: `host:port`.
    pub broker: String,
    /// Further details about the cause, or an empty string.
    pub detail: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Failure::from(self).fmt(f)
    }
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Failure {
        let (what, remedy) = refusal.text_and_remedy();
        let mut what = format!("the Kafka broker at {} {what}", refusal.broker);
        if !refusal.detail.is_empty() {
            what = format!("{what} ({})", refusal.detail);
        }
        Failure::new(what).with_remedy(remedy)
    }
}

impl Refusal {
    fn text_and_remedy(&self) -> (&'static str, &'static str) {
        match self.cause {
            Cause::Certificate => (
                "has a certificate that cannot be trusted",
                "--kafka-ca-file must hold the authority that signed it, --brokers its host name",
            ),
            Cause::ClientCertificate => (
                "requires a client certificate that it trusts",
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
                "requires a login with AWS credentials, but none are available",
                "--kafka-auth msk-iam reads them from the instance's role, a profile or the environment",
            ),
            Cause::Mechanism => (
                "does not support this login mechanism",
                "check --kafka-auth, and the port in --brokers",
            ),
            Cause::NoLogin => (
                "accepts no login on this port",
                "check --kafka-auth, and the port in --brokers",
            ),
            Cause::LoginWanted => (
                "closes the connection, probably because it requires a login",
                "check --kafka-auth, and the port in --brokers",
            ),
            Cause::NoTls => (
                "does not speak TLS on this port",
                "check --kafka-auth, and the port in --brokers",
            ),
            Cause::TlsWanted => (
                "closes the connection, probably because it requires TLS",
                "check --kafka-auth, and the port in --brokers",
            ),
        }
    }

    /// Returns true if the cause is certain. An uncertain cause is only the most likely reason why the connection was
    /// closed. For example, a load balancer that cannot reach any broker also closes connections.
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

/// Time within which a broker that requires a login closes a connection without a login, in milliseconds. By default, a
/// broker waits 100 ms before it closes such a connection (`connection.failed.authentication.delay.ms`). In tests,
/// brokers closed the connection after 6 ms (Kafka 4.1) and after 300 ms (Kafka 3.9).
const HUNG_UP_WITHIN_MS: u64 = 1_000;

/// Parses librdkafka's text about a failed connection. Returns the refusal, or `None` if the failure may end without a
/// change of settings.
///
/// The function recognizes the error texts of librdkafka 2.12 with OpenSSL 3. Tests with real brokers check that
/// librdkafka still writes the same error texts.
pub fn parse_refusal(reason: &str) -> Option<Refusal> {
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
            // The connection was lost during the login, so the broker has neither accepted nor refused the login.
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

/// Returns the part of `text` between the markers `begin` and `end`. Without the marker `end`, the part extends to the
/// end of `text`. Without the marker `begin`, the result is an empty string.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let Some((_, rest)) = text.split_once(begin) else {
        return "";
    };
    let end = if end.is_empty() { None } else { rest.find(end) };
    rest[..end.unwrap_or(rest.len())].trim()
}

/// Returns the name of the broker from librdkafka's text about a failed connection. The name has the form
/// `[protocol://]host:port/id`. The name contains no protocol if the connection uses neither TLS nor a login.
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

/// Returns true if the broker closed the connection within [`HUNG_UP_WITHIN_MS`].
fn hung_up_soon(reason: &str) -> bool {
    let up_ms = between(reason, "(after ", "ms in state UP").parse::<u64>();
    up_ms.is_ok_and(|ms| ms < HUNG_UP_WITHIN_MS)
}

/// Returns the flaw in the certificate of `broker` (`host:port`), or `None` if there is no flaw.
///
/// The function trusts the certificate authorities in the PEM file `ca`, or the authorities of the host if `ca` is
/// `None`. The call blocks for a few seconds at most.
pub fn examine_certificate(broker: &str, ca: Option<&str>) -> Option<String> {
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
        rustls::Error::InvalidCertificate(wrong) => Some(describe_flaw(wrong, host)),
        _ => None,
    }
}

fn describe_flaw(error: &CertificateError, host: &str) -> String {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => "signed by an authority that is not trusted here".to_owned(),
        E::Expired | E::ExpiredContext { .. } => "it has expired".to_owned(),
        E::NotValidYet | E::NotValidYetContext { .. } => "it is not valid yet".to_owned(),
        E::NotValidForName => format!("it is not for {host}"),
        E::NotValidForNameContext { presented, .. } => {
            // Each name in the certificate has the form `DnsName("a")` or `IpAddress(1.2.3.4)`.
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

    const TLS: &str = "ssl://b-1.example.com:9094/bootstrap: ";
    const SASL: &str = "sasl_ssl://b-1.example.com:9094/bootstrap: ";
    const PLAIN: &str = "b-1.example.com:9094/bootstrap: ";
    const NUMBERED: &str = "[thrd:ssl://b-1.example.com:9094/2]: ssl://b-1.example.com:9094/2: ";

    /// A test case: the broker, librdkafka's text, the expected cause, and the expected detail.
    type Case = (&'static str, &'static str, Option<Cause>, &'static str);
    const CASES: &[Case] = &[
        (
            TLS,
            "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
             certificate could not be verified, verify … (after 4ms in state SSL_HANDSHAKE)",
            Some(Cause::Certificate),
            "",
        ),
        (
            NUMBERED,
            "Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL \
             alert number 42 (after 3ms in state APIVERSION_QUERY)",
            Some(Cause::ClientCertificate),
            "bad certificate",
        ),
        (
            TLS,
            "Receive failed: error:0A0000FF:SSL routines::tlsv1 alert internal error: SSL alert \
             number 80 (after 3ms in state APIVERSION_QUERY)",
            None,
            "",
        ),
        (
            SASL,
            "SASL authentication error: Authentication failed during authentication due to invalid \
             credentials with SASL mechanism SCRAM-SHA-512 (after 301ms in state AUTH_REQ)",
            Some(Cause::Password),
            "Authentication failed during authentication due to invalid credentials with SASL \
             mechanism SCRAM-SHA-512",
        ),
        (
            SASL,
            "SASL authentication error: {\"status\":\"invalid_token\"} (after 5ms in state AUTH_REQ)",
            Some(Cause::Token),
            "{\"status\":\"invalid_token\"}",
        ),
        (
            SASL,
            "SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Unsupported SASL mechanism: \
             broker's supported mechanisms: OAUTHBEARER (after 302ms in state AUTH_HANDSHAKE)",
            Some(Cause::Mechanism),
            "it knows OAUTHBEARER",
        ),
        (
            SASL,
            "SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Request not valid in current \
             SASL state: broker's supported mechanisms:  (after 1ms in state AUTH_HANDSHAKE)",
            Some(Cause::NoLogin),
            "",
        ),
        (
            TLS,
            "SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a \
             PLAINTEXT broker listener? (after 8ms in state SSL_HANDSHAKE)",
            Some(Cause::NoTls),
            "",
        ),
        (
            PLAIN,
            "Disconnected: connection closed by peer: receive 0 after POLLIN (after 3ms in state \
             APIVERSION_QUERY)",
            Some(Cause::TlsWanted),
            "",
        ),
        (
            TLS,
            "Disconnected: SSL connection closed by peer (after 6ms in state UP)",
            Some(Cause::LoginWanted),
            "",
        ),
        (
            TLS,
            "Disconnected: SSL connection closed by peer (after 301ms in state UP)",
            Some(Cause::LoginWanted),
            "",
        ),
        (
            NUMBERED,
            "No matching issuer found in server trusted certificate authorities, not sending any \
             client certificates",
            Some(Cause::ClientCertificate),
            "it trusts no authority that signed this one",
        ),
        (TLS, "Disconnected (after 600123ms in state UP)", None, ""),
        (
            SASL,
            "Disconnected: closed by peer (after 6ms in state UP)",
            None,
            "",
        ),
        (
            PLAIN,
            "Connect to ipv4#10.0.0.1:9094 failed: Connection refused (after 0ms in state CONNECT)",
            None,
            "",
        ),
        (
            PLAIN,
            "Failed to resolve 'b-1.example.com:9094': Name or service not known (after 5ms in \
             state CONNECT)",
            None,
            "",
        ),
    ];

    #[test]
    fn refusals_are_distinguished_from_temporary_failures() {
        for &(broker, text, cause, detail) in CASES {
            let found = parse_refusal(&format!("{broker}{text}"));
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
        let found = parse_refusal(text).unwrap();
        assert_eq!(
            (found.cause, found.detail.as_str()),
            (Cause::NoToken, "no AWS credentials: none")
        );
    }
}
