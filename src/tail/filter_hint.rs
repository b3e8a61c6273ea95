//! Names that were asked for and that no event had so far: a city is spelt as its sender spells it, so `nyc`
//! is none of `NYC`'s, and silence would not tell.

use std::collections::BTreeSet;

use crate::settings::nearest;

/// Most other names kept; a person looks for one among far fewer.
const OTHERS_MAX: usize = 200;
/// Most other names told.
const TOLD_MAX: usize = 5;

/// What was asked for of one field.
#[derive(Clone, Debug)]
pub(super) struct Absent {
    field: &'static str,
    asked: Vec<String>,
    others: BTreeSet<Box<str>>,
}

impl Absent {
    /// Returns the state before the first event.
    pub(super) fn new(field: &'static str, asked: &[String]) -> Absent {
        Absent {
            field,
            asked: asked.to_vec(),
            others: BTreeSet::new(),
        }
    }

    /// Takes the name of the next event, and tells whether that changes the hint.
    pub(super) fn see(&mut self, name: &str) -> bool {
        if self.asked.is_empty() {
            return false;
        }
        if let Some(at) = self.asked.iter().position(|asked| asked == name) {
            self.asked.remove(at);
            return true;
        }
        let is_full = self.others.len() >= OTHERS_MAX;
        !is_full && !self.others.contains(name) && self.others.insert(name.into())
    }

    /// Returns what to say about the names that no event had, such as
    /// `city nyc: none so far; did you mean NYC?`; nothing as long as there is nothing to compare with.
    pub(super) fn hint(&self) -> Option<String> {
        let asked = self.asked.first().filter(|_| !self.others.is_empty())?;
        let field = self.field;
        let lower: Vec<String> = self.others.iter().map(|n| n.to_lowercase()).collect();
        let meant = nearest(&asked.to_lowercase(), lower.iter().map(String::as_str));
        let meant = meant.and_then(|meant| lower.iter().position(|n| n == meant));
        if let Some(name) = meant.and_then(|at| self.others.iter().nth(at)) {
            return Some(format!(
                "{field} {asked}: none so far; did you mean {name}?"
            ));
        }
        let told: Vec<&str> = self.others.iter().map(|n| &**n).take(TOLD_MAX).collect();
        let more = if self.others.len() > TOLD_MAX {
            ", …"
        } else {
            ""
        };
        Some(format!(
            "{field} {asked}: none so far; there are {}{more}",
            told.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_name_that_nobody_has_is_told_what_there_is() {
        let asked = ["nyc", "LA", "Atlantis"].map(str::to_owned);
        let mut cities = Absent::new("city", &asked);
        assert_eq!(cities.hint(), None, "nothing was seen yet");
        assert!(cities.see("NYC"));
        let want = "city nyc: none so far; did you mean NYC?";
        assert_eq!(cities.hint().as_deref(), Some(want));
        assert!(!cities.see("NYC"));
        assert!(cities.see("nyc") && cities.see("LA"));
        let want = "city Atlantis: none so far; there are NYC";
        assert_eq!(cities.hint().as_deref(), Some(want));
        for name in ["a", "b", "c", "d", "e"] {
            cities.see(name);
        }
        let want = "city Atlantis: none so far; there are NYC, a, b, c, d, …";
        assert_eq!(cities.hint().as_deref(), Some(want));
        cities.see("Atlantis");
        assert_eq!(cities.hint(), None);
    }

    #[test]
    fn others_are_bounded_and_nobody_who_asks_for_all_is_told_anything() {
        let mut types = Absent::new("type", &["trafic".to_owned()]);
        for n in 0..1_000 {
            types.see(&format!("t{n}"));
        }
        assert_eq!(types.others.len(), OTHERS_MAX);
        let mut all = Absent::new("city", &[]);
        assert!(!all.see("NYC"));
        assert_eq!(all.hint(), None);
    }
}
