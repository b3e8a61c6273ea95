//! The table settings that the command line requests, and their conflicts with the config item.

use crate::core::RULES;
use crate::core::plan::RawRows;
use crate::core::window::Rules;
use crate::settings::{InitTables, show_ms};
use crate::store::config::{self, ConfigItem};
use crate::store::protect::Protection;

/// Number of index shards for each city and for each severity if `--shards` is not given.
const SHARDS_DEFAULT: u32 = 4;

/// The table settings that the user requests. If a setting is `None`, existing tables keep the value from their config
/// item. If a setting is `None`, new tables get the default value.
#[derive(Clone, Debug, Default)]
pub struct WantedTables {
    /// Length of a window in milliseconds.
    pub window_ms: Option<i64>,
    /// Allowed lateness in milliseconds. The watermark is the largest event time minus the allowed lateness.
    pub lateness_ms: Option<i64>,
    /// Maximum time by which an event time may be ahead of its record's timestamp, in milliseconds.
    pub skew_ms: Option<i64>,
    /// Number of index shards for each city and for each severity.
    pub shards: Option<u32>,
    /// The events that also get an item in the table of raw events: all, only alerts, or none.
    pub raw: Option<RawRows>,
    /// The topic whose events the tables count.
    pub topic: Option<String>,
    /// True if alerts expire, so that the table of alerts needs TTL.
    pub alerts_expire: bool,
    /// True if the incident table should exist, too.
    pub incidents: bool,
    /// The protection measures that every table should have, such as deletion protection.
    pub protection: Protection,
}

impl WantedTables {
    /// Returns the table settings that the command line requests.
    pub fn from_args(args: &InitTables) -> WantedTables {
        WantedTables {
            window_ms: args.window,
            lateness_ms: args.lateness,
            skew_ms: args.max_skew,
            shards: args.shards,
            raw: args.raw,
            topic: Some(args.kafka.topic.clone()),
            alerts_expire: args.alert_ttl.is_some(),
            incidents: args.incidents,
            protection: Protection {
                deletion: args.deletion_protection,
                pitr: args.pitr,
                kms_key: args.kms_key.clone(),
                tags: args.tags.clone(),
                warm_writes: args.warm_writes,
            },
        }
    }

    /// Returns the config item for new tables.
    pub(crate) fn config(&self) -> ConfigItem {
        let rules = Rules::default();
        ConfigItem {
            rules: Rules {
                window_ms: self.window_ms.unwrap_or(rules.window_ms),
                lateness_ms: self.lateness_ms.unwrap_or(rules.lateness_ms),
                skew_ms: self.skew_ms.unwrap_or(rules.skew_ms),
            },
            shards: self.shards.unwrap_or(SHARDS_DEFAULT),
            rules_number: RULES,
            raw: self.raw.unwrap_or_default(),
            tables_id: config::new_tables_id(),
            topic: None,
            topic_id: None,
        }
    }

    /// Returns the conflicts between the requested settings and `config`, one sentence per conflict.
    pub(super) fn conflicts(&self, config: &ConfigItem) -> Vec<String> {
        let mut out = Vec::new();
        let rules = &config.rules;
        for (option, wanted, frozen) in [
            ("--window", self.window_ms, rules.window_ms),
            ("--lateness", self.lateness_ms, rules.lateness_ms),
            ("--max-skew", self.skew_ms, rules.skew_ms),
        ] {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != frozen) {
                out.push(format!(
                    "{option} {} differs from {}, which is frozen",
                    show_ms(wanted),
                    show_ms(frozen)
                ));
            }
        }
        if let Some(raw) = self.raw.filter(|raw| *raw != config.raw) {
            out.push(format!(
                "--raw {} differs from {}, which is frozen",
                raw.name(),
                config.raw.name()
            ));
        }
        if let Some(shards) = self.shards.filter(|shards| *shards < config.shards) {
            out.push(format!(
                "--shards {shards} is less than {}, and shards can only grow",
                config.shards
            ));
        }
        if config.rules_number != RULES {
            out.push(format!(
                "the tables were created with version {} of the rules, but this program has version {RULES}",
                config.rules_number
            ));
        }
        if let (Some(topic), Some(owner)) = (&self.topic, &config.topic)
            && topic != owner
        {
            out.push(format!(
                "--topic {topic} differs from {owner}, which these tables count"
            ));
        }
        out
    }
}
