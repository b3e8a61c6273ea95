//! Decides which of librdkafka's log lines and errors a person sees, and keeps the reason why brokers refuse
//! a client.
//!
//! librdkafka reports every lost connection as an error, many times over, although it reconnects by itself.
//! [`ClientErrors`] filters these reports:
//!
//! | report | written as |
//! |---|---|
//! | a broker closes an idle connection | debug |
//! | no broker can be reached | warning, at most every 30 s; error once it has lasted 30 s |
//! | brokers refuse the client ([`Refusal`]) | error at once, with the option to check; again at most every 30 s |
//!
//! A command that ends by itself gives up on a refusal ([`ClientErrors::lasting_refusal`]). A service logs the
//! refusal and keeps trying.
//!
//! [`ClientErrors::token`] provides the login of clients that use MSK IAM.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::kafka::iam::{IamError, Signer, Token};
use crate::kafka::refusal::{Cause, Refusal, examine_certificate, parse_refusal};

/// Time between two lines about an outage or a refusal. An outage that lasts longer is an error.
const OUTAGE_LINE_EVERY: Duration = Duration::from_secs(30);
/// An outage or refusal ends when nothing is reported for this long. librdkafka reconnects at least every
/// ten seconds and reports the same failure every thirty.
const OUTAGE_OVER_AFTER: Duration = Duration::from_secs(60);
/// How long a refusal must last before a command gives up. A broker also refuses logins for a moment while
/// it starts.
const GIVE_UP_AFTER: Duration = Duration::from_secs(4);
/// The same for a refusal that is only likely.
const GIVE_UP_AFTER_UNCERTAIN: Duration = Duration::from_secs(6);
/// The property whose text librdkafka passes to the token callback. Here it holds the region to sign for.
pub(super) const IAM_PROPERTY: &str = "sasl.oauthbearer.config";
/// The beginning of that text for MSK IAM.
pub(super) const IAM_PREFIX: &str = "citystream-msk-iam region=";

/// How loud a report of librdkafka is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loudness {
    Error,
    Warn,
    Debug,
    /// A connection failed, which counts towards an [`Outage`].
    Outage,
}

/// Returns the loudness of a log line.
fn loudness_of(level: RDKafkaLogLevel, facility: &str, message: &str) -> Loudness {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            Loudness::Error
        }
        // Brokers close idle connections every ten minutes, and all connections when they restart.
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

/// An outage or a refusal, which librdkafka reports many times.
#[derive(Clone, Copy, Debug)]
struct Episode {
    began: Instant,
    last_report: Instant,
    last_line: Instant,
}

impl Episode {
    /// Returns an episode whose first report is logged at `now`.
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

    /// Takes another report and returns whether it is logged.
    fn report(&mut self, now: Instant) -> bool {
        self.last_report = now;
        let due = now.duration_since(self.last_line) >= OUTAGE_LINE_EVERY;
        if due {
            self.last_line = now;
        }
        due
    }
}

/// Takes a report of an outage and returns how to log it. The first line is a warning. Every later one is an error,
/// because the outage has lasted at least [`OUTAGE_LINE_EVERY`] by then.
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

/// Logs librdkafka's reports about one client and keeps its last refusal. Clones share both.
#[derive(Clone, Debug)]
pub struct ClientErrors(Arc<ErrorState>);

#[derive(Debug)]
struct ErrorState {
    outage: Mutex<Option<Episode>>,
    refused: Mutex<Option<KnownRefusal>>,
    /// The file of certificate authorities, if one is set.
    authorities: Option<String>,
    signer: Option<Signer>,
}

/// A refusal and when it was reported and logged.
#[derive(Debug)]
struct KnownRefusal {
    refusal: Refusal,
    episode: Episode,
}

impl ClientErrors {
    /// Returns the errors of a client that is created with `config`, and starts its signer if it uses MSK IAM.
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
            authorities: authorities.map(str::to_owned),
            signer: region.map(|region| Signer::start(region.to_owned())),
        }))
    }

    /// Takes a log line of librdkafka; for `ClientContext::log`.
    pub fn report_line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // librdkafka reports a closed connection only as a line, and every other refusal also as an error.
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

    /// Takes an error of librdkafka; for `ClientContext::error`.
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
            tracing::debug!(reason, "lost a connection to kafka");
        } else if (unreachable || code == Some(RDKafkaErrorCode::Authentication))
            && self.refusal().is_some()
        {
            // A refusal makes librdkafka report "1/1 brokers are down" as well.
            tracing::debug!(reason, "failed to reach a kafka broker");
        } else if unreachable {
            self.report_outage(reason);
        } else {
            tracing::warn!(%error, reason, "librdkafka");
        }
    }

    /// Returns why the brokers refuse this client, if they did so within the last minute.
    pub fn refusal(&self) -> Option<Refusal> {
        let known = self.lock_refused();
        known
            .as_ref()
            .filter(|known| !known.episode.is_over(Instant::now()))
            .map(|known| known.refusal.clone())
    }

    /// Forgets the last refusal, because a broker has answered.
    pub fn clear_refusal(&self) {
        *self.lock_refused() = None;
    }

    /// Returns the refusal if it has lasted so long that waiting does not help. Only clients that have not
    /// reached any broker yet may give up on it.
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

    /// Returns a token for librdkafka; for `ClientContext::generate_oauth_token`.
    ///
    /// # Errors
    /// Why there is no token.
    pub fn oauth_token(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        match self.token() {
            None => Err("only --kafka-auth msk-iam provides tokens".into()),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(token)) => Ok(OAuthToken {
                token: token.text,
                principal_name: "citystream".to_owned(),
                lifetime_ms: token.end_ms,
            }),
        }
    }

    /// Returns a token for MSK IAM; `None` if the client logs in another way.
    pub fn token(&self) -> Option<Result<Token, IamError>> {
        self.0.signer.as_ref().map(Signer::token)
    }

    fn lock_refused(&self) -> MutexGuard<'_, Option<KnownRefusal>> {
        self.0.refused.lock().expect("no panic holds the refusal")
    }

    fn report_refusal(&self, refusal: Refusal) {
        let now = Instant::now();
        let mut slot = self.lock_refused();
        let mut known = slot.as_mut().filter(|known| !known.episode.is_over(now));
        if let Some(known) = &mut known
            && known.refusal.cause == refusal.cause
        {
            if known.episode.report(now) {
                tracing::error!(why = %known.refusal, "kafka refuses this client");
            }
            return;
        }
        let mut episode = Episode::begin(now);
        if let Some(other) = known {
            // Another cause continues the same wait, so that [`ClientErrors::lasting_refusal`] ends it in time.
            episode.began = other.episode.began;
        }
        *slot = Some(KnownRefusal {
            refusal: refusal.clone(),
            episode,
        });
        drop(slot);
        if refusal.cause != Cause::Certificate {
            tracing::error!(why = %refusal, "kafka refuses this client");
            return;
        }
        // The examination connects to the broker. This callback runs on the thread that polls, which must not
        // wait for it.
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
            tracing::error!(why = %refusal, "kafka refuses this client");
        });
    }

    fn report_outage(&self, reason: &str) {
        let mut outage = self.0.outage.lock().expect("no panic holds the outage");
        let loudness = report_outage(&mut outage, Instant::now());
        drop(outage);
        match loudness {
            Loudness::Error => tracing::error!(reason, "kafka is away"),
            Loudness::Warn => tracing::warn!(reason, "failed to reach a kafka broker"),
            Loudness::Debug | Loudness::Outage => {
                tracing::debug!(reason, "failed to reach a kafka broker");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
