//! Tests of the built binary, role by role, on a real Apache Kafka and a real DynamoDB Local.
//!
//! ```text
//! scripts/test-real [NAME...]
//! ```
//!
//! Plain `cargo test` reports these tests as ignored, because they need Java. `KAFKA=3.9.1` chooses another version
//! of Kafka than 4.1.1.
//!
//! The suite starts the services once, with `scripts/real-services`, in a temporary folder. A watchdog process stops
//! them when the suite ends, even if the suite is killed. Each test has its own topic, tables and group. It compares
//! the four tables row by row with [`oracle`], which folds the log a second time and shares no code with the program.
//! `OBSERVED=FOLDER` keeps there what tests with a proxy have seen, for `proof/observe.py`.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod account;
#[path = "../support/aws.rs"]
mod aws_behaviour;
mod aws_front;
// This suite does not use every fault.
#[allow(dead_code)]
#[path = "../support/faults.rs"]
mod faults;
#[path = "../support/lies.rs"]
mod lies;
mod links;
mod log;
mod observed;
mod oracle;
mod proxy;
mod role;
mod services;
mod tables;
mod world;

mod accept;
mod authorities;
mod aws_data;
mod aws_tables;
mod brokers;
mod chaos;
mod chaos_kills;
mod cluster;
mod credentials;
mod dead_letters;
mod grand_total;
mod histories;
mod history;
mod init_tables;
mod lying;
mod members;
mod membership;
mod migration;
mod notify;
mod resends;
mod restarts;
mod rights;
mod rollups;
mod security;
mod sending;
mod snippets;
mod stopping;
mod store;
#[path = "../store/mod.rs"]
mod suite;
mod tables_anew;
mod tail;
mod topics;
mod tutorial;
mod unclean;
mod verify;
mod waiting;
mod whole_file;
