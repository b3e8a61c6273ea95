//! Tests of what the consumer thread shares with other threads: the memory budget, and the handle of its Kafka client.
//!
//! loom runs each test once for every order in which the threads can take their steps. It reports a deadlock, and it
//! lets an atomic load return every value that the memory model allows. The budget and the handle are the program's own
//! source. The threads around them are short models: the threads of librdkafka cannot run under loom.

#![cfg(test)]
#![allow(dead_code)]

#[path = "../../../src/kafka/budget.rs"]
mod budget;
#[path = "../../../src/kafka/consumer/handle.rs"]
mod handle;

use loom::sync::{Arc, mpsc};
use loom::thread;

use budget::Budget;
use handle::Handle;

const BUDGET_MAX: u64 = 10;
/// The size of a batch. The budget is exceeded after two batches, and it is tight after one.
const BATCH: u64 = 8;
const BATCHES: u64 = 3;

/// Reads batches as `poller` does: waits while the budget is exceeded, takes the bytes of a batch, and sends the batch.
fn read(budget: &Budget, batches: &mpsc::Sender<u64>, hand_over: fn(&Budget, &mpsc::Sender<u64>)) {
    for _ in 0..BATCHES {
        while budget.is_exceeded() {
            thread::yield_now();
        }
        hand_over(budget, batches);
    }
}

fn take_and_send(budget: &Budget, batches: &mpsc::Sender<u64>) {
    budget.take(BATCH);
    batches.send(BATCH).expect("the shell runs");
}

fn send_and_take(budget: &Budget, batches: &mpsc::Sender<u64>) {
    batches.send(BATCH).expect("the shell runs");
    budget.take(BATCH);
}

/// Runs the consumer thread, and a shell that returns the bytes of each batch.
fn hand_over_all(hand_over: fn(&Budget, &mpsc::Sender<u64>)) {
    loom::model(move || {
        let budget = Arc::new(Budget::new(BUDGET_MAX));
        let (batches, inbox) = mpsc::channel();
        let reader = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || read(&budget, &batches, hand_over))
        };
        for _ in 0..BATCHES {
            let bytes = inbox.recv().expect("the reader runs");
            // One batch may exceed the budget (INV-5). A wrapped counter would be far above this bound.
            assert!(budget.used() <= BUDGET_MAX + BATCH, "{}", budget.used());
            budget.free(bytes);
            assert!(budget.used() <= BUDGET_MAX + BATCH, "{}", budget.used());
        }
        reader.join().expect("no panic");
        assert_eq!(budget.used(), 0);
        // Reading resumes.
        assert!(!budget.is_tight());
    });
}

#[test]
fn the_bytes_in_use_stay_bounded_and_return_to_zero() {
    hand_over_all(take_and_send);
}

#[test]
#[should_panic(expected = "18446744073709551608")]
fn a_batch_that_is_sent_before_its_bytes_are_taken_wraps_the_counter() {
    hand_over_all(send_and_take);
}

/// A Kafka client. Closing it revokes its partitions and waits for the answer of the shell, so the shell would wait for
/// itself if it closed the client.
struct Client {
    shell: thread::ThreadId,
}

impl Drop for Client {
    fn drop(&mut self) {
        assert_ne!(thread::current().id(), self.shell, "the shell closes it");
    }
}

struct Close;

/// Closes a client while the consumer thread and a blocking request also hold it.
fn close_all(close: fn(Handle<Client, Close>)) {
    loom::model(move || {
        let (commands, inbox) = mpsc::channel();
        let shell = thread::current().id();
        let client = Arc::new(Client { shell });
        let poller = {
            let client = Arc::clone(&client);
            thread::spawn(move || {
                let Close = inbox.recv().expect("a command");
                drop(client);
            })
        };
        let inquiry = {
            let client = Arc::clone(&client);
            thread::spawn(move || drop(client))
        };
        close(Handle::new(client, commands));
        poller.join().expect("no panic");
        inquiry.join().expect("no panic");
    });
}

#[test]
fn the_shell_never_closes_the_client_itself() {
    close_all(|handle| handle.close(Close));
}

#[test]
#[should_panic(expected = "the shell closes it")]
fn a_command_that_is_sent_before_the_handle_is_dropped_lets_the_shell_close_the_client() {
    close_all(|handle| {
        handle.send(Close);
        drop(handle);
    });
}
