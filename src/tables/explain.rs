//! `init-tables --explain RATE`: calculates the cost of the tables, and checks whether the load on any partition key
//! would be too high.
//!
//! The report is calculated from the item sizes in `docs/TABLES.md`, so the command connects to neither DynamoDB nor
//! Kafka. Writing an item of up to 1 KiB costs one write unit, and one more unit for each index that contains the item.
//! A raw event or an alert costs two write units: one for the table, and one for the table's index. An update of a row
//! of counts costs one write unit, because the row's index entry changes only when the row is created. A row of counts
//! is written at most once per row interval, no matter how many events the row counts. At a high event rate, the rows
//! of counts cause only a very small part of the total cost. `scripts/bench` measures the capacity units that a load
//! really consumes.

use crate::core::keys::{
    CITY_INDEX, SERIES_INDEX, SEVERITY_INDEX, SHARDS_MAX, TOTALS_SHARDS, TableNames,
};
use crate::core::plan::RawRows;
use crate::core::rollup::windows_per_hour;
use crate::settings::{Mix, show_ms};

/// Price in dollars of a million on-demand write units in us-east-1, from AWS's price list of November 2024.
pub(super) const DOLLARS_PER_MILLION: f64 = 0.625;
/// Price in dollars of a million on-demand read units in us-east-1.
pub(super) const DOLLARS_PER_MILLION_READS: f64 = 0.125;
/// Price in dollars of a GB of storage per month in us-east-1.
const DOLLARS_PER_GB: f64 = 0.25;
/// Number of event types that the report assumes when it calculates the cost of rollups.
const EVENT_TYPES: f64 = 4.0;
/// Number of seconds in a month. A month is a twelfth of 365.25 days.
const MONTH_S: f64 = 2_629_800.0;
/// Storage for one raw event in the table and in the table's index together, in bytes. The item size was measured on
/// the events of January 2013. AWS bills 100 additional bytes for each item in a table and for each item in an index.
const RAW_BYTES: f64 = 2.0 * (320.0 + 100.0);
/// Storage for one alert in the table and in the table's index together, in bytes, measured in the same way as
/// [`RAW_BYTES`].
const ALERT_BYTES: f64 = 2.0 * (275.0 + 100.0);
/// Price in dollars of point-in-time recovery per GB and month in us-east-1.
const PITR_DOLLARS_PER_GB: f64 = 0.2;
/// Maximum write units per second that AWS allows for a table or an index, unless AWS raises the quota.
const TABLE_UNITS_QUOTA: f64 = 40_000.0;
/// Maximum write units per second that a new table or index accepts immediately.
const TABLE_UNITS_AT_FIRST: f64 = 4_000.0;
/// Maximum write units per second that DynamoDB accepts for one partition key.
pub const KEY_UNITS_MAX: f64 = 1_000.0;

/// The expected events and the table settings for which the report is calculated.
#[derive(Clone, Debug)]
pub struct CostQuestion {
    /// Number of events per second.
    pub rate: f64,
    /// Properties of the events that affect the cost, such as the share of alerts.
    pub mix: Mix,
    /// Number of index shards for each city and for each severity.
    pub shards: u32,
    /// The events that also get an item in the table of raw events: all, only alerts, or none.
    pub raw: RawRows,
    /// Length of a window in milliseconds.
    pub window_ms: i64,
    /// Time for which alerts are kept, in milliseconds, or `None` if alerts are kept forever.
    pub alert_ttl_ms: Option<i64>,
}

/// The write load of a table or of an index.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The name of the table or of the index.
    pub name: String,
    /// The write units per second that the table or the index needs.
    pub units: f64,
    /// Write units per second for the partition key with the highest load.
    pub busiest: f64,
    /// A description of the table's partition key, such as `city and shard`.
    pub key: &'static str,
}

/// Returns the load of each table and each index. In the list, each index comes directly after its table.
#[allow(clippy::cast_precision_loss)] // the values are far below 2^53
pub fn loads(question: &CostQuestion, names: &TableNames) -> Vec<Load> {
    let CostQuestion { rate, mix, .. } = question;
    let shards = f64::from(question.shards);
    let raw = match question.raw {
        RawRows::All => *rate,
        RawRows::Alerts => rate * mix.alerts,
        RawRows::None => 0.0,
    };
    let alerts = match question.raw {
        RawRows::All | RawRows::Alerts => rate * mix.alerts,
        RawRows::None => 0.0,
    };
    // All events of a series are in one Kafka partition. Each event is counted in a window row and in a totals row of
    // its series.
    let per_series = (rate / mix.series).min(1_000.0 / mix.row_interval_ms.max(1) as f64);
    let rows = per_series * mix.series;
    let rollups = rollup_units(*rate, mix.series, question.window_ms);
    let new_rows = rate.min(mix.series * 1_000.0 / question.window_ms as f64);
    let load = |name: &str, units: f64, busiest: f64, key| Load {
        name: name.to_owned(),
        units,
        busiest,
        key,
    };
    vec![
        load(&names.raw, raw, raw.min(1.0), "event"),
        load(
            CITY_INDEX,
            raw,
            raw * mix.hottest / shards,
            "city and shard",
        ),
        load(&names.aggregations, rows, per_series, "window"),
        load(SERIES_INDEX, new_rows, new_rows / mix.series, "series"),
        load(&names.alerts, alerts, alerts * mix.hottest, "city"),
        // Events of the two highest severities become alerts. In the worst case, all alerts have the same severity, and
        // only the partition keys of this severity get writes.
        load(
            SEVERITY_INDEX,
            alerts,
            alerts / shards,
            "severity and shard",
        ),
        load(
            &names.totals,
            rows + rollups,
            per_series * (mix.series / f64::from(TOTALS_SHARDS)).ceil(),
            "shard of totals",
        ),
    ]
}

/// Returns the write units per second that rollups need. For each hour, consumers update the mark, an item that says
/// which hours are rolled up. For each hour and for each day, consumers write one row for each series that has events.
/// For each hour and for each day, consumers also write one row for each event type that has events.
fn rollup_units(rate: f64, series: f64, window_ms: i64) -> f64 {
    if windows_per_hour(window_ms).is_none() {
        return 0.0;
    }
    let rows = |seconds: f64| (rate * seconds).min(series) + (rate * seconds).min(EVENT_TYPES);
    (rows(3_600.0) + 1.0) / 3_600.0 + rows(86_400.0) / 86_400.0
}

/// Returns the report as text.
pub fn cost_report(question: &CostQuestion, names: &TableNames) -> String {
    let loads = loads(question, names);
    let dollars = |units: f64| units * MONTH_S / 1e6 * DOLLARS_PER_MILLION;
    let mix = &question.mix;
    let mut out = format!(
        "{} events/s: {:.0} % of them high or critical, {} series of city and type, {:.0} % in the\n\
         busiest city, a row written every {} at most, {} shards, raw rows: {}\n\n",
        number(question.rate),
        mix.alerts * 100.0,
        number(mix.series),
        mix.hottest * 100.0,
        show_ms(mix.row_interval_ms),
        question.shards,
        question.raw.name()
    );
    let width = loads.iter().map(|l| l.name.len() + 2).max().unwrap_or(0);
    let mut line = |name: &str, cells: [String; 4], key: &str| {
        let [units, share, price, busiest] = cells;
        let text = format!("{name:width$} {units:>12} {share:>9} {price:>10} {busiest:>12}  {key}");
        out.push_str(text.trim_end());
        out.push('\n');
    };
    let head = ["write units/s", "per event", "$ a month", "busiest key"].map(str::to_owned);
    line("", head, "");
    for load in &loads {
        let is_index = [CITY_INDEX, SERIES_INDEX, SEVERITY_INDEX].contains(&load.name.as_str());
        let name = format!("{}{}", if is_index { "  " } else { "" }, load.name);
        let cells = [
            number(load.units),
            format!("{:.3}", load.units / question.rate),
            number(dollars(load.units)),
            number(load.busiest),
        ];
        line(&name, cells, load.key);
    }
    let units: f64 = loads.iter().map(|l| l.units).sum();
    let cells = [
        number(units),
        format!("{:.3}", units / question.rate),
        number(dollars(units)),
        String::new(),
    ];
    line("all", cells, "");
    #[allow(clippy::cast_precision_loss)] // the values are far below 2^53
    let kept = loads[0].units * mix.raw_ttl_ms as f64 / 1e3 * RAW_BYTES / 1e9;
    out.push_str(&format!(
        "\nRaw events, kept for {}, take {} GB, ${} a month. Prices: on demand in us-east-1, ${DOLLARS_PER_MILLION} a\n\
         million write units, ${DOLLARS_PER_GB} a GB; reads and the growth of counts are not in them.\n",
        days(mix.raw_ttl_ms),
        number(kept),
        number(kept * DOLLARS_PER_GB),
    ));
    out.push_str(&alerts_kept(&loads[4], question));
    let each = match question.alert_ttl_ms {
        None => "more each month",
        Some(_) => "a month",
    };
    out.push_str(&format!(
        "With --pitr, ${PITR_DOLLARS_PER_GB} a GB more: ${} a month for the raw events, ${} {each} for the alerts.\n\
         A row of counts with fences of more than some nine partitions is over 1 KB: its updates cost 2 units.\n",
        number(kept * PITR_DOLLARS_PER_GB),
        number(alert_gb(&loads[4], question) * PITR_DOLLARS_PER_GB),
    ));
    out.push_str(&limits(&loads));
    for load in loads.iter().filter(|l| l.busiest > KEY_UNITS_MAX) {
        out.push('\n');
        out.push_str(&advice(load, question));
    }
    out
}

/// Returns a duration as text. The text uses days as the unit if the duration is a whole number of days.
fn days(ms: i64) -> String {
    match ms % 86_400_000 {
        0 => format!("{} days", ms / 86_400_000),
        _ => show_ms(ms),
    }
}

/// Returns the size of all alerts that are kept, in GB. If alerts never expire, returns the size of the alerts that are
/// written in one month.
#[allow(clippy::cast_precision_loss)] // the values are far below 2^53
fn alert_gb(alerts: &Load, question: &CostQuestion) -> f64 {
    let seconds = question.alert_ttl_ms.map_or(MONTH_S, |ms| ms as f64 / 1e3);
    alerts.units * ALERT_BYTES * seconds / 1e9
}

/// Returns the sentence of the report about the storage for alerts. Without `--alert-ttl`, alerts never expire.
fn alerts_kept(alerts: &Load, question: &CostQuestion) -> String {
    let kept = alert_gb(alerts, question);
    let (gb, dollars) = (number(kept), number(kept * DOLLARS_PER_GB));
    match question.alert_ttl_ms {
        None => format!(
            "Alerts are kept for ever: {gb} GB more each month, so ${dollars} more each month; --alert-ttl ends that.\n"
        ),
        Some(ttl_ms) => {
            let days = days(ttl_ms);
            format!("Alerts, kept for {days}, take {gb} GB, ${dollars} a month.\n")
        }
    }
}

/// Returns advice if a table or an index needs more write units than AWS accepts immediately, or more than the quota
/// allows.
fn limits(loads: &[Load]) -> String {
    let busiest = loads.iter().map(|load| load.units).fold(0.0, f64::max);
    let mut out = String::new();
    if busiest > TABLE_UNITS_AT_FIRST {
        out.push_str(&format!(
            "\nA new table or index accepts {} write units/s at first, and more only later: use --warm-writes {}\n",
            number(TABLE_UNITS_AT_FIRST),
            busiest.ceil()
        ));
    }
    for load in loads.iter().filter(|load| load.units > TABLE_UNITS_QUOTA) {
        out.push_str(&format!(
            "\n{}: {} write units/s are more than the {} that AWS allows a table or index; request more in Service Quotas\n",
            load.name,
            number(load.units),
            number(TABLE_UNITS_QUOTA)
        ));
    }
    out
}

/// Returns advice about a partition key whose load would be too high.
fn advice(load: &Load, question: &CostQuestion) -> String {
    let times = load.busiest / KEY_UNITS_MAX;
    let what = format!(
        "{}: {} write units/s on one {} are more than the {} that DynamoDB accepts for a key;",
        load.name,
        number(load.busiest),
        load.key,
        number(KEY_UNITS_MAX)
    );
    let cure = match load.name.as_str() {
        CITY_INDEX | SEVERITY_INDEX => {
            let shards = (f64::from(question.shards) * times).ceil();
            if shards > f64::from(SHARDS_MAX) {
                format!(
                    "the maximum of {SHARDS_MAX} shards is too low: use --raw alerts or --raw none"
                )
            } else {
                format!("use --shards {shards}")
            }
        }
        name if name.ends_with("-alerts") => "consumers wait for throttled writes: \
            send fewer events of high severity, or use --raw none"
            .to_owned(),
        _ => "use a longer --row-interval of consume".to_owned(),
    };
    format!("{what} {cure}\n")
}

/// Returns a number as text with thousands separators. Numbers below 10 have up to two decimals.
fn number(value: f64) -> String {
    if value < 10.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the value is not negative
    let whole = value.round() as u64;
    indicatif::HumanCount(whole).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(rate: f64) -> CostQuestion {
        CostQuestion {
            rate,
            mix: Mix::default(),
            shards: 4,
            raw: RawRows::All,
            window_ms: 300_000,
            alert_ttl_ms: None,
        }
    }

    #[test]
    fn the_report_names_quotas_and_the_cost_of_alerts() {
        let names = TableNames::new("citystream");
        let report_at = |rate: f64, alert_ttl_ms| {
            let mut question = question(rate);
            question.alert_ttl_ms = alert_ttl_ms;
            cost_report(&question, &names)
        };
        let few = report_at(1_000.0, None);
        assert!(
            few.contains("Alerts are kept for ever: 986 GB more each month, so $247 more"),
            "{few}"
        );
        assert!(
            !few.contains("--warm-writes") && !few.contains("Service Quotas"),
            "{few}"
        );
        let expiring = report_at(1_000.0, Some(90 * 86_400_000));
        assert!(
            expiring.contains("Alerts, kept for 90 days, take 2,916 GB, $729 a month"),
            "{expiring}"
        );
        let more = report_at(5_000.0, None);
        assert!(more.contains("use --warm-writes 5000"), "{more}");
        assert!(!more.contains("Service Quotas"), "{more}");
        let most = report_at(50_000.0, None);
        assert!(
            most.contains("citystream-raw-events: 50,000 write units/s are more than the 40,000"),
            "{most}"
        );
        assert!(
            !most.contains("citystream-alerts: 25,000 write units/s are more than the 40,000"),
            "{most}"
        );
    }

    fn per_event(question: &CostQuestion) -> f64 {
        let loads = loads(question, &TableNames::new("citystream"));
        loads.iter().map(|l| l.units).sum::<f64>() / question.rate
    }

    #[test]
    fn units_per_event_match_the_measured_ones() {
        // `scripts/bench` measured 5.3 write units per event at a low event rate. At a high event rate, `scripts/bench`
        // measured 3.2 units, or 3.0 units with a longer row interval.
        let slow = per_event(&question(0.2));
        assert!((5.0..5.5).contains(&slow), "{slow}");
        let fast = per_event(&question(1_000.0));
        assert!((3.15..3.25).contains(&fast), "{fast}");
        let mut rare = question(1_000.0);
        rare.mix.row_interval_ms = 5_000;
        assert!((3.0..3.05).contains(&per_event(&rare)));
        rare.raw = RawRows::None;
        assert!(per_event(&rare) < 0.05);
        rare.raw = RawRows::Alerts;
        assert!((2.0..2.05).contains(&per_event(&rare)));
    }

    #[test]
    fn rollups_cost_less_than_a_tenth_of_a_unit_for_each_event() {
        for (rate, series, least, most) in [
            (0.2, 24.0, 0.041, 0.043),
            (1_000.0, 24.0, 0.0, 0.000_01),
            (1_000.0, 10_000.0, 0.002, 0.003),
        ] {
            let each = rollup_units(rate, series, 300_000) / rate;
            assert!((least..most).contains(&each), "{rate}: {each}");
        }
        assert!(rollup_units(0.2, 24.0, 420_000).abs() < f64::EPSILON);
    }

    #[test]
    fn two_thousand_events_a_second_mostly_in_one_city_stay_below_the_limit_of_a_key() {
        let mut hot = question(2_000.0);
        hot.mix.hottest = 0.9;
        let names = TableNames::new("citystream");
        for load in loads(&hot, &names) {
            assert!(load.busiest <= KEY_UNITS_MAX, "{load:?}");
        }
        hot.rate = 10_000.0;
        let text = cost_report(&hot, &names);
        assert!(text.contains("use --shards 9"), "{text}");
        hot.rate = 100_000.0;
        assert!(cost_report(&hot, &names).contains("the maximum of 64 shards is too low"));
        assert!(
            text.contains("citystream-alerts: 4,500 write units/s on one city"),
            "{text}"
        );
    }

    #[test]
    fn the_guide_has_the_costs_of_the_report() {
        let guide = include_str!("../../docs/EC2.md");
        let names = TableNames::new("citystream");
        for (events, rate, row_interval_ms) in [
            ("1 in 5 s", 0.2, 250),
            ("100/s, row interval 250ms", 100.0, 250),
            ("100/s, row interval 5s", 100.0, 5_000),
            ("1,000/s, row interval 250ms", 1_000.0, 250),
            ("1,000/s, row interval 5s", 1_000.0, 5_000),
        ] {
            let report_at = |raw| {
                let mut question = question(rate);
                (question.raw, question.mix.row_interval_ms) = (raw, row_interval_ms);
                let text = cost_report(&question, &names);
                let all = text.lines().find(|line| line.starts_with("all "));
                let cells: Vec<String> = all
                    .expect(&text)
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect();
                (cells[1].clone(), cells[3].clone())
            };
            let (units, all) = report_at(RawRows::All);
            let (alerts, none) = (report_at(RawRows::Alerts).1, report_at(RawRows::None).1);
            let row = format!("| {events} | {units} | {all} | {alerts} | {none} |");
            assert!(guide.contains(&row), "{row}");
        }
        let text = cost_report(&question(1.0), &names);
        let kept = text.lines().find(|line| line.starts_with("Raw events"));
        let words: Vec<&str> = kept.expect(&text).split_whitespace().collect();
        let (gb, dollars) = (words[7], words[9].trim_start_matches('$'));
        let kept = format!("{gb} GB ({dollars} dollars) for each event a second");
        assert!(guide.contains(&kept), "{kept}");
    }

    #[test]
    fn the_report_matches_the_sample() {
        let text = cost_report(&question(1_000.0), &TableNames::new("citystream"));
        let want = include_str!("explain.txt");
        assert_eq!(text, want, "\n{text}");
    }
}
