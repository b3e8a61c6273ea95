//! Manages the rows of one assignment. Each row holds the records that wait for its next update, and has at most one
//! update in flight.
//!
//! The worker writes each row at most once per update interval, so it must remember when it last wrote the row. The
//! worker drops a row from memory only after the row had nothing to write for a whole interval.

use std::sync::Arc;

use super::{ROOM_KEPT, Worker, pending};
use crate::clock::{SteadyMs, UnixMs};
use crate::event::Event;
use crate::keys;
use crate::plan::{RowKey, RowUpdate, UpdateOutcome};
use crate::stretch::{Entry, Stretch};

/// Estimated memory of a row, in bytes. The estimate includes the row's key, two stretches, and the row's share of a
/// list that may be only half full.
pub(super) const ROW_BYTES: u64 = 384;

#[derive(Clone, Debug)]
pub(super) struct Row {
    key: RowKey,
    /// The records that the next update of the row will count.
    gathered: Vec<Entry>,
    /// The row's update that is in flight, or that the worker will send again.
    sent: Option<Sent>,
    /// The time of the row's entry in `Worker::due`, if the row has an entry.
    due_ms: Option<SteadyMs>,
    last_sent_ms: SteadyMs,
}

#[derive(Clone, Debug)]
pub(super) struct Sent {
    stretch: Stretch,
    /// True if an earlier attempt to send the same stretch has an unknown outcome.
    unknown: bool,
    attempts: u32,
}

#[derive(Clone, Debug)]
pub(super) struct SeriesRows {
    /// The series, which is `city#event_type`.
    name: Arc<str>,
    totals: Option<u32>,
    windows: Vec<(UnixMs, u32)>,
}

impl Worker {
    /// Adds a record to the next stretch of its row.
    pub(super) fn gather(
        &mut self,
        now_ms: SteadyMs,
        series_hash: u32,
        event: &Event,
        window_start_ms: Option<UnixMs>,
        entry: Entry,
    ) {
        let id = self.row_of(series_hash, event, window_start_ms);
        let row = self.rows[id as usize]
            .as_mut()
            .expect("row_of returns a row in use");
        push_first_exactly(&mut row.gathered, entry);
        if row.due_ms.is_none() && row.sent.is_none() {
            row.due_ms = Some(now_ms);
            self.due.insert((now_ms, id));
        }
    }

    fn row_of(&mut self, series_hash: u32, event: &Event, window_start_ms: Option<UnixMs>) -> u32 {
        let same_hash = self.series.entry(series_hash).or_default();
        let at = same_hash
            .iter()
            .position(|s| keys::is_series(&s.name, &event.city, &event.event_type));
        let at = at.unwrap_or_else(|| {
            let series = SeriesRows {
                name: keys::series(&event.city, &event.event_type).into(),
                totals: None,
                windows: Vec::new(),
            };
            push_first_exactly(same_hash, series);
            same_hash.len() - 1
        });
        let series = &mut same_hash[at];
        let found = match window_start_ms {
            None => series.totals,
            Some(start) => series
                .windows
                .iter()
                .find(|(s, _)| *s == start)
                .map(|(_, id)| *id),
        };
        if let Some(id) = found {
            return id;
        }
        let row = Row {
            key: RowKey {
                series: Arc::clone(&series.name),
                window_start_ms,
            },
            gathered: Vec::new(),
            sent: None,
            due_ms: None,
            last_sent_ms: SteadyMs::MIN,
        };
        self.bytes += ROW_BYTES;
        self.tally.bytes_taken += ROW_BYTES;
        let id = match self.free_rows.pop() {
            Some(id) => {
                self.rows[id as usize] = Some(row);
                id
            }
            None => {
                self.rows.push(Some(row));
                u32::try_from(self.rows.len() - 1).expect("fewer rows than records in memory")
            }
        };
        match window_start_ms {
            None => series.totals = Some(id),
            Some(start) => push_first_exactly(&mut series.windows, (start, id)),
        }
        id
    }

    /// Returns the next row update, if a row was due at or before `due_by_ms`. The caller must report the outcome to
    /// [`Worker::update_done`].
    pub fn next_update(&mut self, now_ms: SteadyMs, due_by_ms: SteadyMs) -> Option<RowUpdate> {
        while let Some(&(due_ms, id)) = self.due.first() {
            if due_ms > due_by_ms {
                return None;
            }
            self.due.pop_first();
            let row = self.rows[id as usize]
                .as_mut()
                .expect("a due row is in use");
            row.due_ms = None;
            if row.sent.is_none() {
                let Some(stretch) = Stretch::new(std::mem::take(&mut row.gathered)) else {
                    self.free(id);
                    continue;
                };
                row.sent = Some(Sent {
                    stretch,
                    unknown: false,
                    attempts: 0,
                });
            }
            row.last_sent_ms = now_ms;
            let sent = row.sent.as_mut().expect("set above");
            sent.attempts += 1;
            return Some(RowUpdate {
                partition: self.place.partition,
                assignment: self.place.assignment,
                row_id: id,
                row: row.key.clone(),
                log_key: Arc::clone(&self.place.log_key),
                first: sent.stretch.first(),
                next: sent.stretch.next(),
                sum: sent.stretch.sum(),
            });
        }
        None
    }

    /// Drops all rows if the partition has no records in flight. A row without records in flight contains only the time
    /// of its last update.
    pub fn free_idle_rows(&mut self) {
        if self.in_flight() > 0 {
            return;
        }
        while let Some((_, id)) = self.due.pop_first() {
            self.free(id);
        }
    }

    /// Returns the time at which [`Worker::next_update`] should be called again, or `None` if no row waits for a later
    /// time.
    pub fn next_ms(&self) -> Option<SteadyMs> {
        self.due.first().map(|(ms, _)| *ms)
    }

    /// Processes the outcome of a row update. The function `wait_ms` takes the number of attempts so far, and returns
    /// the wait before the next attempt in milliseconds.
    ///
    /// # Panics
    /// Panics if the row has no update in flight.
    pub fn update_done(
        &mut self,
        now_ms: SteadyMs,
        row_id: u32,
        outcome: UpdateOutcome,
        wait_ms: impl Fn(u32) -> i64,
    ) {
        let row = self.rows[row_id as usize]
            .as_mut()
            .expect("an update under way keeps its row");
        let mut sent = row
            .sent
            .take()
            .expect("an outcome answers an update under way");
        let bit = if row.key.window_start_ms.is_some() {
            pending::WINDOW
        } else {
            pending::TOTALS
        };
        let mut due_ms = if self.draining {
            now_ms
        } else {
            row.last_sent_ms
                .saturating_add(self.place.row_interval_ms)
                .max(now_ms)
        };
        match outcome {
            UpdateOutcome::Counted => {
                self.mark(sent.stretch.entries().iter().map(|e| e.seq), bit, false);
            }
            UpdateOutcome::Unknown | UpdateOutcome::Refused => {
                // The worker sends the update again unchanged, and the row's fence shows whether an earlier attempt
                // took effect.
                sent.unknown |= outcome == UpdateOutcome::Unknown;
                due_ms = now_ms + wait_ms(sent.attempts);
                row.sent = Some(sent);
            }
            UpdateOutcome::Fenced(fence) => {
                self.tally.fence_conflicts += 1;
                // A fence at the end of the stretch may come from an earlier attempt of this update whose outcome is
                // unknown.
                let own = sent.unknown && fence == sent.stretch.next();
                let (below, rest) = sent.stretch.split_at_fence(fence);
                if let Some(rest) = rest {
                    // The worker sends the records at or above the fence at once, together with the records that it
                    // gathered during the update.
                    let mut entries = rest.into_entries();
                    entries.append(&mut row.gathered);
                    row.gathered = entries;
                    due_ms = now_ms;
                }
                self.mark(below.iter().map(|e| e.seq), bit, !own);
            }
        }
        let row = self.rows[row_id as usize].as_mut().expect("still in use");
        if row.sent.is_none() && row.gathered.is_empty() && due_ms <= now_ms {
            self.free(row_id);
        } else {
            row.due_ms = Some(due_ms);
            self.due.insert((due_ms, row_id));
        }
        self.settle();
    }

    /// Makes the worker ignore the update intervals of rows. While a worker drains, it sends the update of a row as
    /// soon as no other update of this row is in flight.
    pub fn drain(&mut self, now_ms: SteadyMs) {
        self.draining = true;
        for id in 0..self.rows.len() {
            let Some(row) = &mut self.rows[id] else {
                continue;
            };
            if row.sent.is_some() {
                continue;
            }
            let id = u32::try_from(id).expect("row ids are u32");
            if let Some(due_ms) = row.due_ms.replace(now_ms) {
                self.due.remove(&(due_ms, id));
            }
            self.due.insert((now_ms, id));
        }
    }

    fn free(&mut self, id: u32) {
        let row = self.rows[id as usize].take().expect("freed once");
        self.bytes -= ROW_BYTES;
        self.tally.bytes_freed += ROW_BYTES;
        self.free_rows.push(id);
        let hash = keys::hash(&row.key.series);
        let same_hash = self.series.get_mut(&hash).expect("a row has its series");
        for series in &mut *same_hash {
            match row.key.window_start_ms {
                None if series.totals == Some(id) => series.totals = None,
                None => {}
                Some(_) => series.windows.retain(|(_, window)| *window != id),
            }
        }
        same_hash.retain(|series| series.totals.is_some() || !series.windows.is_empty());
        if same_hash.is_empty() {
            self.series.remove(&hash);
        }
        if self.free_rows.len() == self.rows.len() && self.rows.len() > ROOM_KEPT {
            self.rows = Vec::new();
            self.free_rows = Vec::new();
        }
    }
}

/// Appends an element to a list. For the first element, the function reserves memory for exactly one element, because
/// most lists of a row never get a second element. With the default capacity of `Vec`, the lists would take a third of
/// a row's memory.
fn push_first_exactly<T>(list: &mut Vec<T>, first: T) {
    if list.capacity() == 0 {
        list.reserve_exact(1);
    }
    list.push(first);
}
