//! Tests of `produce` that is stopped before it has sent all its events.

use std::io::Read as _;
use std::time::Instant;

use crate::process::Start as _;
use crate::produce::{Broker, WAIT_MAX, wait};
use crate::world::terminate;

#[test]
fn a_run_that_is_stopped_before_its_last_event_fails() {
    for (source, value, what) in [
        (
            "--input",
            "data/city-events-2013-01.ndjson.gz",
            "stopped before the end of the input",
        ),
        (
            "--count",
            "100000",
            "stopped before --count events were sent",
        ),
    ] {
        let broker = Broker::start();
        let args = [
            "produce",
            source,
            value,
            "--rate",
            "200/s",
            "--listen",
            "127.0.0.1:0",
        ];
        let mut produce = broker.citystream(&args).start().unwrap();
        let begun = Instant::now();
        while broker.tail_json(&[]).is_empty() {
            assert!(begun.elapsed() < WAIT_MAX, "events arrive");
        }
        terminate(&produce);
        assert_eq!(wait(&mut produce), Some(1));
        let mut told = String::new();
        let mut stderr = produce.stderr.take().unwrap();
        stderr.read_to_string(&mut told).unwrap();
        assert!(told.contains("undelivered 0"), "{told}");
        assert!(told.contains(what), "{told}");
    }
}
