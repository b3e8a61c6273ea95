//! Tests which incidents each rule finds, and that crashes and competing processes change no incident.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::audit::{Base, IncidentAudit, IncidentAuditOutcome};
use super::fold::{Change, Checkpoint, Fold, IncidentSource, What};
use super::owner::{Owner, name_of};
use super::rule::{Condition, Filter, OPEN_MAX, Rule};
use super::{Incident, IncidentPhase};
use crate::clock::UnixMs;
use crate::event::{Event, Offset, Severity};
use crate::parse::Body;
use crate::window::Rules;

mod fields;
mod messages;
mod rows;
mod rules;

const MINUTE_MS: i64 = 60_000;
const BASE_MS: i64 = 1_357_020_000_000;

/// A record of the log: its timestamp in milliseconds after [`BASE_MS`], and its content.
type Logged = (i64, Option<Body>);

fn source() -> IncidentSource {
    IncidentSource {
        topic: "city-events".into(),
        topic_id: "T".into(),
        partition: 3,
        times: Rules::default(),
    }
}

fn rule(name: &str, condition: Condition) -> Rule {
    Rule {
        name: name.into(),
        filter: Filter::default(),
        by_city: true,
        by_event_type: false,
        condition,
        open_max: OPEN_MAX,
    }
}

fn critical() -> Rule {
    Rule {
        filter: Filter {
            severities: Some(vec![Severity::Critical]),
            ..Filter::default()
        },
        ..rule(
            "critical",
            Condition::Event {
                quiet_ms: 15 * MINUTE_MS,
            },
        )
    }
}

fn surge(count: u64) -> Rule {
    let condition = Condition::Count {
        count,
        window_ms: 5 * MINUTE_MS,
        quiet_ms: 5 * MINUTE_MS,
    };
    rule("surge", condition)
}

fn silent() -> Rule {
    let silence_ms = 30 * MINUTE_MS;
    rule("silent", Condition::Silence { silence_ms })
}

/// Returns a record with an event. The event time and the record's timestamp are `minute` minutes after [`BASE_MS`].
fn event(city: &str, severity: Severity, minute: i64) -> Logged {
    let event = Event {
        city: city.into(),
        event_type: "traffic".into(),
        severity,
        time_ms: UnixMs(BASE_MS + minute * MINUTE_MS),
        description: "".into(),
        event_id: None,
        extra: None,
    };
    (minute * MINUTE_MS, Some(Body::Event(event)))
}

fn take(fold: &mut Fold, offset: usize, (record_ms, body): &Logged, changes: &mut Vec<Change>) {
    let offset = Offset(i64::try_from(offset).unwrap());
    let record_ms = Some(UnixMs(BASE_MS + record_ms));
    fold.take(offset, record_ms, body.as_ref(), changes);
}

fn fold_all(rules: &[Rule], log: &[Logged]) -> (Fold, Vec<Change>) {
    let mut fold = Fold::new(source(), rules, &Checkpoint::begin(Offset(0)), &[]);
    let mut changes = Vec::new();
    for (offset, record) in log.iter().enumerate() {
        take(&mut fold, offset, record, &mut changes);
    }
    (fold, changes)
}

/// Returns the kind of each change, the offset in the incident's id, the city, and the number of events.
fn said(changes: &[Change]) -> Vec<(What, i64, String, u64)> {
    let told = changes.iter().map(|change| {
        let incident = &change.incident;
        let (_, offset) = incident.id.rsplit_once('#').unwrap();
        let city = incident.group.city.as_ref().unwrap().to_string();
        let offset = offset.parse().unwrap();
        (change.what, offset, city, incident.event_count)
    });
    told.collect()
}

#[test]
fn an_event_rule_has_one_incident_while_events_keep_coming() {
    use Severity::{Critical, Low};
    let log = [
        event("NYC", Critical, 0),
        event("NYC", Low, 1),
        event("LA", Critical, 2),
        event("NYC", Critical, 14),
        // The last event in NYC is at minute 14, so its incident ends when the watermark is at minute 29. The watermark
        // is 10 minutes older than the newest event, so this is at minute 39.
        event("SF", Low, 38),
        event("SF", Low, 39),
        event("NYC", Critical, 40),
    ];
    let (fold, changes) = fold_all(&[critical()], &log);
    let city = |name: &str| name.to_owned();
    assert_eq!(
        said(&changes),
        [
            (What::Opened, 0, city("NYC"), 1),
            (What::Opened, 2, city("LA"), 1),
            (What::Updated, 0, city("NYC"), 2),
            (What::Resolved, 2, city("LA"), 1),
            (What::Resolved, 0, city("NYC"), 2),
            (What::Opened, 6, city("NYC"), 1),
        ]
    );
    let first = &changes[4].incident;
    let names = [changes[2].incident.state.name(), first.state.name()];
    assert_eq!(names, ["open", "resolved"]);
    assert_eq!(
        first.state,
        IncidentPhase::Resolved {
            at_ms: UnixMs(BASE_MS + 39 * MINUTE_MS)
        }
    );
    assert_eq!(first.samples.len(), 2);
    assert_eq!(first.severity, Some(Critical));
    assert_eq!(fold.open().count(), 1);
}

#[test]
fn a_late_event_opens_an_incident_that_lasts() {
    use Severity::{Critical, Low};
    let log = [
        event("SF", Low, 100),
        (100 * MINUTE_MS, event("NYC", Critical, 0).1),
        event("SF", Low, 114),
        event("SF", Low, 115),
    ];
    let (_, changes) = fold_all(&[critical()], &log);
    let kinds: Vec<_> = said(&changes).into_iter().map(|c| (c.0, c.1)).collect();
    // The late event arrives when the watermark is at minute 90. The incident of the late event ends after 15 quiet
    // minutes, when the watermark reaches minute 105.
    assert_eq!(kinds, [(What::Opened, 1), (What::Resolved, 1)]);
    assert_eq!(changes[1].incident.next, Offset(4));
}

#[test]
fn a_count_rule_opens_at_the_record_that_reaches_the_count() {
    use Severity::Low;
    let log = [
        event("NYC", Low, 0),
        event("NYC", Low, 1),
        event("LA", Low, 1),
        // These three events are in a new window, whose count starts at zero.
        event("NYC", Low, 5),
        event("NYC", Low, 4),
        event("NYC", Low, 3),
        event("NYC", Low, 6),
        event("NYC", Low, 7),
    ];
    let (fold, changes) = fold_all(&[surge(3)], &log);
    let city = || "NYC".to_owned();
    assert_eq!(
        said(&changes),
        [
            (What::Opened, 4, city(), 3),
            (What::Updated, 4, city(), 4),
            (What::Updated, 4, city(), 7),
        ]
    );
    let incident = &changes[2].incident;
    assert_eq!(incident.first_event_ms, UnixMs(BASE_MS));
    assert_eq!(incident.last_event_ms, UnixMs(BASE_MS + 7 * MINUTE_MS));
    assert_eq!(
        fold.checkpoint().start.next,
        Offset(0),
        "the windows are still open"
    );
}

#[test]
fn a_silence_opens_by_the_watermark_and_ends_with_the_next_event() {
    use Severity::Low;
    let log = [
        event("NYC", Low, 0),
        event("LA", Low, 20),
        event("LA", Low, 39),
        event("LA", Low, 40),
        // An event that is older than the silence does not end the silence.
        (41 * MINUTE_MS, event("NYC", Low, 0).1),
        event("NYC", Low, 41),
    ];
    let (fold, changes) = fold_all(&[silent()], &log);
    assert_eq!(
        said(&changes),
        [
            (What::Opened, 0, "NYC".to_owned(), 0),
            (What::Resolved, 0, "NYC".to_owned(), 0),
        ]
    );
    assert_eq!(changes[0].incident.next, Offset(4));
    assert_eq!(changes[1].incident.next, Offset(6));
    assert_eq!(fold.checkpoint().start.next, Offset(3));
}

#[test]
fn a_future_event_moves_no_watermark_and_its_incident_ends() {
    use Severity::{Critical, Low};
    let mut ahead = event("NYC", Critical, 10_000);
    ahead.0 = 0;
    let log = [
        event("SF", Low, 0),
        ahead,
        event("SF", Low, 4),
        event("SF", Low, 15),
    ];
    let (fold, changes) = fold_all(&[critical(), surge(1), silent()], &log);
    assert_eq!(fold.max().max_ms(), Some(UnixMs(BASE_MS + 15 * MINUTE_MS)));
    let of_nyc: Vec<_> = changes
        .iter()
        .filter(|c| c.incident.group.city.as_deref() == Some("NYC"))
        .map(|c| (c.rule, c.what))
        .collect();
    assert_eq!(of_nyc, [(0, What::Opened), (0, What::Resolved)]);
}

#[test]
fn no_rule_has_more_open_incidents_than_it_may() {
    let rules = [Rule {
        open_max: 2,
        ..critical()
    }];
    let log: Vec<Logged> = (0..5)
        .map(|n| event(&format!("C{n}"), Severity::Critical, 0))
        .collect();
    let (fold, changes) = fold_all(&rules, &log);
    assert_eq!(changes.len(), 2);
    assert_eq!(fold.left_out().incidents, 3);
}

/// Simulated tables with the rows of incidents and the newest checkpoint.
#[derive(Clone, Default)]
struct Tables {
    rows: BTreeMap<(Arc<str>, Arc<str>), Incident>,
    progress: Option<Checkpoint>,
    /// The bases of all published checkpoints. A second fold can begin at each base.
    bases: Vec<Base>,
}

impl Tables {
    /// Writes a row, unless the stored row is already newer.
    fn write(&mut self, incident: &Incident) {
        let row = self
            .rows
            .entry(name_of(incident))
            .or_insert(incident.clone());
        if row.next < incident.next {
            *row = incident.clone();
        }
    }

    /// Writes the progress item, unless the stored item is already further ahead.
    fn publish(&mut self, new: Checkpoint) {
        let old = self.progress.as_ref();
        if old.is_none_or(|old| old.next <= new.next) {
            self.bases.push(Base::of(&new));
            self.progress = Some(new);
        }
    }

    /// Returns a fold that continues at the checkpoint that is stored in the tables.
    fn fold(&self, rules: &[Rule]) -> Fold {
        let at = self.progress.clone();
        let at = at.unwrap_or(Checkpoint::begin(Offset(0)));
        let rows = at.open.iter().map(|key| self.rows[key].clone());
        let rows: Vec<Incident> = rows.collect();
        Fold::new(source(), rules, &at, &rows)
    }
}

/// A process that owns the partition, or that still runs although another process has replaced it.
struct Process {
    owner: Owner,
    /// The incidents whose rows the process has written without receiving the answer yet.
    under_way: Vec<Arc<Incident>>,
    checkpoint: Option<Checkpoint>,
}

impl Process {
    fn new(tables: &Tables, rules: &[Rule]) -> Process {
        Process {
            owner: Owner::new(tables.fold(rules)),
            under_way: Vec::new(),
            checkpoint: None,
        }
    }

    /// Delivers the pending answers to the owner, or drops them if `is_lost` is true.
    fn answer(&mut self, is_lost: bool) {
        for incident in std::mem::take(&mut self.under_way) {
            if is_lost {
                self.owner.failed(&name_of(&incident));
            } else {
                self.owner.written(&name_of(&incident));
            }
        }
    }

    /// Publishes the pending checkpoint if the rows contain all changes before it, or creates a checkpoint.
    fn publish(&mut self, tables: &mut Tables) {
        match self.checkpoint.take() {
            None => self.checkpoint = Some(self.owner.fold().checkpoint()),
            Some(checkpoint) if self.owner.is_complete(&checkpoint) => tables.publish(checkpoint),
            waiting => self.checkpoint = waiting,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Read(u8),
    /// The process writes at most the given number of rows.
    Write(u8),
    /// The answers to the writes are lost if the flag is true, and arrive if the flag is false.
    Answer(bool),
    Publish,
    /// The process crashes, and a new process takes over the partition.
    Restart,
}

fn acts() -> impl Strategy<Value = Vec<(bool, Act)>> {
    let act = prop_oneof![
        6 => (1..20u8).prop_map(Act::Read),
        4 => (1..8u8).prop_map(Act::Write),
        3 => any::<bool>().prop_map(Act::Answer),
        3 => Just(Act::Publish),
        2 => Just(Act::Restart),
    ];
    proptest::collection::vec((any::<bool>(), act), 1..120)
}

fn logs() -> impl Strategy<Value = Vec<Logged>> {
    let step = (0..6i64, -12..3i64, 0..4usize, 0..4usize, 0..20u8);
    proptest::collection::vec(step, 1..250).prop_map(|steps| {
        let mut now = 0;
        let log = steps.into_iter().map(|(step, shift, city, severity, odd)| {
            now += step;
            let mut logged = event(
                ["NYC", "LA", "SF", "Rare"][city],
                Severity::ALL[severity],
                now + shift,
            );
            logged.0 = now * MINUTE_MS;
            match odd {
                0 => logged.1 = None,
                1 => logged.1 = Some(Body::Heartbeat(UnixMs(BASE_MS + now * MINUTE_MS))),
                2 => logged = (logged.0, event("NYC", Severity::Critical, now + 500).1),
                3 => now += 45,
                _ => {}
            }
            logged
        });
        log.collect()
    })
}

fn do_act(act: Act, process: &mut Process, tables: &mut Tables, rules: &[Rule], log: &[Logged]) {
    match act {
        Act::Read(n) => {
            for _ in 0..n {
                let offset = process.owner.fold().next();
                let Some((record_ms, body)) = log.get(usize::try_from(offset.0).unwrap()) else {
                    break;
                };
                let record_ms = Some(UnixMs(BASE_MS + record_ms));
                process.owner.take(offset, record_ms, body.as_ref());
            }
        }
        Act::Write(n) => {
            let incidents = process.owner.next_writes(n.into());
            incidents.iter().for_each(|incident| tables.write(incident));
            process.under_way.extend(incidents);
        }
        Act::Answer(is_lost) => process.answer(is_lost),
        Act::Publish => process.publish(tables),
        Act::Restart => *process = Process::new(tables, rules),
    }
}

/// Compares the rows with a second fold of the log that begins at `base`, as the `verify` command does.
fn audit(
    tables: &Tables,
    base: Base,
    claim: usize,
    rules: &[Rule],
    log: &[Logged],
) -> IncidentAuditOutcome {
    let claim = Offset(i64::try_from(claim).unwrap());
    let rows = tables.rows.values().cloned();
    let mut audit = IncidentAudit::new(source(), rules, base, claim, rows);
    for (offset, (record_ms, body)) in (0..).zip(log) {
        let record_ms = Some(UnixMs(BASE_MS + record_ms));
        audit.take(Offset(offset), record_ms, body.as_ref());
    }
    audit.outcome()
}

/// Returns a line for each incident whose row differs from the expected row.
fn differences(
    rows: &BTreeMap<(Arc<str>, Arc<str>), Incident>,
    want: &BTreeMap<(Arc<str>, Arc<str>), Incident>,
) -> Vec<String> {
    let keys: std::collections::BTreeSet<_> = rows.keys().chain(want.keys()).collect();
    let differ = keys
        .into_iter()
        .filter(|key| rows.get(key) != want.get(key));
    differ
        .map(|key| format!("{:?} instead of {:?}", rows.get(key), want.get(key)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn crashes_and_rivals_change_no_incident(log in logs(), acts in acts(), open_max in 1..6u32, goes_on: bool) {
        let mut rules = vec![critical(), surge(3), silent()];
        rules.iter_mut().for_each(|rule| rule.open_max = open_max);
        let mut want = BTreeMap::new();
        for change in fold_all(&rules, &log).1 {
            want.insert(name_of(&change.incident), (*change.incident).clone());
        }
        let mut tables = Tables::default();
        let mut processes = [Process::new(&tables, &rules), Process::new(&tables, &rules)];
        for (which, act) in acts {
            do_act(act, &mut processes[usize::from(which)], &mut tables, &rules, &log);
        }
        // If `goes_on` is true, the first process reads the log to its end. Otherwise, a new process does.
        let [first, _] = processes;
        let mut last = if goes_on { first } else { Process::new(&tables, &rules) };
        last.answer(false);
        do_act(Act::Read(250), &mut last, &mut tables, &rules, &log);
        do_act(Act::Write(250), &mut last, &mut tables, &rules, &log);
        last.answer(false);
        prop_assert_eq!(differences(&tables.rows, &want), Vec::<String>::new());
        // At every base, a second fold agrees with the rows, and detects a damaged row and a missing row.
        tables.bases.push(Base::of(&Checkpoint::begin(Offset(0))));
        for base in tables.bases.clone() {
            let outcome = audit(&tables, base, log.len(), &rules, &log);
            prop_assert_eq!(outcome.differences, vec![], "{:?}", base);
            let newer = tables.rows.iter().filter(|(_, row)| base.next <= row.opened);
            prop_assert_eq!(outcome.compared, newer.clone().count() as u64);
            let Some((name, row)) = newer.max_by_key(|(_, row)| row.next) else {
                continue;
            };
            let mut damaged = tables.clone();
            let other = Incident { event_count: row.event_count + 1, ..row.clone() };
            damaged.rows.insert(name.clone(), other);
            prop_assert_eq!(audit(&damaged, base, log.len(), &rules, &log).difference_count, 1);
            damaged.rows.remove(name);
            prop_assert_eq!(audit(&damaged, base, log.len(), &rules, &log).difference_count, 1);
        }
        // A process that publishes checkpoints at the end of the log changes no row.
        last.publish(&mut tables);
        last.publish(&mut tables);
        let mut again = Process::new(&tables, &rules);
        do_act(Act::Read(250), &mut again, &mut tables, &rules, &log);
        do_act(Act::Write(250), &mut again, &mut tables, &rules, &log);
        prop_assert_eq!(differences(&tables.rows, &want), Vec::<String>::new());
    }
}
