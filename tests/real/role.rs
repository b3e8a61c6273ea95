//! A role as a process: its end, its signals and its HTTP responses.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::services::Services;

/// The longest wait for a state. It only bounds a failing run and asserts nothing about speed.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` returns something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < WAIT_MAX, "waited in vain for {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Signals by their names in `kill`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Term,
    Kill,
    Stop,
    Cont,
}

pub(crate) struct Role {
    child: Child,
    name: String,
    out: PathBuf,
    err: PathBuf,
    url: Option<String>,
}

/// Returns the last lines of a role: what failed, why, and what to do, one line each.
pub(crate) fn last_words(err: &str) -> &str {
    let begin = err.rfind("citystream: ").expect("it says why it ends");
    &err[begin..]
}

/// Returns the program: `BINARY`, or the one that was built with the tests.
pub(crate) fn binary() -> PathBuf {
    let given = std::env::var_os("BINARY").map(PathBuf::from);
    given.unwrap_or_else(|| env!("CARGO_BIN_EXE_citystream").into())
}

impl Role {
    pub(crate) fn start(services: &Services, args: &[&str], env: &[(&str, &str)]) -> Role {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", args[0]);
        let out = services.folder().join(format!("{name}.out"));
        let err = services.folder().join(format!("{name}.err"));
        let child = Command::new(binary())
            .args(args)
            .env_clear()
            .envs(services.exports())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap();
        services.watch(child.id());
        Role {
            child,
            name,
            out,
            err,
            url: None,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn out(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    pub(crate) fn err(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    /// Waits for the end and returns the exit code, or `None` if a signal ended the process.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let what = format!("{} to end", self.name);
        wait_for(&what, || self.child.try_wait().unwrap()).code()
    }

    /// Waits for the end, which must come with `code`.
    pub(crate) fn ends_with(&mut self, code: i32) {
        let ended = self.end();
        assert_eq!(ended, Some(code), "{}\n{}", self.name, self.err_tail());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let name = match signal {
            Signal::Term => "TERM",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
        };
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success(), "kill -s {name} {}", self.name);
    }

    /// Sends SIGTERM. Returns the exit code and the time until the end.
    pub(crate) fn terminate(&mut self) -> (Option<i32>, Duration) {
        let begin = Instant::now();
        self.signal(Signal::Term);
        (self.end(), begin.elapsed())
    }

    /// Kills the process and waits for its end.
    pub(crate) fn kill(mut self) {
        self.signal(Signal::Kill);
        assert_eq!(self.end(), None, "{} had ended before", self.name);
    }

    /// Waits for the address that the role prints, and returns it.
    pub(crate) fn url(&mut self) -> String {
        if let Some(url) = &self.url {
            return url.clone();
        }
        let what = format!("the address of {}", self.name);
        let url = wait_for(&what, || {
            assert!(
                !self.has_ended(),
                "{} ended\n{}",
                self.name,
                self.err_tail()
            );
            let out = self.out();
            let line = out.split_inclusive('\n').find(|l| l.ends_with('\n'))?;
            Some(line.trim().split_once(": http://")?.1.to_owned())
        });
        self.url = Some(url.clone());
        url
    }

    /// Returns status and body of `GET path`, or `None` if nothing answers.
    pub(crate) fn get(&mut self, path: &str) -> Option<(u16, String)> {
        let address = self.url();
        let mut stream = TcpStream::connect(&address).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// Returns the metrics without labels; those with labels are summed. Asserts that every record is in exactly one
    /// column of the consumer's ledger (INV-7).
    pub(crate) fn metrics(&mut self) -> BTreeMap<String, f64> {
        let (_, text) = wait_for("metrics", || self.get("/metrics"));
        let mut metrics: BTreeMap<String, f64> = BTreeMap::new();
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.split('{').next().unwrap();
            *metrics.entry(name.to_owned()).or_default() += value.parse::<f64>().unwrap();
        }
        let of = |name: &str| metrics.get(&format!("citystream_{name}")).copied();
        let columns = [
            "events_counted_total",
            "events_late_total",
            "events_rejected_total",
            "events_already_counted_total",
            "heartbeats_total",
            "events_given_up_total",
            "events_in_flight",
        ];
        let sum: f64 = columns.iter().filter_map(|name| of(name)).sum();
        assert_eq!(of("events_consumed_total"), Some(sum), "INV-7\n{text}");
        metrics
    }

    /// Returns how many records this process has settled so far.
    pub(crate) fn settled(&mut self) -> f64 {
        let metrics = self.metrics();
        metrics["citystream_events_consumed_total"] - metrics["citystream_events_in_flight"]
    }

    /// Waits until at least `count` records are settled.
    pub(crate) fn has_settled(&mut self, count: f64) -> f64 {
        let what = format!("{} to settle {count} records", self.name);
        wait_for(&what, || Some(self.settled()).filter(|n| *n >= count))
    }

    /// Waits until `/readyz` has `status` and a text with `words`.
    pub(crate) fn is_ready(&mut self, status: u16, words: &str) {
        let mut last = None;
        let what = format!("{} to be {status} {words}", self.name);
        wait_for(&what, || {
            assert!(
                !self.has_ended(),
                "{} ended\n{}",
                self.name,
                self.err_tail()
            );
            let answer = self.get("/readyz")?;
            if last.as_ref() != Some(&answer) {
                last = Some(answer.clone());
            }
            (answer.0 == status && answer.1.contains(words)).then_some(())
        });
    }

    fn err_tail(&self) -> String {
        let err = self.err();
        let lines: Vec<&str> = err.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        if std::thread::panicking() {
            let text = format!("--- end of {}'s log\n{}\n", self.name, self.err_tail());
            std::io::stderr().write_all(text.as_bytes()).unwrap();
        }
    }
}
