//! What the program does with librdkafka's log lines and errors, and how its clients log in.
//!
//! librdkafka reports every lost connection as an error, many times over, though it mends them by
//! itself. [`ClientErrors`] passes on what a person should see (C14): idle disconnects are debug, brokers
//! that are away a warning at most every 30 seconds, and an error once that has lasted for 30. What no
//! waiting mends ([`Refusal`]) is an error at once, with the option to look at, and is kept for
//! whoever waits: a role that ends by itself gives up on it, the others say it and go on trying.
//!
//! [`ClientErrors::token`] is the login of clients that use MSK IAM.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::kafka::iam::{Signer, Token};
use crate::kafka::refusal::{Cause, Refusal, examine, judge as judge_refusal};

/// Least time between two lines about brokers that are away or refuse, and how long the first lasts
/// before it is an error.
const OUTAGE_LINE_EVERY: Duration = Duration::from_secs(30);
/// Without news of an outage or a refusal for so long, the next one is a new one. librdkafka tries
/// again at least every ten seconds, and tells the same failure every thirty.
const OUTAGE_OVER_AFTER: Duration = Duration::from_secs(60);
/// How long a refusal must last before a role that ends by itself gives up: a broker that starts
/// refuses logins for a moment, too.
const GIVE_UP_AFTER: Duration = Duration::from_secs(4);
/// The same for a refusal that is only likely.
const GIVE_UP_AFTER_UNCERTAIN: Duration = Duration::from_secs(6);
/// The property by which librdkafka hands its token callback a text; here, the region to sign for.
pub(super) const IAM_PROPERTY: &str = "sasl.oauthbearer.config";
/// What that text begins with where the tokens are MSK's.
pub(super) const IAM_PREFIX: &str = "citystream-msk-iam region=";

/// How loud a line of librdkafka's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loudness {
    Error,
    Warn,
    Debug,
    /// About a connection that failed: counts toward an outage.
    Outage,
}

/// Decides by level, facility and text.
fn judge(level: RDKafkaLogLevel, facility: &str, message: &str) -> Loudness {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            Loudness::Error
        }
        // What brokers do with idle connections every ten minutes, and on every restart.
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

/// Which lines about one outage are passed on.
#[derive(Debug, Default)]
struct Outage {
    began: Option<Instant>,
    last: Option<Instant>,
    last_line: Option<Instant>,
}

impl Outage {
    /// Takes news of a failed connection at `now`; returns how to report it.
    fn note(&mut self, now: Instant) -> Loudness {
        let over = self
            .last
            .is_none_or(|last| now.duration_since(last) >= OUTAGE_OVER_AFTER);
        if over {
            *self = Outage::default();
        }
        let began = *self.began.get_or_insert(now);
        self.last = Some(now);
        let due = self
            .last_line
            .is_none_or(|line| now.duration_since(line) >= OUTAGE_LINE_EVERY);
        if !due {
            return Loudness::Debug;
        }
        self.last_line = Some(now);
        if now.duration_since(began) >= OUTAGE_LINE_EVERY {
            Loudness::Error
        } else {
            Loudness::Warn
        }
    }
}

/// Passes librdkafka's log lines and errors on, as loud as they deserve. Clones share it.
#[derive(Clone, Debug)]
pub struct ClientErrors(Arc<ErrorState>);

#[derive(Debug)]
struct ErrorState {
    outage: Mutex<Outage>,
    refused: Mutex<Option<Refused>>,
    /// The file of certificate authorities, if one is set.
    authorities: Option<String>,
    signer: Option<Signer>,
}

/// A refusal and what was done about it.
#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    began: Instant,
    last: Instant,
    last_line: Instant,
}

impl ClientErrors {
    /// Returns what listens to a client made with `config`, and logs it in where that takes tokens.
    pub fn new(config: &ClientConfig) -> ClientErrors {
        let authorities = config
            .get("ssl.ca.location")
            .filter(|location| *location != "probe");
        let region = config
            .get(IAM_PROPERTY)
            .and_then(|text| text.strip_prefix(IAM_PREFIX));
        ClientErrors(Arc::new(ErrorState {
            outage: Mutex::new(Outage::default()),
            refused: Mutex::new(None),
            authorities: authorities.map(str::to_owned),
            signer: region.map(|region| Signer::start(region.to_owned())),
        }))
    }

    /// For [`ClientContext::log`].
    pub fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        // A hang-up comes as a line only, everything else as an error too; told once either way.
        if matches!(facility, "FAIL" | "SSL")
            && let Some(refusal) = judge_refusal(text)
        {
            tracing::debug!(facility, text, "librdkafka");
            return self.refused(refusal);
        }
        match judge(level, facility, text) {
            Loudness::Error => tracing::error!(facility, text, "librdkafka"),
            Loudness::Warn => tracing::warn!(facility, text, "librdkafka"),
            Loudness::Debug => tracing::debug!(facility, text, "librdkafka"),
            Loudness::Outage => self.outage(text),
        }
    }

    /// For [`ClientContext::error`].
    pub fn error(&self, error: &KafkaError, reason: &str) {
        // Whoever asked for it hears it from the consumer itself.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        if let Some(refusal) = judge_refusal(reason) {
            return self.refused(refusal);
        }
        let code = error.rdkafka_error_code();
        let away = matches!(
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
        } else if (away || code == Some(RDKafkaErrorCode::Authentication))
            && self.refusal().is_some()
        {
            // "1/1 brokers are down" is what a refusal looks like from further away.
            tracing::debug!(reason, "failed to reach a kafka broker");
        } else if away {
            self.outage(reason);
        } else {
            tracing::warn!(%error, reason, "librdkafka");
        }
    }

    /// Returns why the brokers refuse this client, if that was heard of lately.
    pub fn refusal(&self) -> Option<Refusal> {
        let refused = self.refused_lock();
        let refused = refused.as_ref()?;
        (refused.last.elapsed() < OUTAGE_OVER_AFTER).then(|| refused.refusal.clone())
    }

    /// Forgets refusals: a broker has answered, so what was heard of another is not in the way.
    pub fn reached(&self) {
        *self.refused_lock() = None;
    }

    /// Returns why waiting any longer for the brokers is in vain, if it is. For who has not reached
    /// any yet.
    pub fn hopeless(&self) -> Option<Refusal> {
        let refused = self.refused_lock();
        let refused = refused.as_ref()?;
        let patience = if refused.refusal.is_certain() {
            GIVE_UP_AFTER
        } else {
            GIVE_UP_AFTER_UNCERTAIN
        };
        (refused.began.elapsed() >= patience).then(|| refused.refusal.clone())
    }

    /// For [`ClientContext::generate_oauth_token`].
    ///
    /// # Errors
    /// Why there is no token.
    pub fn oauth_token(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        match self.token() {
            None => Err("only --kafka-auth msk-iam knows where to get one".into()),
            Some(Err(error)) => Err(error.into()),
            Some(Ok(token)) => Ok(OAuthToken {
                token: token.text,
                principal_name: "citystream".to_owned(),
                lifetime_ms: token.end_ms,
            }),
        }
    }

    /// Returns a token of MSK IAM; `None` if the client does not log in that way.
    pub fn token(&self) -> Option<Result<Token, crate::kafka::iam::IamError>> {
        self.0.signer.as_ref().map(Signer::token)
    }

    fn refused_lock(&self) -> MutexGuard<'_, Option<Refused>> {
        self.0.refused.lock().expect("no panic holds the refusal")
    }

    fn refused(&self, refusal: Refusal) {
        let now = Instant::now();
        let mut slot = self.refused_lock();
        let known = slot.as_mut().filter(|known| {
            known.last.elapsed() < OUTAGE_OVER_AFTER && known.refusal.cause == refusal.cause
        });
        let began = match known {
            Some(known) => {
                known.last = now;
                if now.duration_since(known.last_line) >= OUTAGE_LINE_EVERY {
                    known.last_line = now;
                    tracing::error!(why = %known.refusal, "kafka refuses this client");
                }
                return;
            }
            None => slot.as_ref().map_or(now, |other| other.began),
        };
        *slot = Some(Refused {
            refusal: refusal.clone(),
            began,
            last: now,
            last_line: now,
        });
        drop(slot);
        if refusal.cause == Cause::Certificate {
            // Takes a moment, and this is librdkafka's time.
            let this = self.clone();
            let examining = move || {
                let detail = examine(&refusal.broker, this.0.authorities.as_deref());
                let refusal = Refusal {
                    detail: detail.unwrap_or_default(),
                    ..refusal
                };
                if let Some(known) = &mut *this.refused_lock() {
                    known.refusal.clone_from(&refusal);
                }
                tracing::error!(why = %refusal, "kafka refuses this client");
            };
            std::thread::spawn(examining);
        } else {
            tracing::error!(why = %refusal, "kafka refuses this client");
        }
    }

    fn outage(&self, reason: &str) {
        let loudness = self
            .0
            .outage
            .lock()
            .expect("no panic holds the outage")
            .note(Instant::now());
        match loudness {
            Loudness::Error => tracing::error!(reason, "kafka is away"),
            Loudness::Warn => tracing::warn!(reason, "failed to reach a kafka broker"),
            Loudness::Debug | Loudness::Outage => {
                tracing::debug!(reason, "failed to reach a kafka broker");
            }
        }
    }
}

/// The context of clients that need no callbacks of their own.
#[derive(Clone, Debug)]
pub struct Context {
    chatter: ClientErrors,
}

impl Context {
    /// Returns the context of a client made with `config`.
    pub fn new(config: &ClientConfig) -> Context {
        Context {
            chatter: ClientErrors::new(config),
        }
    }

    /// Returns what listens.
    pub fn chatter(&self) -> &ClientErrors {
        &self.chatter
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.chatter.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.chatter.error(&error, reason);
    }

    fn stats_raw(&self, _statistics: &[u8]) {}

    fn generate_oauth_token(
        &self,
        _config: Option<&str>,
    ) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.chatter.oauth_token()
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c14_idle_disconnects_are_quiet_and_outages_told_once_in_a_while() {
        let idle = "b1:9092/1: Disconnected (after 600123ms in state UP)";
        assert_eq!(judge(RDKafkaLogLevel::Error, "FAIL", idle), Loudness::Debug);
        let refused = "b1:9092/1: Connect to ipv4#… failed: Connection refused";
        assert_eq!(
            judge(RDKafkaLogLevel::Error, "FAIL", refused),
            Loudness::Outage
        );
        let mut outage = Outage::default();
        let begin = Instant::now();
        let mut told = Vec::new();
        for second in 0..70 {
            let loudness = outage.note(begin + Duration::from_secs(second));
            if loudness != Loudness::Debug {
                told.push((second, loudness));
            }
        }
        assert_eq!(
            told,
            [
                (0, Loudness::Warn),
                (30, Loudness::Error),
                (60, Loudness::Error)
            ]
        );
        let later = begin + Duration::from_secs(1_000);
        assert_eq!(outage.note(later), Loudness::Warn);
    }
}
