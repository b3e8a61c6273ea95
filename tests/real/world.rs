//! What one test has for itself: a topic, tables and a group of the same name, and the roles that use them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::log::{self, Record};
use crate::observed;
use crate::oracle::{self, Expected};
use crate::proxy::Proxy;
use crate::role::{Role, wait_for};
use crate::services::{Calm, Services, disturbed, services};
use crate::tables::{self, Row, Rows};

/// Real events: 33,960 of them, out of order, some late.
pub(crate) const FILE_EVENTS: u64 = 33_960;
/// After this many records a test disturbs a consumer: well after the start of the file and well before its end.
pub(crate) const SOME: f64 = 3_000.0;
/// Differences in the message of a failing comparison.
const SHOWN_MAX: usize = 5;

/// Settings with which the group notices a dead consumer soon.
pub(crate) const SOON: [&str; 4] = [
    "--kafka-property",
    "session.timeout.ms=4000",
    "--kafka-property",
    "heartbeat.interval.ms=500",
];

pub(crate) struct World {
    pub(crate) services: &'static Services,
    /// The name of the topic and the group, and the prefix of the tables.
    pub(crate) name: &'static str,
    begin: Instant,
    _calm: Calm,
}

impl Drop for World {
    fn drop(&mut self) {
        eprintln!("{}: {:.1} s", self.name, self.begin.elapsed().as_secs_f64());
    }
}

pub(crate) fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/city-events-2013-01.ndjson.gz")
}

/// Returns the lines of the file.
pub(crate) fn file_lines() -> Vec<String> {
    let mut text = String::new();
    let packed = std::fs::File::open(file()).unwrap();
    let mut unpacked = flate2::read::MultiGzDecoder::new(packed);
    unpacked.read_to_string(&mut text).unwrap();
    text.lines().map(str::to_owned).collect()
}

impl World {
    /// Returns a world that shares the services with the worlds of other tests.
    pub(crate) fn new(name: &'static str) -> World {
        World::on(services(), name, false)
    }

    /// Returns a world on services that no undisturbed test uses, for a test that kills or pauses them. One test at a time has it.
    pub(crate) fn disturbing(name: &'static str) -> World {
        World::on(disturbed(), name, true)
    }

    /// Returns a world while no other test uses the shared services, for a test that keeps all processors busy.
    pub(crate) fn alone(name: &'static str) -> World {
        World::on(services(), name, true)
    }

    /// Returns a world on `services`, which need not be the suite's usual ones.
    pub(crate) fn on(services: &'static Services, name: &'static str, alone: bool) -> World {
        World {
            services,
            name,
            begin: Instant::now(),
            _calm: services.calm(alone),
        }
    }

    /// Starts a role with this world's names and `args`.
    pub(crate) fn start(&self, role: &str, args: &[&str]) -> Role {
        self.start_with(role, args, &[])
    }

    /// As [`World::start`], with more environment variables.
    pub(crate) fn start_with(&self, role: &str, args: &[&str], env: &[(&str, &str)]) -> Role {
        let line = self.line(role, args);
        let line: Vec<&str> = line.iter().map(|word| &**word).collect();
        Role::start(self.services, &line, env)
    }

    fn line(&self, role: &str, args: &[&str]) -> Vec<String> {
        let options: &[&str] = match role {
            "init-tables" => &["--topic", "--table-prefix", "--group"],
            "consume" | "verify" => &["--topic", "--table-prefix", "--group"],
            "notify" => &["--topic", "--table-prefix", "--notify-group"],
            "produce" | "tail" => &["--topic"],
            "serve" | "silence" => &["--table-prefix"],
            _ => panic!("no role {role}"),
        };
        let mut line = vec![role];
        for option in options.iter().filter(|option| !args.contains(option)) {
            line.extend([option, self.name]);
        }
        match role {
            "consume" | "produce" => line.extend(["--listen", "127.0.0.1:0"]),
            "serve" => line.extend(["--port", "0"]),
            _ => {}
        }
        line.extend(args);
        line.into_iter().map(str::to_owned).collect()
    }

    /// Starts a consumer that reaches DynamoDB through a proxy.
    pub(crate) fn consume_through(&self, proxy: &Proxy, args: &[&str]) -> Role {
        let soon = ["--row-interval", "20ms"];
        let line = self.line("consume", &[&SOON[..], &soon, args].concat());
        let line: Vec<&str> = line.iter().map(|word| &**word).collect();
        let env = [("AWS_ENDPOINT_URL_DYNAMODB", proxy.url())];
        Role::start(self.services, &line, &env)
    }

    /// Runs `verify` through a proxy.
    pub(crate) fn verify_through(&self, proxy: &Proxy) -> Role {
        let line = self.line("verify", &[]);
        let line: Vec<&str> = line.iter().map(|word| &**word).collect();
        let env = [("AWS_ENDPOINT_URL_DYNAMODB", proxy.url())];
        Role::start(self.services, &line, &env)
    }

    /// Creates tables and topics.
    pub(crate) fn init(&self) {
        self.start("init-tables", &[]).ends_with(0);
    }

    /// Sends the whole file.
    pub(crate) fn produce_file(&self) {
        let file = file();
        let args = ["--input", file.to_str().unwrap()];
        self.start("produce", &args).ends_with(0);
    }

    /// Sends some lines.
    pub(crate) fn produce(&self, lines: &[String]) {
        let folder = self.services.folder();
        let path = folder.join(format!("{}-{}.ndjson", self.name, lines.len()));
        std::fs::write(&path, lines.join("\n")).unwrap();
        let args = ["--input", path.to_str().unwrap()];
        self.start("produce", &args).ends_with(0);
    }

    /// Sends lines in pieces, one process each. Calls `between` before each piece except the first.
    pub(crate) fn produce_in_pieces(
        &self,
        lines: &[String],
        pieces: usize,
        mut between: impl FnMut(usize),
    ) -> usize {
        let mut sent = 0;
        for (n, piece) in lines.chunks(lines.len().div_ceil(pieces)).enumerate() {
            if n > 0 {
                between(n);
            }
            self.produce(piece);
            sent += piece.len();
        }
        sent
    }

    /// Starts a consumer whose death the group notices soon.
    pub(crate) fn consume(&self, args: &[&str]) -> Role {
        self.start("consume", &[&SOON[..], args].concat())
    }

    /// Consumes everything in the topic.
    pub(crate) fn consume_to_the_end(&self) {
        self.consume(&["--stop-at-end"]).ends_with(0);
    }

    /// Consumes everything in the topic; the requests to DynamoDB pass a proxy.
    pub(crate) fn consume_to_the_end_through(&self, proxy: &Proxy) {
        self.consume_through(proxy, &["--stop-at-end"]).ends_with(0);
    }

    pub(crate) fn send(&self, records: &[Record]) {
        log::send(self.services, self.name, records);
    }

    /// Compares the four tables with the fold over the log, with the oracle and with `verify`.
    ///
    /// First checks that DynamoDB Local's responses were consistent and that it holds what it confirmed, because its
    /// losses are not the program's. If the tables differ, the account of every request is saved.
    pub(crate) fn tables_are_exact_behind(&self, proxy: &Proxy) -> Expected {
        let account = proxy.account();
        observed::write(self, account);
        let wrong = account.wrong_answers();
        assert!(
            wrong.is_empty(),
            "DynamoDB Local answered wrongly: {wrong:?}"
        );
        let lost = account.lost_writes(&|table| {
            let suffix = table.strip_prefix(&format!("{}-", self.name));
            tables::scan(self.services, self.name, suffix.expect("a table of ours"))
        });
        assert!(lost.is_empty(), "DynamoDB Local lost writes: {lost:?}");
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let expected = self.tables_are_exact();
            self.start("verify", &[]).ends_with(0);
            expected
        }));
        compared.unwrap_or_else(|difference| {
            let path = std::env::temp_dir().join(format!("{}-account.ndjson", self.name));
            std::fs::write(&path, account.lines()).unwrap();
            eprintln!(
                "{}: DynamoDB Local's answers and tables agree; every request, its answer and what \
                 was handed on: {}",
                self.name,
                path.display()
            );
            std::panic::resume_unwind(difference)
        })
    }

    /// Compares the four tables with the fold over the log, row by row.
    pub(crate) fn tables_are_exact(&self) -> Expected {
        self.tables_hold(&[&self.log()])
    }

    /// Returns everything in the topic.
    pub(crate) fn log(&self) -> Vec<Record> {
        log::read(self.services, self.name)
    }

    /// Compares the four tables with the fold over successive logs.
    pub(crate) fn tables_hold(&self, logs: &[&[Record]]) -> Expected {
        let expected = oracle::fold(self.name, logs);
        let mut wrong = Vec::new();
        for (suffix, rows) in &expected.tables {
            let mut found = tables::counted(self.services, self.name, suffix);
            found.values_mut().for_each(|row| {
                row.entry("extra".to_owned()).and_modify(|text| {
                    // Compared as values, because the oracle formats JSON differently from the producer.
                    *text = serde_json::from_str::<Value>(text).unwrap().to_string();
                });
                row.retain(|name, value| name != "extra" || !value.is_empty());
            });
            let differences = differences(rows, &found);
            if !differences.is_empty() {
                wrong.push(format!(
                    "{}-{suffix} has {} rows, expected {}; {} differ:\n{}",
                    self.name,
                    found.len(),
                    rows.len(),
                    differences.len(),
                    differences[..differences.len().min(SHOWN_MAX)].join("\n")
                ));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(expected.sum("totals", "late_count"), expected.late);
        expected
    }

    /// Waits until the group has committed the end of every partition, while all `members` run. It is not enough that
    /// the totals hold all events: a killed member may leave window updates to its successor.
    pub(crate) fn is_caught_up(&self, members: &mut [Role]) {
        wait_for("the group to commit the end of every partition", || {
            for member in &mut *members {
                assert!(!member.has_ended(), "{}", member.err());
            }
            let done = (0..6).all(|partition| {
                let end = log::range(self.services, self.name, partition).1;
                let (next, _) = log::committed(self.services, self.name, self.name, partition);
                end == 0 || next == Some(end)
            });
            done.then_some(())
        });
    }

    /// Waits until a consumer has nothing left to do and the totals hold `all` events.
    pub(crate) fn has_counted(&self, consume: &mut Role, all: usize) {
        wait_for("all events to be counted", || {
            let idle = consume.metrics()["citystream_events_in_flight"] == 0.0;
            (idle && self.events_counted() == all).then_some(())
        });
    }

    /// Returns how many events the totals hold, late ones included.
    pub(crate) fn events_counted(&self) -> usize {
        let rows = tables::counted(self.services, self.name, "totals").into_values();
        let count = |row: &Row, name: &str| row[name].parse::<usize>().unwrap();
        rows.map(|row| count(&row, "event_count") + count(&row, "late_count"))
            .sum()
    }

    /// Returns how many rows a table has.
    pub(crate) fn count(&self, suffix: &str) -> usize {
        tables::counted(self.services, self.name, suffix).len()
    }
}

fn differences(expected: &Rows, found: &Rows) -> Vec<String> {
    let missing = expected
        .iter()
        .filter(|(key, row)| found.get(key) != Some(row));
    let mut out: Vec<String> = missing
        .map(|(key, row)| {
            format!(
                "{key:?}\n  expected {row:?}\n  found    {:?}",
                found.get(key)
            )
        })
        .collect();
    let surplus = found.iter().filter(|(key, _)| !expected.contains_key(key));
    out.extend(surplus.map(|(key, row)| format!("{key:?}\n  not expected: {row:?}")));
    out
}
