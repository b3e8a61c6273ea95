//! Defines the instants of three clocks. Each clock has its own type, so that instants of different clocks cannot be
//! mixed.
//!
//! | type | clock | used for |
//! |---|---|---|
//! | [`UnixMs`] | the wall clock, which can be set | event times, watermarks, timestamps of records, the current time in items and answers |
//! | [`SteadyMs`] | a monotonic clock, which may stand still while the host sleeps | intervals, waits and deadlines of a process |
//! | [`BootMs`] | a monotonic clock that counts the time asleep | how long the tables' id is trusted after a read |
//!
//! Subtracting two instants of the same clock gives a span of time. An instant plus or minus a span is another instant.
//! Spans, such as window lengths and waits, are `i64` values in milliseconds. In items, commits, headers and JSON, an
//! instant is a number without the name of its clock.
//!
//! ```
//! use citystream_core::clock::{BootMs, UnixMs};
//! use citystream_core::table_identity::TableIdentity;
//!
//! let age_ms: i64 = UnixMs(1_357_020_000_000) - UnixMs(1_357_019_999_000);
//! assert_eq!(UnixMs(0) + age_ms, UnixMs(1_000));
//! assert!(!TableIdentity::default().is_trusted(BootMs(7)));
//! ```
//!
//! The age of an event must be computed with the wall clock. Code that subtracts a [`UnixMs`] from a [`SteadyMs`] does
//! not compile:
//!
//! ```compile_fail
//! use citystream_core::clock::{SteadyMs, UnixMs};
//!
//! let age_ms: i64 = SteadyMs(1_357_020_000_000) - UnixMs(1_357_019_999_000);
//! ```
//!
//! A consumer trusts the id of its tables for a limited time after a read. This time must also pass while the host
//! sleeps. Therefore, checking the trust with a [`SteadyMs`], whose clock may stop while the host sleeps, does not
//! compile:
//!
//! ```compile_fail
//! use citystream_core::clock::SteadyMs;
//! use citystream_core::table_identity::TableIdentity;
//!
//! assert!(!TableIdentity::default().is_trusted(SteadyMs(7)));
//! ```

use std::ops::{Add, AddAssign, Sub};

macro_rules! clock {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// The earliest instant, which code uses as the time of an event long ago.
            pub const MIN: $name = $name(i64::MIN);

            /// Returns the instant `span_ms` milliseconds later, or the latest possible instant on overflow.
            #[inline]
            #[must_use]
            pub const fn saturating_add(self, span_ms: i64) -> $name {
                $name(self.0.saturating_add(span_ms))
            }

            /// Returns the instant `span_ms` milliseconds earlier, or the earliest possible instant on overflow.
            #[inline]
            #[must_use]
            pub const fn saturating_sub(self, span_ms: i64) -> $name {
                $name(self.0.saturating_sub(span_ms))
            }
        }

        impl Add<i64> for $name {
            type Output = $name;

            #[inline]
            fn add(self, span_ms: i64) -> $name {
                $name(self.0 + span_ms)
            }
        }

        impl AddAssign<i64> for $name {
            #[inline]
            fn add_assign(&mut self, span_ms: i64) {
                self.0 += span_ms;
            }
        }

        impl Sub<i64> for $name {
            type Output = $name;

            #[inline]
            fn sub(self, span_ms: i64) -> $name {
                $name(self.0 - span_ms)
            }
        }

        impl Sub<$name> for $name {
            type Output = i64;

            #[inline]
            fn sub(self, earlier: $name) -> i64 {
                self.0 - earlier.0
            }
        }
    };
}

clock! {
    /// Milliseconds since 1970-01-01T00:00:00Z according to the wall clock, without leap seconds.
    UnixMs
}
clock! {
    /// Milliseconds of a monotonic clock of this process. The zero point of this clock has no meaning.
    SteadyMs
}
clock! {
    /// Milliseconds since the host started. On Linux, the clock also counts the time for which the host was asleep.
    BootMs
}
