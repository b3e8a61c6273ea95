//! Tests to which events a rule applies, and to which group an event belongs.

use super::*;
use crate::incident::Group;
use crate::incident::rule::fingerprint;

fn of(city: &str, severity: Severity) -> Event {
    match event(city, severity, 0).1 {
        Some(Body::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_filter_admits_what_all_of_its_lists_contain() {
    let nyc = of("NYC", Severity::High);
    for (city, event_type, severity, admits) in [
        (None, None, None, true),
        (Some("NYC"), Some("traffic"), Some(Severity::High), true),
        (Some("LA"), Some("traffic"), Some(Severity::High), false),
        (Some("NYC"), Some("weather"), Some(Severity::High), false),
        (Some("NYC"), Some("traffic"), Some(Severity::Low), false),
    ] {
        let filter = Filter {
            cities: city.map(|city| [city.into()].into()),
            event_types: event_type.map(|name| [name.into()].into()),
            severities: severity.map(|severity| vec![severity]),
        };
        assert_eq!(filter.admits(&nyc), admits, "{filter:?}");
    }
}

#[test]
fn a_group_has_the_fields_by_which_its_rule_groups() {
    let nyc = of("NYC", Severity::High);
    for (by_city, by_event_type) in [(false, false), (true, false), (false, true), (true, true)] {
        let rule = Rule {
            by_city,
            by_event_type,
            ..critical()
        };
        let want = Group {
            city: by_city.then(|| "NYC".into()),
            event_type: by_event_type.then(|| "traffic".into()),
        };
        assert_eq!(rule.group(&nyc), want);
    }
}

#[test]
fn other_rules_have_another_fingerprint() {
    let times = Rules::default();
    let later = Rules {
        lateness_ms: times.lateness_ms + 1,
        ..times
    };
    let prints = [
        fingerprint(&[critical(), silent()], &times),
        fingerprint(&[critical()], &times),
        fingerprint(&[surge(3)], &times),
        fingerprint(&[surge(4)], &times),
        fingerprint(&[surge(4)], &later),
    ];
    let different: std::collections::BTreeSet<_> = prints.iter().collect();
    assert_eq!(different.len(), prints.len(), "{prints:?}");
    assert_eq!(fingerprint(&[critical()], &times), prints[1]);
    assert!(prints.iter().all(|print| print.len() == 8), "{prints:?}");
}
