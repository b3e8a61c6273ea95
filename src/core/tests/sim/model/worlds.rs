//! Defines the small worlds whose states the model visits.

use citystream_core::plan::RawRows;

use crate::reference::{Logged, Said};

/// Maximum number of faults of each kind in a small world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) crashes: u8,
    pub(super) takeovers: u8,
    pub(super) lost_requests: u8,
    pub(super) lost_replies: u8,
    pub(super) delayed: u8,
    pub(super) repeated: u8,
    pub(super) lost_groups: u8,
}

/// The initial setup of a small world, and its limits on faults.
#[derive(Clone, Copy, Debug)]
pub(super) struct Small {
    pub(super) name: &'static str,
    pub(super) log: fn() -> Vec<Logged>,
    pub(super) keep: RawRows,
    pub(super) budget: Budget,
}

const NONE: Budget = Budget {
    crashes: 0,
    takeovers: 0,
    lost_requests: 0,
    lost_replies: 0,
    delayed: 0,
    repeated: 0,
    lost_groups: 0,
};

const BASE_MS: i64 = 1_357_000_200_000;

fn event(minute: i64) -> Logged {
    ahead(minute, minute)
}

fn ahead(minute: i64, record_minute: i64) -> Logged {
    Logged {
        said: Said::Event("NYC", "traffic", 3, BASE_MS + minute * 60_000, None),
        timestamp_ms: Some(BASE_MS + record_minute * 60_000),
    }
}

fn bad() -> Logged {
    Logged {
        said: Said::Bad,
        timestamp_ms: Some(BASE_MS),
    }
}

/// Returns a log of four records. The third record is late, because the second one moves the watermark far ahead.
fn late_log() -> Vec<Logged> {
    vec![event(0), event(30), event(1), event(31)]
}

/// Returns a log with an invalid record and a future event between two ordinary events of the same window.
fn bad_log() -> Vec<Logged> {
    vec![event(0), bad(), ahead(90, 0), event(2)]
}

/// Returns a log of two events that raise alerts, so that the consumers also store items.
fn item_log() -> Vec<Logged> {
    vec![event(0), event(30)]
}

/// The small worlds whose states every run of `cargo test` visits.
pub(super) const QUICK: [Small; 4] = [
    Small {
        name: "late records; a takeover, a crash",
        log: late_log,
        keep: RawRows::None,
        budget: Budget {
            crashes: 1,
            takeovers: 1,
            ..NONE
        },
    },
    Small {
        name: "late records; a delayed write, a lost group",
        log: late_log,
        keep: RawRows::None,
        budget: Budget {
            delayed: 1,
            lost_groups: 1,
            ..NONE
        },
    },
    Small {
        name: "a bad and a future record; a repeated request, a lost reply",
        log: bad_log,
        keep: RawRows::None,
        budget: Budget {
            lost_replies: 1,
            repeated: 1,
            ..NONE
        },
    },
    Small {
        name: "items; a crash",
        log: item_log,
        keep: RawRows::All,
        budget: Budget { crashes: 1, ..NONE },
    },
];

/// Small worlds with more faults. The test visits their states only with `MODEL=whole`.
pub(super) const WHOLE: [Small; 5] = [
    Small {
        name: "late records; a crash, a delayed write, a lost group",
        log: late_log,
        keep: RawRows::None,
        budget: Budget {
            crashes: 1,
            delayed: 1,
            lost_groups: 1,
            ..NONE
        },
    },
    Small {
        name: "late records; a takeover, a crash, a lost reply",
        log: late_log,
        keep: RawRows::None,
        budget: Budget {
            crashes: 1,
            takeovers: 1,
            lost_replies: 1,
            ..NONE
        },
    },
    Small {
        name: "a bad and a future record; a takeover, a repeated and a lost request",
        log: bad_log,
        keep: RawRows::None,
        budget: Budget {
            takeovers: 1,
            lost_requests: 1,
            repeated: 1,
            ..NONE
        },
    },
    Small {
        name: "a bad and a future record; two takeovers",
        log: bad_log,
        keep: RawRows::None,
        budget: Budget {
            takeovers: 2,
            ..NONE
        },
    },
    Small {
        name: "items; a crash, a lost reply",
        log: item_log,
        keep: RawRows::All,
        budget: Budget {
            crashes: 1,
            lost_replies: 1,
            ..NONE
        },
    },
];
