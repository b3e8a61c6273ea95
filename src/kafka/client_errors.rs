//! Filters the log lines and errors of librdkafka, and remembers why brokers refuse a client.
//!
//! librdkafka reports each lost connection many times as an error, although it reconnects automatically.
//! [`ClientErrors`] filters these reports:
//!
//! | report | written as |
//! |---|---|
//! | a broker closes an idle connection | debug |
//! | no broker can be reached | warning, at most every 30 s; error once it has lasted 30 s |
//! | brokers refuse the client ([`Refusal`]) | error at once, with the option to check; again at most every 30 s |
//!
//! A one-shot command gives up if the brokers continue to refuse the client ([`ClientErrors::lasting_refusal`]). A
//! service logs the refusal and continues to connect.
//!
//! [`ClientErrors::token`] provides the token for clients that log in with MSK IAM.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::kafka::iam::{IamError, Signer, Token};
use crate::kafka::refusal::{Cause, Refusal, examine_certificate, parse_refusal};

/// Time between two log lines about the same outage or refusal. Log lines about an outage of more than 30 s have the
/// level error.
const OUTAGE_LINE_EVERY: Duration = Duration::from_secs(30);
/// An outage or a refusal is over if librdkafka has reported no failure for this time. While connections fail,
/// librdkafka tries to reconnect at least every ten seconds, and reports the same failure every thirty seconds.
const OUTAGE_OVER_AFTER: Duration = Duration::from_secs(60);
/// Duration of a refusal after which a command gives up. The duration is longer than the time for which a starting
/// broker may refuse logins.
const GIVE_UP_AFTER: Duration = Duration::from_secs(4);
/// Duration of a refusal after which a command gives up, if the cause of the refusal is uncertain.
const GIVE_UP_AFTER_UNCERTAIN: Duration = Duration::from_secs(6);
/// A librdkafka property. librdkafka passes its value to the callback that provides login tokens. The value contains
/// the AWS Region for which the callback signs the token.
pub(super) const IAM_PROPERTY: &str = "sasl.oauthbearer.config";
/// The beginning of the value of [`IAM_PROPERTY`] for a login with MSK IAM.
pub(super) const IAM_PREFIX: &str = "citystream-msk-iam region=";

/// The log level of a report from librdkafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loudness {
    Error,
    Warn,
    Debug,
    /// A failed connection. The failure may be part of an outage ([`Episode`]).
    Outage,
}

/// Returns the log level for a log line of librdkafka.
fn loudness_of(level: RDKafkaLogLevel, facility: &str, message: &str) -> Loudness {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            Loudness::Error
        }
        // Brokers close a connection that was idle for ten minutes, and close all connections when they restart.
        _ if message.contains("Disconnected") || message.contains("idle") => Loudness::Debug,
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning
            if matches!(facility, "FAIL" | "ERROR" | "REQTMOUT") =>
        {
            Loudness::Outage
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if facility == "CONFWARN" => {
            Loudness::Debug
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => Loudness::Warn,
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => Loudness::Debug,
    }
}

/// One outage or one refusal, which librdkafka reports many times.
#[derive(Clone, Copy, Debug)]
struct Episode {
    began: Instant,
    last_report: Instant,
    last_line: Instant,
}

impl Episode {
    /// Returns an episode that begins with a report at the time `now`. The caller logs this first report at once.
    fn begin(now: Instant) -> Episode {
        Episode {
            began: now,
            last_report: now,
            last_line: now,
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.last_report) >= OUTAGE_OVER_AFTER
    }

    /// Adds another report to the outage or refusal. Returns true if the caller should log the report.
    fn report(&mut self, now: Instant) -> bool {
        self.last_report = now;
        let due = now.duration_since(self.last_line) >= OUTAGE_LINE_EVERY;
        if due {
            self.last_line = now;
        }
        due
    }
}

/// Adds a report to an outage, and returns the log level of the report. The first log line of an outage is a warning.
/// Every later log line is an error, because the outage has then lasted at least [`OUTAGE_LINE_EVERY`].
fn report_outage(outage: &mut Option<Episode>, now: Instant) -> Loudness {
    match outage {
        Some(episode) if !episode.is_over(now) => {
            if episode.report(now) {
                Loudness::Error
            } else {
                Loudness::Debug
            }
        }
        _ => {
            *outage = Some(Episode::begin(now));
            Loudness::Warn
        }
    }
}

/// Logs librdkafka's reports about one client, and remembers the last refusal. All clones of a [`ClientErrors`] share
/// the same state.
#[derive(Clone, Debug)]
pub struct ClientErrors(Arc<ErrorState>);

#[derive(Debug)]
struct ErrorState {
    outage: Mutex<Option<Episode>>,
    refused: Mutex<Option<KnownRefusal>>,
    /// True if a broker has ever accepted this client.
    is_accepted: AtomicBool,
    /// The path of the file with the certificate authorities, if the operator set a path.
    authorities: Option<String>,
    signer: Option<Signer>,
}

/// A refusal, and the times at which it was reported and logged.
#[derive(Debug)]
struct KnownRefusal {
    refusal: Refusal,
    episode: Episode,
}

impl ClientErrors {
    /// Returns the [`ClientErrors`] of a client with the settings `config`. If `config` selects a login with MSK IAM,
    /// the function also starts the thread that signs the login tokens.
    pub fn new(config: &ClientConfig) -> ClientErrors {
        let authorities = config
            .get("ssl.ca.location")
            .filter(|location| *location != "probe");
        let region = config
            .get(IAM_PROPERTY)
            .and_then(|text| text.strip_prefix(IAM_PREFIX));
        ClientErrors(Arc::new(ErrorState {
            outage: Mutex::new(None),
            refused: Mutex::new(None),
            is_accepted: AtomicBool::new(false),
            authorities: authorities.map(str::to_owned),
            signer: region.map(|region| Signer::start(region.to_owned())),
        }))
    }

    /// Handles a log line of librdkafka. `ClientContext::log` calls this function.
    pub fn report_line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // If a broker refuses the client by closing the connection, librdkafka writes only a log line. For every other
        // refusal, librdkafka also reports an error.
        if matches!(facility, "FAIL" | "SSL")
            && let Some(refusal) = parse_refusal(text)
        {
            tracing::debug!(facility, text, "librdkafka");
            return self.report_refusal(refusal);
        }
        match loudness_of(level, facility, text) {
            Loudness::Error => tracing::error!(facility, text, "librdkafka"),
            Loudness::Warn => tracing::warn!(facility, text, "librdkafka"),
            Loudness::Debug => tracing::debug!(facility, text, "librdkafka"),
            Loudness::Outage => self.report_outage(text),
        }
    }

    /// Handles an error of librdkafka. `ClientContext::error` calls this function.
    pub fn report_error(&self, error: &KafkaError, reason: &str) {
        if let Some(refusal) = parse_refusal(reason) {
            return self.report_refusal(refusal);
        }
        let code = error.rdkafka_error_code();
        let unreachable = matches!(
            code,
            Some(
                RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::OperationTimedOut
            )
        );
        if reason.contains("Disconnected") {
            tracing::debug!(reason, "lost a connection to Kafka");
        } else if (unreachable || code == Some(RDKafkaErrorCode::Authentication))
            && self.refusal().is_some()
        {
            // After a refusal, librdkafka also reports "1/1 brokers are down", which adds no information.
            tracing::debug!(reason, "failed to reach a Kafka broker");
        } else if unreachable {
            self.report_outage(reason);
        } else {
            tracing::warn!(%error, reason, "librdkafka");
        }
    }

    /// Returns the reason why the brokers refuse this client. Returns `None` if the brokers have not refused the client
    /// within the last minute.
    pub fn refusal(&self) -> Option<Refusal> {
        let known = self.lock_refused();
        known
            .as_ref()
            .filter(|known| !known.episode.is_over(Instant::now()))
            .map(|known| known.refusal.clone())
    }

    /// Notes that a broker has accepted the client, so the last refusal no longer applies. From now on, a connection
    /// that a broker closes without a reason counts as an outage, because stopping and failing brokers also close
    /// connections.
    pub fn broker_answered(&self) {
        self.0.is_accepted.store(true, Ordering::Relaxed);
        *self.lock_refused() = None;
    }

    /// Returns the current refusal if it has lasted so long that further waiting is unlikely to help. This function is
    /// for clients that have not reached any broker yet.
    pub fn lasting_refusal(&self) -> Option<Refusal> {
        let known = self.lock_refused();
        let known = known.as_ref()?;
        let patience = if known.refusal.is_certain() {
            GIVE_UP_AFTER
        } else {
            GIVE_UP_AFTER_UNCERTAIN
        };
        (known.episode.began.elapsed() >= patience).then(|| known.refusal.clone())
    }

    /// Returns a login token for librdkafka. `ClientContext::generate_oauth_token` calls this function.
    ///
    /// # Errors
    /// Returns an error with the reason why no login token is available.
    pub fn oauth_token(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        match self.token() {
            None => Err("only --kafka-auth msk-iam provides tokens".into()),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(token)) => Ok(OAuthToken {
                token: token.text,
                principal_name: "citystream".to_owned(),
                lifetime_ms: token.end_ms.0,
            }),
        }
    }

    /// Returns a token for MSK IAM, or `None` if the client logs in by another method.
    pub fn token(&self) -> Option<Result<Token, IamError>> {
        self.0.signer.as_ref().map(Signer::token)
    }

    fn lock_refused(&self) -> MutexGuard<'_, Option<KnownRefusal>> {
        self.0.refused.lock().expect("no panic holds the refusal")
    }

    fn report_refusal(&self, refusal: Refusal) {
        if !refusal.is_certain() && self.0.is_accepted.load(Ordering::Relaxed) {
            return self.report_outage("a broker closed the connection before it answered");
        }
        let now = Instant::now();
        let mut slot = self.lock_refused();
        let mut known = slot.as_mut().filter(|known| !known.episode.is_over(now));
        if let Some(known) = &mut known
            && known.refusal.cause == refusal.cause
        {
            if known.episode.report(now) {
                tracing::error!(why = %known.refusal, "Kafka refuses this client");
            }
            return;
        }
        let mut episode = Episode::begin(now);
        if let Some(other) = known {
            // If the cause of a refusal changes, the new refusal keeps the start time of the old one, so that a
            // one-shot command does not wait longer before it gives up.
            episode.began = other.episode.began;
        }
        *slot = Some(KnownRefusal {
            refusal: refusal.clone(),
            episode,
        });
        drop(slot);
        if refusal.cause != Cause::Certificate {
            tracing::error!(why = %refusal, "Kafka refuses this client");
            return;
        }
        // The examination of the certificate needs a connection to the broker. A separate thread examines the
        // certificate, because the polling thread, which runs this callback, must not wait for a connection.
        let this = self.clone();
        std::thread::spawn(move || {
            let detail = examine_certificate(&refusal.broker, this.0.authorities.as_deref());
            let refusal = Refusal {
                detail: detail.unwrap_or_default(),
                ..refusal
            };
            if let Some(known) = &mut *this.lock_refused() {
                known.refusal.clone_from(&refusal);
            }
            tracing::error!(why = %refusal, "Kafka refuses this client");
        });
    }

    fn report_outage(&self, reason: &str) {
        let mut outage = self.0.outage.lock().expect("no panic holds the outage");
        let loudness = report_outage(&mut outage, Instant::now());
        drop(outage);
        match loudness {
            Loudness::Error => tracing::error!(reason, "Kafka is unreachable"),
            Loudness::Warn => tracing::warn!(reason, "failed to reach a Kafka broker"),
            Loudness::Debug | Loudness::Outage => {
                tracing::debug!(reason, "failed to reach a Kafka broker");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_connection_is_no_refusal_after_a_broker_has_accepted_the_client() {
        let closed = "b1:9092/1: Disconnected: connection closed by peer: receive 0 after POLLIN \
                      (after 3ms in state APIVERSION_QUERY)";
        let errors = ClientErrors::new(&ClientConfig::new());
        let report = || errors.report_line(RDKafkaLogLevel::Error, "FAIL", closed);
        report();
        assert!(errors.refusal().is_some());
        errors.broker_answered();
        report();
        assert_eq!(errors.refusal(), None);
        // A broker that gives a reason still refuses the client.
        let login = "sasl_plaintext://b1:9092/1: SASL authentication error: Authentication failed during authentication";
        errors.report_line(RDKafkaLogLevel::Error, "FAIL", login);
        assert!(errors.refusal().is_some());
    }

    #[test]
    fn idle_disconnects_are_quiet_and_outages_are_logged_every_thirty_seconds() {
        let idle = "b1:9092/1: Disconnected (after 600123ms in state UP)";
        assert_eq!(
            loudness_of(RDKafkaLogLevel::Error, "FAIL", idle),
            Loudness::Debug
        );
        let refused = "b1:9092/1: Connect to ipv4#… failed: Connection refused";
        assert_eq!(
            loudness_of(RDKafkaLogLevel::Error, "FAIL", refused),
            Loudness::Outage
        );
        let mut outage = None;
        let begin = Instant::now();
        let mut logged = Vec::new();
        for second in 0..70 {
            let loudness = report_outage(&mut outage, begin + Duration::from_secs(second));
            if loudness != Loudness::Debug {
                logged.push((second, loudness));
            }
        }
        assert_eq!(
            logged,
            [
                (0, Loudness::Warn),
                (30, Loudness::Error),
                (60, Loudness::Error)
            ]
        );
        let later = begin + Duration::from_secs(1_000);
        assert_eq!(report_outage(&mut outage, later), Loudness::Warn);
    }
}
