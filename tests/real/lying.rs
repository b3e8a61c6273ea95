//! Tests of responses that are not DynamoDB's, or that belong to another request. The consumer believes none of them,
//! and the tables equal the log in the end.
//!
//! Each test answers a fifth of the suitable requests with one kind of lie (four fifths of batches). It breaks other
//! requests, so that rows refuse repeated updates.

use crate::faults::Faults;
use crate::lies::Lie;
use crate::proxy::Proxy;
use crate::world::{World, file_lines};

const EVENTS: usize = 500;
/// Lies that must have been told. With fewer, the test shows nothing.
const LIES_MIN: u64 = 10;
/// The log message for a response that the consumer does not believe.
const REFUSED: &str = "rejected an invalid answer of DynamoDB";

/// Counts some real events while the proxy tells `lie`. `reason` is why the consumer refuses such responses.
fn is_survived(name: &'static str, lie: Lie, reason: &str) {
    let world = World::new(name);
    world.init();
    world.produce(&file_lines()[..EVENTS]);
    let faults = Faults::new(83, 10);
    let proxy = Proxy::start(world.services.dynamodb_url(), &faults);
    // There are only a few batches.
    let only_batches = lie == Lie::ForeignUnprocessed;
    proxy.lie(lie, if only_batches { 80 } else { 20 });
    let mut consume = world.consume_through(&proxy, &["--stop-at-end"]);
    consume.ends_with(0);
    world.tables_are_exact_behind(&proxy);
    let (told, err) = (proxy.lies_told(), consume.err());
    assert!(told >= LIES_MIN, "{told} lies told");
    let said = |line: &str| line.contains(REFUSED) && line.contains(reason);
    assert!(err.lines().any(said), "{err}");
    eprintln!("{name}: {told} lies, 0 differences");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn an_empty_success_is_not_believed() {
    is_survived("lie-empty", Lie::Empty, "empty");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_success_that_is_a_foreign_object_is_not_believed() {
    is_survived("lie-foreign", Lie::ForeignObject, "no_capacity");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn an_error_inside_a_success_is_not_believed() {
    is_survived("lie-error", Lie::ErrorInside, "error_inside");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_refusal_of_another_row_is_not_believed() {
    is_survived("lie-other-row", Lie::OtherRow, "other_item");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn a_refusal_by_a_fence_that_lets_the_update_pass_is_not_believed() {
    is_survived("lie-old-fence", Lie::OldFence, "other_values");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn an_answer_to_another_request_is_not_believed() {
    is_survived("lie-other-answer", Lie::OtherAnswer, "other_");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn an_answer_with_a_changed_digit_is_not_believed() {
    is_survived("lie-digit", Lie::FlippedByte, "checksum");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn an_answer_without_its_end_is_not_believed() {
    is_survived("lie-truncated", Lie::Truncated, "checksum");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn unprocessed_items_under_another_tables_name_are_sent_again() {
    is_survived("lie-unprocessed", Lie::ForeignUnprocessed, "unprocessed");
}

#[test]
#[ignore = "needs scripts/test-real"]
fn false_answers_never_make_verify_report_a_difference() {
    let world = World::new("lie-verify");
    world.init();
    world.produce(&file_lines()[..EVENTS]);
    world.consume_to_the_end();
    world.tables_are_exact();
    for lie in [
        Lie::Empty,
        Lie::ForeignObject,
        Lie::ErrorInside,
        Lie::OtherAnswer,
        Lie::FlippedByte,
        Lie::Truncated,
    ] {
        let proxy = Proxy::start(world.services.dynamodb_url(), &Faults::new(89, 0));
        proxy.lie(lie, 10);
        let mut verify = world.verify_through(&proxy);
        verify.ends_with(0);
        let (told, out) = (proxy.lies_told(), verify.out());
        assert!(
            told > 0 && out.contains("difference 0"),
            "{lie:?} {told} {out}"
        );
    }
}
