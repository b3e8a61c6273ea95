//! The services, and what a measurement needs in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::process::{Server, program, run};
use crate::text::Events;

/// The default number of partitions of a topic.
const PARTITIONS: u32 = 6;

/// Kafka, DynamoDB Local and a folder for one run. Dropping this value ends all of them.
pub(crate) struct World {
    exports: BTreeMap<String, String>,
    folder: PathBuf,
}

/// A topic full of events, and their number.
pub(crate) struct Log {
    pub(crate) topic: String,
    pub(crate) count: u64,
}

/// The events of a log.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) count: u64,
    pub(crate) cities: u32,
    pub(crate) bytes: usize,
    /// Event time between two events, in µs.
    pub(crate) step_us: i64,
    pub(crate) partitions: u32,
}

impl Shape {
    /// Six cities, 163 bytes, one instant.
    pub(crate) fn plain(count: u64) -> Shape {
        Shape {
            count,
            cities: 6,
            bytes: 163,
            step_us: 0,
            partitions: PARTITIONS,
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/real-services")
}

impl World {
    /// Starts the services.
    pub(crate) fn start() -> anyhow::Result<World> {
        let folder = std::env::temp_dir().join(format!("citystream-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut world = World {
            exports: BTreeMap::new(),
            folder,
        };
        let output = Command::new(script())
            .args(["start", "--dir"])
            .arg(world.folder.join("services"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()?;
        if !output.status.success() {
            bail!("real-services did not start: {}", output.status);
        }
        for line in String::from_utf8(output.stdout)?.lines() {
            if let Some((name, value)) =
                line.strip_prefix("export ").and_then(|l| l.split_once('='))
            {
                let value = value.trim_matches('\'').to_owned();
                world.exports.insert(name.to_owned(), value);
            }
        }
        Ok(world)
    }

    fn export(&self, name: &str) -> &str {
        self.exports.get(name).map_or("", String::as_str)
    }

    pub(crate) fn brokers(&self) -> &str {
        self.export("KAFKA_BOOTSTRAP_SERVERS")
    }

    pub(crate) fn local(&self) -> &str {
        self.export("AWS_ENDPOINT_URL_DYNAMODB")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the product, as a user starts it.
    pub(crate) fn citystream(&self, role: &str) -> Command {
        let mut command = Command::new(program());
        command
            .arg(role)
            .envs(&self.exports)
            .env("RUST_LOG", "warn");
        command
    }

    /// Returns this program in another role.
    pub(crate) fn part(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args);
        Ok(command)
    }

    /// Starts a stub that answers each write after a delay.
    pub(crate) fn sink(&self, delay_ms: u64) -> anyhow::Result<Server> {
        let delay = delay_ms.to_string();
        Server::start(&mut self.part(&["sink", self.local(), "--delay-ms", &delay])?)
    }

    /// Creates tables and topic.
    pub(crate) fn init(&self, prefix: &str, topic: &str, more: &[&str]) -> anyhow::Result<()> {
        let mut command = self.citystream("init-tables");
        command
            .args(["--table-prefix", prefix, "--topic", topic])
            .args(more);
        run(&mut command).map(drop)
    }

    /// Creates a topic and fills it.
    pub(crate) fn log(&self, topic: &str, shape: Shape) -> anyhow::Result<Log> {
        let partitions = shape.partitions.to_string();
        self.init(
            &format!("{topic}-made"),
            topic,
            &["--partitions", &partitions],
        )?;
        let file = self.file("events.ndjson");
        let start = citystream::telemetry::unix_ms().0 - 5 * 3_600_000;
        // Starts at the beginning of a window, so that events meant for one window are in one window.
        let start = start - start.rem_euclid(300_000);
        Events::new(shape.cities, shape.bytes, start, shape.step_us).write(shape.count, &file)?;
        self.produce(topic, &file)?;
        Ok(Log {
            topic: topic.to_owned(),
            count: shape.count,
        })
    }

    /// Sends the lines of a file.
    pub(crate) fn produce(&self, topic: &str, file: &Path) -> anyhow::Result<()> {
        let mut command = self.citystream("produce");
        command
            .args(["--listen", "127.0.0.1:0", "--topic", topic, "--input"])
            .arg(file);
        run(&mut command).map(drop)
    }

    /// Returns a consumer of a log into new tables at `endpoint`.
    pub(crate) fn consumer(&self, log: &Log, prefix: &str, endpoint: &str) -> Command {
        let mut command = self.citystream("consume");
        command
            .args(["--listen", "127.0.0.1:0", "--topic", &log.topic])
            .args(["--table-prefix", prefix, "--group", prefix])
            .env("AWS_ENDPOINT_URL_DYNAMODB", endpoint);
        command
    }

    /// Returns the result that a child of this program printed.
    pub(crate) fn found(&self, args: &[&str]) -> anyhow::Result<Found> {
        let text = run(&mut self.part(args)?)?;
        let value: serde_json::Value = serde_json::from_str(text.trim())?;
        let number = |name: &str| value[name].as_f64().context("a figure is missing");
        let (count, seconds, cpu) = (number("count")?, number("seconds")?, number("cpu")?);
        Ok(Found {
            rate: count / seconds,
            cpu_us: cpu * 1e6 / count,
        })
    }
}

/// The result of a ceiling.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) rate: f64,
    pub(crate) cpu_us: f64,
}

impl Drop for World {
    fn drop(&mut self) {
        let stop = Command::new(script())
            .args(["stop", "--dir"])
            .arg(self.folder.join("services"))
            .stderr(Stdio::null())
            .status();
        let gone = std::fs::remove_dir_all(&self.folder);
        if stop.is_err() || gone.is_err() {
            tracing::warn!("the services' folder is left behind");
        }
    }
}
