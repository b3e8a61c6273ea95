//! Notes for each raw event and alert of a slice which content the log requires.

use super::{At, AuditName, FoundPut, Key, Lateness, RowPlace, Slice, SliceEntry, content};
use crate::clock::UnixMs;
use crate::event::{Event, Offset};

#[derive(Clone, Debug)]
pub(super) struct AuditPut {
    pub(super) found: Option<FoundPut>,
    /// `seen` is true if a record of the log belongs to this item. `matched` is true if such a record also requires the
    /// content of the item.
    pub(super) seen: bool,
    pub(super) matched: bool,
    pub(super) want: Option<Want>,
}

/// The first record below the claim that requires a certain raw event or alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    /// The fingerprint of the content that the item should have.
    pub(super) content: u64,
    /// The expected lateness of the event, according to the log.
    pub(super) late: Lateness,
    /// The partition of the record.
    pub(super) partition: i32,
    /// The offset of the record.
    pub(super) offset: Offset,
    /// The Kafka timestamp of the record.
    pub(super) record_ms: Option<UnixMs>,
}

impl Want {
    pub(super) fn is(&self, found: &FoundPut) -> bool {
        self.content == found.content && self.late.may_be(found.late)
    }
}

impl Slice {
    /// Notes that the tables must contain the raw event of an event, and also its alert if `alert` is true.
    pub(super) fn store(&mut self, event: &Event, at: At, alert: bool) {
        let place = RowPlace::new(&event.city, event.time_ms);
        if !self.holds(&place) {
            return;
        }
        let id = match &event.event_id {
            Some(id) => id.clone(),
            None => format!("{}-{}-{}", self.scope.topic, at.partition, at.offset).into(),
        };
        let future = self.scope.rules.is_future(event.time_ms, at.record_ms);
        let fingerprint = |future: bool, extra: Option<&str>| {
            let (kind, severity) = (&event.event_type, event.severity.name());
            content(
                &event.city,
                kind,
                severity,
                &event.description,
                future,
                extra,
            )
        };
        let want = |content: u64| Want {
            content,
            late: at.late,
            partition: at.partition,
            offset: at.offset,
            record_ms: at.record_ms,
        };
        if alert {
            let key = Key {
                place: place.clone(),
                name: AuditName::Alert(id.clone()),
            };
            self.put(key, want(fingerprint(false, None)), at.claimed);
        }
        let key = Key {
            place,
            name: AuditName::Raw(id),
        };
        let raw = want(fingerprint(future, event.extra.as_deref()));
        self.put(key, raw, at.claimed);
    }

    fn put(&mut self, key: Key, want: Want, claimed: bool) {
        match self.entries.get_mut(&key) {
            Some(SliceEntry::Put(put)) => {
                put.seen = true;
                put.matched |= put.found.as_ref().is_some_and(|found| want.is(found));
                if claimed {
                    put.want = put.want.or(Some(want));
                }
            }
            Some(SliceEntry::Row(_)) => {}
            None if claimed => {
                let put = AuditPut {
                    found: None,
                    seen: true,
                    matched: false,
                    want: Some(want),
                };
                self.insert(key, SliceEntry::Put(put));
            }
            None => {}
        }
    }
}
