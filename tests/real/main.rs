//! The built binary, role by role, on a real Apache Kafka and a real DynamoDB Local.
//!
//! ```text
//! REAL_SERVICES=1 cargo test --test real -- --nocapture
//! ```
//!
//! `KAFKA=3.9.1` chooses another version of Kafka than 4.1.1.
//!
//! Without `REAL_SERVICES=1`, or without Java, one line says so and every test passes. The services
//! come from `scripts/real-services`, once for the whole suite, in a folder of their own; a process
//! beside the suite stops them when it ends, however it ends. Each test has its own topic, tables
//! and group, and compares the four tables row by row with [`oracle`], which folds the log a second
//! time and shares no code with the program.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod account;
#[path = "../support/aws.rs"]
mod aws_behaviour;
mod aws_front;
// Not every fault is asked for here.
#[allow(dead_code)]
#[path = "../support/faults.rs"]
mod faults;
#[path = "../support/lies.rs"]
mod lies;
mod log;
mod oracle;
mod proxy;
mod role;
mod services;
mod tables;
mod world;

mod aws_data;
mod aws_tables;
mod brokers;
mod chaos;
mod chaos_kills;
mod credentials;
mod dead_letters;
mod grand_total;
mod init_tables;
mod lying;
mod members;
mod membership;
mod migration;
mod restarts;
mod rights;
mod security;
mod sending;
mod stopping;
mod store;
#[path = "../store/mod.rs"]
mod suite;
mod tables_anew;
mod tail;
mod topics;
mod tutorial;
mod verify;
mod waiting;
mod whole_file;
