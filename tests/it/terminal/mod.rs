//! Tests of programs on a terminal: the live screen of `tail` in three widths, how it ends, and the progress of
//! `produce`.
//!
//! A shell runs in a pseudo-terminal, and an emulator computes the picture. The shell prints the settings of the
//! terminal before and after a program, so a test sees whether the program restored them. `tests/golden/tail` holds
//! the pictures; `UPDATE_GOLDEN=1 cargo test --test it terminal` records them again.

mod shell;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use citystream::tail::terminal::FullScreen;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use vt100::Screen;

use crate::letters::send_letters;
use crate::process::{Start as _, broker_down};
use shell::{AFTER, Terminal};

const TOPIC: &str = "city-events";
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Real events that a test shows: the first days of January 2013.
const EVENTS: usize = 3_000;

type Broker = MockCluster<'static, DefaultProducerContext>;

/// Starts a broker with a topic of one partition, so that its records have one order.
fn broker() -> Broker {
    let broker = MockCluster::new(1).unwrap();
    broker.create_topic(TOPIC, 1, 1).unwrap();
    broker
}

fn produce(broker: &Broker, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citystream"));
    command
        .args(["produce", "--listen", "127.0.0.1:0"])
        .args(args)
        .env_clear()
        .env("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// A producer that is killed at the end of the test.
struct Flood(Child);

impl Drop for Flood {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Sends the first events of the real data.
fn send_real_events(broker: &Broker) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/city-events-2013-01.ndjson.gz");
    let mut text = String::new();
    let mut file = flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap());
    file.read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text.lines().take(EVENTS).collect();
    let mut child = produce(broker, &["--input", "-"])
        .stdin(Stdio::piped())
        .start()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(lines.join("\n").as_bytes()).unwrap();
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_live_screen_in_three_widths_on_real_events() {
    let broker = broker();
    send_real_events(&broker);
    let terminal = Terminal::open(80, 24, &broker.bootstrap_servers(), &[]);
    terminal.tail("--from beginning");
    terminal.wait_for("3,000 events");
    terminal.type_keys("w");
    terminal.looks_right_in_three_widths("real");
    terminal.resize(80, 30);
    terminal.type_keys("q");
    let shown = terminal.left(0);
    assert!(shown.contains("NYC      weather"), "{shown}");
    let sum = shown.lines().find(|line| line.starts_with("all "));
    assert!(sum.unwrap().contains(" 3000 "), "{shown}");
}

#[test]
fn the_live_screen_shows_rejected_records() {
    let broker = broker();
    send_letters(&broker);
    let terminal = Terminal::open(80, 24, &broker.bootstrap_servers(), &[]);
    terminal.tail("--dlq --from beginning");
    terminal.wait_for("5 rejected records");
    terminal.looks_right_in_three_widths("dlq-real");
    terminal.resize(80, 30);
    // One record in full, found by its text.
    terminal.type_keys("/nyc\r");
    terminal.wait_for("among the last 5");
    terminal.type_keys("\r");
    terminal.wait_for("rejected record 5");
    terminal.wait_for("header    reason: its own");
    terminal.wait_for(r#"{"city":"NYC""#);
    terminal.type_keys("\u{1b}");
    terminal.wait("the list", |screen| {
        !screen.contents().contains("rejected record 5")
    });
    terminal.type_keys("e");
    terminal.wait_for("wrote citystream-tail-");
    terminal.type_keys("q");
    let shown = terminal.left(0);
    assert!(shown.contains("not_json                2"), "{shown}");
    let file = std::fs::read_dir(terminal.folder.path()).unwrap().next();
    let text = std::fs::read_to_string(file.unwrap().unwrap().path()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&value["rejected"], &value["filter"]),
        (&5.into(), &"nyc".into())
    );
    assert_eq!(value["records"].as_array().unwrap().len(), 1);
    assert_eq!(value["records"][0]["reason"], "refused_by_table");

    // Without a live screen, each record is a line.
    let terminal = Terminal::open(120, 24, &broker.bootstrap_servers(), &[("TERM", "dumb")]);
    terminal.tail("--dlq --from beginning -n 1");
    let shown = terminal.left(0);
    assert!(
        shown.contains("2013-01-01T06:00:00.000Z  not_json"),
        "{shown}"
    );
}

#[test]
fn the_terminal_is_restored_on_q_ctrl_c_and_sigterm() {
    let broker = broker();
    for leave in ["q", "\u{3}", "TERM", "INT"] {
        let terminal = Terminal::open(80, 24, &broker.bootstrap_servers(), &[]);
        terminal.tail("");
        terminal.wait_for("live");
        match leave {
            "TERM" | "INT" => terminal.signal(leave),
            key => terminal.type_keys(key),
        }
        let shown = terminal.left(0);
        assert!(shown.contains("city  type  low"), "{leave:?} {shown}");
    }
}

#[test]
fn an_absent_broker_is_shown_and_q_works_until_it_is_back() {
    let broker = broker();
    let terminal = Terminal::open(80, 24, &broker.bootstrap_servers(), &[]);
    terminal.tail("");
    terminal.wait_for("● live");
    broker_down(&broker, 1);
    terminal.wait_for("◌ no broker answers");
    broker.broker_up(1).unwrap();
    terminal.wait_for("● live");
    broker_down(&broker, 1);
    terminal.wait_for("◌ no broker answers");
    terminal.type_keys("q");
    let begun = Instant::now();
    let shown = terminal.left(0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{shown}");

    // The broker may also be absent at the start. The log lines appear after the screen has closed.
    let terminal = Terminal::open(120, 24, "127.0.0.1:9", &[]);
    terminal.tail("");
    terminal.wait_for("◌ no broker answers");
    terminal.wait_for("check --brokers");
    terminal.type_keys("\u{3}");
    terminal.left(0);
}

#[test]
fn ctrl_z_suspends_tail_and_fg_resumes_it() {
    let broker = broker();
    send_real_events(&broker);
    let terminal = Terminal::open(80, 24, &broker.bootstrap_servers(), &[]);
    terminal.type_keys("before=$(stty -g)\n");
    terminal.type_keys("\"$cs\" tail --from beginning\n");
    for stop in ["key", "signal"] {
        terminal.wait_for("3,000 events");
        match stop {
            "key" => terminal.type_keys("\u{1a}"),
            _ => terminal.signal("TSTP"),
        }
        terminal.wait("the shell", |screen| {
            !screen.alternate_screen() && screen.contents().contains("Stopped")
        });
        assert!(!terminal.look(Screen::hide_cursor));
        terminal.type_keys("clear\n");
        terminal.wait("a clear screen", |screen| {
            !screen.contents().contains("Stopped")
        });
        terminal.type_keys("fg\n");
    }
    terminal.wait_for("3,000 events");
    // It reacts to keys as before.
    terminal.type_keys("?");
    terminal.wait_for("freeze or continue");
    terminal.type_keys("xq");
    terminal.wait("the end", |screen| !screen.alternate_screen());
    terminal.type_keys(&format!("{AFTER}\n"));
    terminal.left(0);
}

/// The program that [`the_terminal_is_restored_on_a_panic`] runs in a terminal. Alone, it does nothing.
#[test]
fn a_screen_that_panics() {
    let Some(thread) = std::env::var_os("PANICS") else {
        return;
    };
    let mut screen = FullScreen::enter("a test").unwrap();
    screen
        .draw(|buf| {
            buf.set_string(0, 0, "something", ratatui::style::Style::new());
            None
        })
        .unwrap();
    if thread == "drawing" {
        panic!("the drawing thread panics");
    }
    let other = std::thread::spawn(|| panic!("another thread panics"));
    assert!(other.join().is_err());
    screen.draw(|_| None).unwrap();
}

#[test]
fn the_terminal_is_restored_on_a_panic() {
    for (thread, code) in [("drawing", 101), ("another", 0)] {
        let terminal = Terminal::open(100, 40, "127.0.0.1:9", &[("PANICS", thread)]);
        terminal.run("\"$me\" --exact terminal::a_screen_that_panics --nocapture");
        let shown = terminal.left(code);
        let told = format!("{thread} thread panics");
        assert_eq!(shown.matches(&told).count(), 1, "{shown}");
        let bytes = terminal.bytes.lock().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (_, after) = text.rsplit_once("\u{1b}[?1049l").unwrap();
        assert!(after.contains(&told), "told after the terminal was back");
    }
}

#[test]
fn a_dumb_terminal_gets_plain_lines() {
    let broker = broker();
    send_real_events(&broker);
    let servers = broker.bootstrap_servers();
    for (columns, row) in [(80, "NYC      traffic"), (40, "NYC     traffic")] {
        let terminal = Terminal::open(columns, 30, &servers, &[("TERM", "dumb")]);
        terminal.tail("--from beginning --exit-at-end");
        let shown = terminal.left(0);
        assert!(shown.contains(row), "{shown}");
        let sum = shown.lines().find(|line| line.starts_with("all "));
        assert!(sum.unwrap().contains(" 3000"), "{shown}");
        let bytes = terminal.bytes.lock().unwrap();
        assert!(!bytes.contains(&0x1b), "no escape codes");
    }
}

#[test]
fn no_color_keeps_the_live_screen_without_colours() {
    let broker = broker();
    send_real_events(&broker);
    for (no_color, coloured) in [("", true), ("1", false)] {
        let servers = broker.bootstrap_servers();
        let terminal = Terminal::open(80, 24, &servers, &[("NO_COLOR", no_color)]);
        terminal.tail("--from beginning");
        terminal.wait_for("live");
        terminal.wait_for("NYC");
        terminal.type_keys("q");
        terminal.left(0);
        let bytes = terminal.bytes.lock().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // Colours are 30 to 37 and 90 to 97, and 38 with parameters.
        let codes = text
            .split("\u{1b}[")
            .skip(1)
            .filter_map(|part| part.split_once('m'));
        let colour = |codes: &str| {
            let mut codes = codes.split(';').filter_map(|code| code.parse::<u8>().ok());
            codes.any(|code| matches!(code, 30..=38 | 40..=48 | 90..=107))
        };
        let found = codes
            .filter(|(codes, _)| codes.bytes().all(|b| b.is_ascii_digit() || b == b';'))
            .any(|(codes, _)| colour(codes));
        assert_eq!(found, coloured, "NO_COLOR={no_color}");
    }
}

#[test]
fn produce_shows_its_progress_on_one_line_and_a_summary_at_the_end() {
    let broker = broker();
    for (width, leave) in [(80, ""), (40, "\u{3}")] {
        let terminal = Terminal::open(width, 24, &broker.bootstrap_servers(), &[]);
        let count = if leave.is_empty() { 200 } else { 100_000 };
        terminal.run(&format!(
            "clear; \"$cs\" produce --listen 127.0.0.1:0 --rate 100/s --count {count}"
        ));
        let progress = |screen: &Screen| {
            let text = screen.contents();
            let lines = text.lines().filter(|line| line.contains("/200 "));
            let lines = lines.chain(text.lines().filter(|line| line.contains("/100,000 ")));
            lines.map(str::to_owned).collect::<Vec<String>>()
        };
        terminal.wait("progress", |screen| {
            let lines = progress(screen);
            assert!(lines.len() <= 1, "{lines:?}");
            let moves = |line: &String| !line.starts_with("0/") && !line.contains(" 0/");
            lines
                .iter()
                .any(|line| moves(line) && line.contains(" eta "))
        });
        terminal.type_keys(leave);
        // A run that is stopped before its last event fails.
        let shown = terminal.left(i32::from(!leave.is_empty()));
        assert!(shown.contains("sent "), "{shown}");
        // The echo of Ctrl-C moves the last picture up.
        if leave.is_empty() {
            assert_eq!(terminal.look(progress), [""; 0], "the line is gone");
        }
    }
}

#[test]
fn the_progress_of_a_file_shows_acknowledged_and_total_events() {
    let broker = broker();
    for (options, total) in [
        ("--rate 100/s", 400),
        ("--rate 50/s --count 150", 150),
        // The first day has 400 events in about 9 hours, so this takes some seconds.
        ("--speed 5000x", 400),
    ] {
        let terminal = Terminal::open(100, 24, &broker.bootstrap_servers(), &[]);
        let lines = crate::world::data_lines(400).join("\n");
        std::fs::write(terminal.folder.path().join("events.ndjson"), lines).unwrap();
        terminal.run(&format!(
            "clear; \"$cs\" produce --listen 127.0.0.1:0 --input events.ndjson {options}"
        ));
        let of_total = format!("/{total} ");
        terminal.wait("progress", |screen| {
            let text = screen.contents();
            let line = text.lines().find(|line| line.contains(&of_total));
            line.is_some_and(|line| {
                let done = line.split(&of_total).next().unwrap_or_default();
                let done = done.rsplit(' ').next().unwrap_or_default();
                let done: u64 = done.replace(',', "").parse().unwrap_or(0);
                let eta = line.rsplit_once("eta ").map_or("", |(_, eta)| eta.trim());
                (1..total).contains(&done) && eta.ends_with('s') && eta != "0s"
            })
        });
        let shown = terminal.left(0);
        assert!(
            shown.contains(&format!("sent {total}, bad 0")),
            "{options} {shown}"
        );
    }
}

#[test]
fn a_flood_is_drawn_at_most_ten_times_a_second_and_keys_work_meanwhile() {
    let broker = broker();
    let terminal = Terminal::open(80, 24, &broker.bootstrap_servers(), &[]);
    terminal.tail("");
    terminal.wait_for("● live");
    // The mock broker keeps 5 MB a partition. At full speed that is less than a tenth of a second, and a reader that
    // is late on a busy machine would never find its offset.
    let flood = Flood(produce(&broker, &["--rate", "30000/s"]).start().unwrap());
    let frames = || {
        let bytes = terminal.bytes.lock().unwrap();
        // Each picture ends by hiding the cursor again.
        bytes.windows(6).filter(|w| w == b"\x1b[?25l").count()
    };
    let (begun, before) = (Instant::now(), frames());
    terminal.wait("many events", |screen| {
        let text = screen.contents();
        let line = text.lines().nth(1).unwrap_or_default();
        let events: String = line.chars().take_while(|c| *c != ' ').collect();
        events.replace(',', "").parse::<u64>().unwrap_or(0) > 30_000
    });
    let drawn = frames() - before;
    let most = begun.elapsed().as_millis() / 100 + 2;
    assert!(u128::try_from(drawn).unwrap() <= most, "{drawn} of {most}");
    assert!(drawn > 0, "pictures are told by how they end");
    // A filter, a record and an export work while events arrive at full speed.
    terminal.type_keys("/nyc\r");
    terminal.wait_for("“nyc”");
    terminal.type_keys("\r");
    terminal.wait_for("event id");
    terminal.type_keys("\u{1b}");
    terminal.wait("no record", |screen| {
        !screen.contents().contains("event id")
    });
    terminal.type_keys("e");
    terminal.wait_for("wrote citystream-tail-");
    terminal.type_keys("q");
    drop(flood);
    terminal.left(0);
    let folder = std::fs::read_dir(terminal.folder.path()).unwrap();
    let files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    let text = std::fs::read_to_string(&files[0]).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["filter"], "nyc");
    assert_eq!(value["totals"][0]["city"], "NYC");
}
