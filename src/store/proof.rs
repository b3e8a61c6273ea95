//! Checks whether the item in a response proves the outcome of a write.
//!
//! DynamoDB returns attributes of the item at no extra cost. After a successful write, it returns the new attributes
//! (`UPDATED_NEW` or `ALL_NEW`). After a failed condition, it returns the stored attributes (`ALL_OLD`). A response
//! proves success only if it contains exactly the values that the write stores. A response proves a refusal only if its
//! values violate the condition of the write. Otherwise, the outcome is unknown, and the caller sends the write again.
//!
//! The HTTP status alone proves nothing. After a swapped or made-up response, the pipeline could mark records as
//! durable although no row counts them (INV-1, INV-2). The module [`crate::store::answers`] checks for every operation
//! that the item in the response has the requested key.

use crate::core::event::Offset;
use crate::core::keys::{self, FENCE_NEXT, SUMS, SUMS_NEXT};
use crate::core::pipeline::Publish;
use crate::core::plan::{RowUpdate, Shown};
use crate::core::stretch::Sum;
use crate::core::time::format_seconds;
use crate::store::answers::Flaw;
use crate::store::attributes::{
    CITY, EVENT_TYPE, Item, NEXT, NotANumber, SERIES, WINDOW_START, checked_number, is_text, number,
};
use crate::store::items::progress_attributes;

/// The reason why a response does not prove the outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproven {
    /// The response is not DynamoDB's response to this write.
    Flaw(Flaw),
    /// The condition of the write compares a stored attribute that is not a number, although it should be one.
    /// Repeating the write cannot repair this attribute.
    Corrupt,
}

/// Reads the row's key and fence from the response to a successful row update.
pub(super) fn shown_by_success(update: &RowUpdate, updated: Option<&Item>) -> Shown {
    let nothing = Item::new();
    let item = updated.unwrap_or(&nothing);
    let series = &*update.row.series;
    let same_row = match update.row.window_start_ms {
        Some(start_ms) => {
            is_text(item, SERIES, series) && is_text(item, WINDOW_START, &format_seconds(start_ms))
        }
        None => keys::split_series(series).is_some_and(|(city, event_type)| {
            is_text(item, CITY, city) && is_text(item, EVENT_TYPE, event_type)
        }),
    };
    // A fence that is not a number proves nothing, so the function treats it as a missing fence.
    let fence = number(item, &fence_name(update));
    Shown {
        same_row,
        fence: fence.map(Offset),
    }
}

/// Reads the row's fence from the stored item in the refusal of a row update. The caller has already checked the key of
/// this item.
///
/// # Errors
/// Returns [`Unproven::Corrupt`] if the fence in the item is not a number.
pub(super) fn shown_by_refusal(update: &RowUpdate, old: Option<&Item>) -> Result<Shown, Unproven> {
    let fence = old.map_or(Ok(None), |item| checked_number(item, &fence_name(update)));
    let fence = fence.map_err(|NotANumber| Unproven::Corrupt)?;
    Ok(Shown {
        same_row: old.is_some(),
        fence: fence.map(Offset),
    })
}

/// Returns the name of the row attribute that stores the fence of the update's log.
pub(super) fn fence_name(update: &RowUpdate) -> String {
    format!("{FENCE_NEXT}{}", update.log_key)
}

/// Checks that the progress item in a response contains exactly the values that the write of `publish` stores.
///
/// The function compares every attribute, because a wrong watermark, for example, could make a window final too early
/// (INV-4).
pub(super) fn check_published(publish: &Publish, new: Option<&Item>) -> Result<(), Flaw> {
    let item = new.ok_or(Flaw::OtherItem)?;
    let mut written = progress_attributes(publish);
    written.push((NEXT, Some(publish.boundary.next.0)));
    let is_written = |(name, value): (&str, Option<i64>)| checked_number(item, name) == Ok(value);
    if !written.into_iter().all(is_written) {
        return Err(Flaw::OtherValues);
    }
    Ok(())
}

/// Checks that the progress item in a refusal really violates the condition of the refused write.
///
/// DynamoDB refuses to create a progress item that already exists. DynamoDB refuses to advance a progress item if the
/// stored `next` is at least as large as the new `next`. A progress item therefore never moves back (INV-4).
pub(super) fn check_refusal(publish: &Publish, create: bool, old: &Item) -> Result<(), Unproven> {
    match checked_number(old, NEXT).map_err(|NotANumber| Unproven::Corrupt)? {
        Some(next) if create || next >= publish.boundary.next.0 => Ok(()),
        _ => Err(Unproven::Flaw(Flaw::OtherValues)),
    }
}

/// Returns the sums of a progress item, or `None` if the sums are unknown or contradictory.
pub(super) fn sums(item: &Item) -> Option<Sum> {
    let count = |name| {
        let number = number(item, name)?;
        u64::try_from(number).ok()
    };
    let next = count(NEXT)?;
    if count(SUMS_NEXT)? != next {
        return None;
    }
    let mut numbers = [0; 6];
    for (number, name) in numbers.iter_mut().zip(SUMS) {
        *number = count(name)?;
    }
    Sum::checked(numbers)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::types::AttributeValue;

    use super::*;
    use crate::core::clock::UnixMs;
    use crate::core::plan::RowKey;
    use crate::core::restart::Boundary;
    use crate::core::stretch::Sum;
    use crate::core::watermark::MaxTime;

    /// The instant 2013-01-01T06:00:00Z in Unix milliseconds.
    const START_MS: i64 = 1_357_020_000_000;

    fn update(window_start_ms: Option<i64>) -> RowUpdate {
        RowUpdate {
            partition: 3,
            assignment: 1,
            row_id: 0,
            row: RowKey {
                series: "NYC#traffic".into(),
                window_start_ms: window_start_ms.map(UnixMs),
            },
            log_key: "T#3".into(),
            first: Offset(7),
            next: Offset(12),
            sum: Sum::default(),
        }
    }

    fn text(value: &str) -> AttributeValue {
        AttributeValue::S(value.to_owned())
    }

    fn digits(value: i64) -> AttributeValue {
        AttributeValue::N(value.to_string())
    }

    fn item(attributes: &[(&str, AttributeValue)]) -> Item {
        let owned = |(name, value): &(&str, AttributeValue)| ((*name).to_owned(), value.clone());
        attributes.iter().map(owned).collect()
    }

    #[test]
    fn a_success_shows_the_rows_own_attributes_and_the_fence_of_its_log() {
        let window = [
            ("series", text("NYC#traffic")),
            ("window_start", text("2013-01-01T06:00:00Z")),
            ("next#T#3", digits(12)),
        ];
        let totals = [
            ("city", text("NYC")),
            ("event_type", text("traffic")),
            ("next#T#3", digits(12)),
        ];
        for (start, right) in [(Some(START_MS), &window), (None, &totals)] {
            let update = update(start);
            let check = |attributes: &[(&str, AttributeValue)], same_row, fence: Option<i64>| {
                let shown = shown_by_success(&update, Some(&item(attributes)));
                let fence = fence.map(Offset);
                assert_eq!(shown, Shown { same_row, fence }, "{attributes:?}");
            };
            check(right, true, Some(12));
            check(&[], false, None);
            check(&right[2..], false, Some(12));
            for at in 0..2 {
                let mut wrong = right.clone();
                wrong[at].1 = text("LA#traffic");
                check(&wrong, false, Some(12));
                let less = [&right[..at], &right[at + 1..]].concat();
                check(&less, false, Some(12));
            }
            let mut wrong = right.clone();
            wrong[2].1 = text("12");
            check(&wrong, true, None);
            wrong[2] = ("next#T#4", digits(12));
            check(&wrong, true, None);
            let shown = shown_by_success(&update, None);
            assert!(!shown.same_row && shown.fence.is_none());
        }
    }

    #[test]
    fn a_refusal_shows_the_fence_of_its_log() {
        let update = update(None);
        let check = |old: Option<Item>, want: Result<(bool, Option<i64>), Unproven>| {
            let shown = shown_by_refusal(&update, old.as_ref());
            let want = want.map(|(same_row, fence)| Shown {
                same_row,
                fence: fence.map(Offset),
            });
            assert_eq!(shown, want, "{old:?}");
        };
        check(Some(item(&[("next#T#3", digits(8))])), Ok((true, Some(8))));
        check(Some(item(&[("next#T#4", digits(8))])), Ok((true, None)));
        check(None, Ok((false, None)));
        let corrupt = item(&[("next#T#3", text("8"))]);
        check(Some(corrupt), Err(Unproven::Corrupt));
    }

    #[test]
    fn sums_count_only_if_they_were_written_together_with_next() {
        let numbers = [2, 1, 3, 0, 0, 0];
        let mut whole = item(&[("next", digits(12)), ("sums_next", digits(12))]);
        for (name, number) in SUMS.into_iter().zip(numbers) {
            whole.insert(name.to_owned(), digits(number));
        }
        assert_eq!(sums(&whole), Sum::checked([2, 1, 3, 0, 0, 0]));
        // A consumer of an older version has advanced the progress item without its sums.
        let mut moved = whole.clone();
        moved.insert("next".to_owned(), digits(13));
        assert_eq!(sums(&moved), None);
        for (name, wrong) in [
            ("sums_next", text("12")),
            ("late_count", digits(-1)),
            ("severity_high", digits(1)),
            ("severity_low", text("3")),
        ] {
            let mut other = whole.clone();
            other.insert(name.to_owned(), wrong);
            assert_eq!(sums(&other), None, "{name}");
            other.remove(name);
            assert_eq!(sums(&other), None, "{name}");
        }
    }

    #[test]
    fn a_progress_item_is_written_only_if_the_answer_holds_all_of_it() {
        let publish = |max: Option<i64>, watermark_ms: Option<i64>| Publish {
            partition: 3,
            assignment: 1,
            log_key: "T#3".into(),
            tables_id: "D".into(),
            boundary: Boundary {
                next: Offset(12),
                max: MaxTime::new(max.map(UnixMs)),
                sums: None,
            },
            watermark_ms: watermark_ms.map(UnixMs),
        };
        let whole = item(&[
            ("next", digits(12)),
            ("max", digits(5)),
            ("watermark", digits(-3)),
        ]);
        let bare = item(&[("next", digits(12))]);
        let wrong = Err(Flaw::OtherValues);
        let mut summed = publish(Some(5), Some(-3));
        summed.boundary.sums = Some(Sum::ZERO);
        assert_eq!(check_published(&summed, Some(&whole)), wrong);
        let mut with_sums = whole.clone();
        with_sums.insert("sums_next".to_owned(), digits(12));
        for name in SUMS {
            with_sums.insert(name.to_owned(), digits(0));
        }
        assert_eq!(check_published(&summed, Some(&with_sums)), Ok(()));
        let moved = publish(Some(5), Some(-3));
        assert_eq!(check_published(&moved, Some(&whole)), Ok(()));
        assert_eq!(check_published(&moved, Some(&bare)), wrong);
        assert_eq!(check_published(&moved, None), Err(Flaw::OtherItem));
        let begun = publish(None, None);
        assert_eq!(check_published(&begun, Some(&bare)), Ok(()));
        assert_eq!(check_published(&begun, Some(&whole)), wrong);
        let behind = item(&[("next", digits(11))]);
        assert_eq!(check_published(&begun, Some(&behind)), wrong);
        for (create, next, want) in [
            (false, digits(12), Ok(())),
            (false, digits(13), Ok(())),
            (false, digits(11), Err(Unproven::Flaw(Flaw::OtherValues))),
            (true, digits(11), Ok(())),
            (true, text("11"), Err(Unproven::Corrupt)),
        ] {
            let old = item(&[("next", next)]);
            assert_eq!(
                check_refusal(&begun, create, &old),
                want,
                "{create} {old:?}"
            );
        }
    }
}
