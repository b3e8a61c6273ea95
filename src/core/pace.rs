//! Decides how many requests may run at the same time, and how long to wait before a retry.
//!
//! The limit on concurrent requests works like TCP's congestion window. The limit doubles with each round of successful
//! answers until the table throttles a request for the first time. After that, the limit grows by one per round, and
//! halves when the table throttles a request again. The maximum wait between two attempts doubles with each attempt.
//! The actual wait is a random part of this maximum ("full jitter"), so that many consumers do not retry at the same
//! time. The caller passes the random numbers for the jitter.

/// The limit on requests in flight to one table.
#[derive(Clone, Debug)]
pub struct Concurrency {
    limit: f64,
    limit_max: f64,
    /// True until the table throttles a request for the first time.
    is_starting: bool,
    in_flight: u32,
    /// Number of answers that must still arrive before another throttled request may halve the limit. These answers
    /// belong to requests that were sent before the limit was halved.
    hold: u32,
}

impl Concurrency {
    /// Returns a limit that starts at `start` and grows up to `max`.
    pub fn new(start: u32, max: u32) -> Concurrency {
        Concurrency {
            limit: f64::from(start),
            limit_max: f64::from(max),
            is_starting: true,
            in_flight: 0,
            hold: 0,
        }
    }

    /// Returns true if the limit allows one more request.
    pub fn has_room(&self) -> bool {
        f64::from(self.in_flight) + 1.0 <= self.limit
    }

    /// Notes that a request was sent.
    pub fn sent(&mut self) {
        self.in_flight += 1;
    }

    /// Notes that an answer has arrived. `throttled` is true if the table throttled the request.
    pub fn answered(&mut self, throttled: bool) {
        let was_full = f64::from(self.in_flight) + 1.0 > self.limit;
        self.in_flight = self.in_flight.saturating_sub(1);
        let held = self.hold > 0;
        self.hold = self.hold.saturating_sub(1);
        if throttled {
            self.is_starting = false;
            if !held {
                self.limit = (self.limit / 2.0).max(1.0);
                self.hold = self.in_flight;
            }
        } else if was_full {
            // The limit grows only if all allowed requests were in flight. With fewer requests in flight, a success
            // does not show that the table accepts more requests.
            let more = if self.is_starting {
                1.0
            } else {
                1.0 / self.limit
            };
            self.limit = (self.limit + more).min(self.limit_max);
        }
    }

    /// Returns the number of requests that have no answer yet.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

/// Maximum wait before the first retry, in milliseconds.
pub const BACKOFF_BASE_MS: i64 = 25;
/// Maximum wait between two attempts, in milliseconds. The maximum is short, so that a consumer soon notices that a
/// table has recovered.
pub const BACKOFF_MAX_MS: i64 = 5_000;

/// Returns the wait before retry number `attempt`, in milliseconds. The first retry has the number 1. The random number
/// `chance` selects a wait between 1 ms and a maximum that grows with `attempt`.
pub fn backoff_ms(attempt: u32, chance: u32) -> i64 {
    let cap = (BACKOFF_BASE_MS << attempt.saturating_sub(1).min(16)).min(BACKOFF_MAX_MS);
    1 + i64::from(chance) * cap / i64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_by_one_a_round_and_halves_once_a_congestion() {
        let mut c = Concurrency::new(4, 8);
        for _ in 0..200 {
            while c.has_room() {
                c.sent();
            }
            c.answered(false);
        }
        assert_eq!(c.in_flight(), 7);
        while c.has_room() {
            c.sent();
        }
        assert_eq!(c.in_flight(), 8, "the limit is the maximum");
        for _ in 0..8 {
            c.answered(true);
        }
        let mut room = 0;
        while c.has_room() {
            c.sent();
            room += 1;
        }
        assert_eq!(room, 4, "eight refusals of one congestion halve once");
    }

    #[test]
    fn the_first_rounds_double_it() {
        let mut c = Concurrency::new(8, 64);
        let fill = |c: &mut Concurrency| {
            while c.has_room() {
                c.sent();
            }
        };
        fill(&mut c);
        for most in [8, 16, 32, 64, 64] {
            assert_eq!(c.in_flight(), most);
            for _ in 0..most {
                c.answered(false);
                fill(&mut c);
            }
        }
        // A throttled answer halves the limit, so no further request is sent now.
        c.answered(true);
        fill(&mut c);
        assert_eq!(c.in_flight(), 63);
    }

    #[test]
    fn it_never_stops() {
        let mut c = Concurrency::new(4, 8);
        for _ in 0..100 {
            c.sent();
            c.answered(true);
        }
        assert!(c.has_room());
    }

    /// Simulates a table that has `units_at(second)` write units in each second, and answers requests after
    /// `answer_ms`. A put costs one unit. The table saves the unused write units of at most one second. The simulation
    /// runs for `seconds` seconds and sends as many full batches as [`Concurrency`] allows. The simulation retries
    /// throttled puts after a wait. Returns the number of puts that the table stores in each second.
    fn drive(
        c: &mut Concurrency,
        seconds: i64,
        answer_ms: i64,
        units_at: impl Fn(i64) -> f64,
    ) -> Vec<f64> {
        const BATCH: f64 = 25.0;
        let (mut tokens, mut stored) = (0.0, vec![0.0; usize::try_from(seconds).expect("few")]);
        // The list `answers` contains the requests in flight, and the list `again` contains throttled puts that wait
        // for a retry. Each element consists of a time, a number of puts and an attempt number.
        let mut answers: Vec<(i64, f64, u32)> = Vec::new();
        let mut again: Vec<(i64, f64, u32)> = Vec::new();
        let mut chance = 1_u32;
        for now_ms in 0..seconds * 1_000 {
            let units = units_at(now_ms / 1_000);
            tokens = (tokens + units / 1_000.0).min(units);
            let due: Vec<_> = answers.extract_if(.., |(at, ..)| *at <= now_ms).collect();
            for (_, puts, attempt) in due {
                let taken = puts.min(f64::floor(tokens));
                tokens -= taken;
                stored[usize::try_from(now_ms / 1_000).expect("few")] += taken;
                c.answered(taken < puts);
                if taken < puts {
                    chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let wait_ms = backoff_ms(attempt, chance);
                    again.push((now_ms + wait_ms, puts - taken, attempt + 1));
                }
            }
            while c.has_room() {
                let waiting = again.iter().position(|(at, ..)| *at <= now_ms);
                let (_, puts, attempt) = waiting.map_or((0, BATCH, 1), |at| again.swap_remove(at));
                c.sent();
                answers.push((now_ms + answer_ms, puts, attempt));
            }
        }
        stored
    }

    #[test]
    fn a_table_of_1000_units_is_used_to_nine_tenths_and_found_again_after_a_drought() {
        for answer_ms in [5, 20, 100] {
            let mut c = Concurrency::new(8, 64);
            // The table provides 1,000 write units per second for 60 seconds, then 10 per second for 20 seconds, and
            // then 1,000 per second again.
            let units = |second| {
                if (60..80).contains(&second) {
                    10.0
                } else {
                    1_000.0
                }
            };
            let stored = drive(&mut c, 140, answer_ms, units);
            let per_second =
                |from: usize, to: usize| stored[from..to].iter().sum::<f64>() / (to - from) as f64;
            assert!(per_second(5, 60) >= 900.0, "{answer_ms} ms: {stored:?}");
            assert!(per_second(110, 140) >= 900.0, "{answer_ms} ms: {stored:?}");
        }
    }

    #[test]
    fn an_idle_table_teaches_nothing() {
        let mut c = Concurrency::new(2, 64);
        for _ in 0..1_000 {
            c.sent();
            c.answered(false);
        }
        c.sent();
        c.sent();
        assert!(!c.has_room());
    }

    #[test]
    fn waits_double_up_to_the_cap() {
        assert_eq!(backoff_ms(1, u32::MAX), 26);
        assert_eq!(backoff_ms(2, u32::MAX), 51);
        assert_eq!(backoff_ms(60, u32::MAX), BACKOFF_MAX_MS + 1);
        assert_eq!(backoff_ms(60, 0), 1);
    }
}
