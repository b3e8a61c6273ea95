//! Suggests a correction for a filter that matches no event.
//!
//! City names are case-sensitive, so `--city nyc` matches nothing if producers send `NYC`.

use std::collections::BTreeSet;

use crate::settings::nearest;

/// Maximum number of different names that are kept from events that do not match the filter. Most topics have fewer
/// than 200 cities.
const OTHERS_MAX: usize = 200;
/// Maximum number of names that a hint lists if no similar name exists.
const LISTED_MAX: usize = 5;

/// The names in a filter that have not occurred in any event so far.
#[derive(Clone, Debug)]
pub(super) struct FilterHint {
    field: &'static str,
    missing: Vec<String>,
    /// The names that occur in events but not in the filter.
    others: BTreeSet<Box<str>>,
}

impl FilterHint {
    /// Returns a `FilterHint` that has not seen any event yet.
    pub(super) fn new(field: &'static str, names: &[String]) -> FilterHint {
        FilterHint {
            field,
            missing: names.to_vec(),
            others: BTreeSet::new(),
        }
    }

    /// Compares the city or the event type of the next event with the names in the filter. Returns true if the text of
    /// the hint may have changed.
    pub(super) fn observe(&mut self, name: &str) -> bool {
        if self.missing.is_empty() {
            return false;
        }
        if let Some(at) = self.missing.iter().position(|missing| missing == name) {
            self.missing.remove(at);
            return true;
        }
        let is_full = self.others.len() >= OTHERS_MAX;
        !is_full && !self.others.contains(name) && self.others.insert(name.into())
    }

    /// Returns a hint about the first name in the filter that has not occurred in any event. An example of a hint is
    /// `city nyc: none so far; did you mean NYC?`.
    ///
    /// Returns `None` if every name in the filter has occurred in an event, or if no other name has occurred in an
    /// event.
    pub(super) fn hint(&self) -> Option<String> {
        let missing = self.missing.first().filter(|_| !self.others.is_empty())?;
        let field = self.field;
        if let Some(name) = nearest(missing, self.others.iter().map(|name| &**name)) {
            return Some(format!(
                "{field} {missing}: none so far; did you mean {name}?"
            ));
        }
        let listed: Vec<&str> = self.others.iter().map(|n| &**n).take(LISTED_MAX).collect();
        let listed = listed.join(", ");
        let more = if self.others.len() > LISTED_MAX {
            ", …"
        } else {
            ""
        };
        Some(format!(
            "{field} {missing}: none so far; seen: {listed}{more}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_no_event_has_brings_a_suggestion() {
        let names = ["nyc", "LA", "Atlantis"].map(str::to_owned);
        let mut cities = FilterHint::new("city", &names);
        assert_eq!(cities.hint(), None, "no event was seen yet");
        assert!(cities.observe("NYC"));
        let want = "city nyc: none so far; did you mean NYC?";
        assert_eq!(cities.hint().as_deref(), Some(want));
        assert!(!cities.observe("NYC"));
        assert!(cities.observe("nyc") && cities.observe("LA"));
        let want = "city Atlantis: none so far; seen: NYC";
        assert_eq!(cities.hint().as_deref(), Some(want));
        for name in ["a", "b", "c", "d", "e"] {
            cities.observe(name);
        }
        let want = "city Atlantis: none so far; seen: NYC, a, b, c, d, …";
        assert_eq!(cities.hint().as_deref(), Some(want));
        cities.observe("Atlantis");
        assert_eq!(cities.hint(), None);
    }

    #[test]
    fn other_names_are_bounded_and_no_filter_means_no_hint() {
        let mut types = FilterHint::new("type", &["trafic".to_owned()]);
        for n in 0..1_000 {
            types.observe(&format!("t{n}"));
        }
        assert_eq!(types.others.len(), OTHERS_MAX);
        let mut all = FilterHint::new("city", &[]);
        assert!(!all.observe("NYC"));
        assert_eq!(all.hint(), None);
    }
}
