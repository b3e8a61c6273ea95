//! The services of the suite. The first test that needs them starts them, and a watchdog process stops them after the
//! suite.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use citystream::store::client::{ConnectOptions, connect};

use crate::role::WAIT_MAX;

/// When the suite closes its end of the pipe, the watchdog kills the roles that the suite left running, unmounts the
/// disks of its tests, then stops the services. It kills a process id only while that process still runs the program.
const WATCHDOG: &str = r#"
    while read -r pid; do pids="$pids $pid"; done
    for pid in $pids; do
        if [ "$(readlink "/proc/$pid/exe")" = "$2" ]; then kill -KILL "$pid"; fi
    done
    grep -o " $1/[^ ]*" /proc/mounts | while read -r disk; do umount -l "$disk"; done
    "$0" stop --dir "$1/services" 2>/dev/null
    rm -rf "$1"
"#;

pub(crate) struct Services {
    folder: PathBuf,
    exports: BTreeMap<String, String>,
    watchdog: Mutex<Child>,
    runtime: tokio::runtime::Runtime,
    dynamodb: aws_sdk_dynamodb::Client,
    /// A test that needs these services for itself holds this lock for writing, all other tests for reading.
    calm: RwLock<()>,
}

/// Keeps the services in the state that its owner needs.
pub(crate) enum Calm {
    Shared(#[allow(dead_code)] RwLockReadGuard<'static, ()>),
    Alone(#[allow(dead_code)] RwLockWriteGuard<'static, ()>),
}

/// Returns the services of the suite; the first call starts them.
pub(crate) fn services() -> &'static Services {
    static SERVICES: OnceLock<Services> = OnceLock::new();
    SERVICES.get_or_init(|| Services::start(&[]))
}

/// Returns services for tests that disturb them; the first call starts them. So other tests need not wait.
pub(crate) fn disturbed() -> &'static Services {
    static DISTURBED: OnceLock<Services> = OnceLock::new();
    DISTURBED.get_or_init(|| Services::start(&[]))
}

/// Returns services with three brokers; the first call starts them.
pub(crate) fn three_brokers() -> &'static Services {
    static THREE: OnceLock<Services> = OnceLock::new();
    THREE.get_or_init(|| Services::start(&["--brokers", "3", "--links"]))
}

/// Returns the version of Kafka that the variable `KAFKA` names, by default 4.1.1.
pub(crate) fn kafka_version() -> String {
    std::env::var("KAFKA").unwrap_or_else(|_| "4.1.1".to_owned())
}

/// Reports that a test is skipped. `SKIPPED_LOG` names a file that collects such lines.
pub(crate) fn skipped(what: &str) {
    let line = format!("SKIPPED: {what}\n");
    // Not through `eprintln!`, whose output the test harness may capture.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    if let Some(path) = std::env::var_os("SKIPPED_LOG") {
        let log = std::fs::OpenOptions::new().append(true).open(path);
        log.unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// Returns whether the brokers know the newer group protocol (KIP-848). Reports the test as skipped if not.
pub(crate) fn knows_new_protocol() -> bool {
    let knows = !kafka_version().starts_with('3');
    if !knows {
        skipped("a test of the newer group protocol (needs Kafka 4)");
    }
    knows
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/real-services")
}

impl Services {
    fn start(options: &[&str]) -> Services {
        let folder = tempfile::Builder::new()
            .prefix("citystream-real-")
            .tempdir()
            .unwrap()
            .keep();
        let mut watchdog = Command::new("sh");
        // A process group of its own, so that Ctrl-C ends the suite but not the watchdog.
        let watchdog = watchdog
            .args(["-c", WATCHDOG])
            .arg(script())
            .arg(&folder)
            .arg(crate::role::binary())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let output = Command::new(script())
            .args(["start", "--secure", "--kafka", &kafka_version(), "--dir"])
            .arg(folder.join("services"))
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "real-services did not start");
        let exports = String::from_utf8(output.stdout).unwrap();
        let exports = exports.lines().filter_map(|line| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        });
        let exports: BTreeMap<String, String> = exports.collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let connecting = connect(ConnectOptions {
            endpoint_url: Some(exports["AWS_ENDPOINT_URL_DYNAMODB"].clone()),
            test_credentials: true,
            ..ConnectOptions::default()
        });
        Services {
            dynamodb: runtime.block_on(connecting).unwrap(),
            runtime,
            exports,
            folder,
            watchdog: Mutex::new(watchdog),
            calm: RwLock::new(()),
        }
    }

    /// Waits until no test has these services for itself. With `alone`, waits until no other test uses them.
    pub(crate) fn calm(&'static self, alone: bool) -> Calm {
        // A test that failed leaves the services usable.
        if alone {
            Calm::Alone(self.calm.write().unwrap_or_else(PoisonError::into_inner))
        } else {
            Calm::Shared(self.calm.read().unwrap_or_else(PoisonError::into_inner))
        }
    }

    /// Returns the environment variables of a role.
    pub(crate) fn exports(&self) -> impl Iterator<Item = (&str, &str)> {
        self.exports.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Returns the value of one of these variables.
    pub(crate) fn export(&self, name: &str) -> &str {
        &self.exports[name]
    }

    pub(crate) fn brokers(&self) -> &str {
        &self.exports["KAFKA_BOOTSTRAP_SERVERS"]
    }

    pub(crate) fn dynamodb_url(&self) -> &str {
        &self.exports["AWS_ENDPOINT_URL_DYNAMODB"]
    }

    pub(crate) fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        self.dynamodb.clone()
    }

    /// Waits for a response, at most as long as a test may wait for anything.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let waited = async { tokio::time::timeout(WAIT_MAX, future).await };
        self.runtime.block_on(waited).expect("an answer in time")
    }

    /// Returns a folder for the suite's files. It is removed with the services.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes the watchdog end a process if its test does not.
    pub(crate) fn watch(&self, pid: u32) {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(watchdog.stdin.as_mut().unwrap(), "{pid}").unwrap();
    }

    /// Runs one of Kafka's own command-line tools and returns what it printed.
    pub(crate) fn tool(&self, class: &str, args: &[&str]) -> String {
        let output = Command::new(script())
            .arg("tool")
            .arg("--dir")
            .arg(self.folder.join("services"))
            .arg(class)
            .args(["--bootstrap-server", self.brokers()])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{class} {args:?}\n{out}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        out
    }

    /// Stops, kills or starts a broker. `how` is the script's command.
    pub(crate) fn broker(&self, how: &str, node: &str) {
        self.script(&[how, node]);
    }

    /// Returns whether a broker runs.
    pub(crate) fn broker_runs(&self, node: &str) -> bool {
        let pid = self.broker_pid(node).unwrap_or_default();
        let line = std::fs::read(Path::new("/proc").join(pid).join("cmdline"));
        // A process that has ended has no command line, even if nothing has asked for its exit code.
        line.is_ok_and(|line| !line.is_empty())
    }

    /// Returns the process id with which a broker was started last.
    fn broker_pid(&self, node: &str) -> Option<String> {
        let path = self
            .folder
            .join("services/pids")
            .join(format!("kafka-{node}"));
        let text = std::fs::read_to_string(path).ok()?;
        text.split_whitespace().next().map(str::to_owned)
    }

    /// Freezes DynamoDB until the returned value is dropped.
    pub(crate) fn pause_dynamodb(&'static self) -> Paused {
        self.script(&["pause", "dynamodb"]);
        Paused(self)
    }

    /// Lets a broker run for a tenth of the time until the returned value is dropped.
    pub(crate) fn slow_broker(&self, node: &str) -> Slowed {
        let pid = self.broker_pid(node).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let signal = move |name: &str| {
            let status = Command::new("kill").args(["-s", name, &pid]).status();
            assert!(status.unwrap().success(), "kill -s {name} {pid}");
        };
        let slowing = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                signal("STOP");
                std::thread::sleep(9 * SLOW_SLICE);
                signal("CONT");
                std::thread::sleep(SLOW_SLICE);
            }
        });
        Slowed {
            over,
            slowing: Some(slowing),
        }
    }

    fn script(&self, args: &[&str]) {
        let status = Command::new(script())
            .args(args)
            .arg("--dir")
            .arg(self.folder.join("services"))
            .status();
        assert!(status.unwrap().success(), "{args:?}");
    }
}

/// How long a slowed broker runs at a time.
const SLOW_SLICE: Duration = Duration::from_millis(20);

pub(crate) struct Slowed {
    over: Arc<AtomicBool>,
    slowing: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(slowing) = self.slowing.take() {
            slowing.join().unwrap();
        }
    }
}

pub(crate) struct Paused(&'static Services);

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.script(&["resume", "dynamodb"]);
    }
}
