//! Options of `citystream notify`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use url::Url;

use super::tail::{StartFrom, parse_from};
use super::values::{parse_address, parse_host, parse_text};
use super::{KafkaArgs, LogArgs, TableArgs};

/// The format in which `notify --dry-run` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NotifyOutput {
    /// One line per message.
    Text,
    /// The body of each message as one JSON object.
    Json,
}

/// The options of `citystream notify`.
#[allow(missing_docs)]
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  citystream notify --config notify.toml --dry-run --from -7d --exit-at-end\n  citystream notify --config notify.toml --test ops\n  citystream notify --config notify.toml"
)]
pub struct Notify {
    /// File with the rules and the receivers, in TOML
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/citystream/notify.toml"
    )]
    pub config: PathBuf,

    /// Print the messages that would be sent, without sending them; needs no table, and uses the default
    /// window, lateness and clock skew
    #[arg(long)]
    pub dry_run: bool,

    /// Send one test message to this receiver, and exit
    #[arg(
        long,
        value_name = "RECEIVER",
        conflicts_with_all = ["dry_run", "exit_at_end", "output"],
        value_parser = parse_text
    )]
    pub test: Option<String>,

    /// Where to start: end, beginning, a time before now such as -7d, a date (UTC) or RFC 3339; without
    /// --dry-run, end or beginning, and only if the table has no checkpoint
    #[arg(
        long,
        default_value = "end",
        default_value_if("exit_at_end", "true", "beginning"),
        value_name = "START",
        allow_hyphen_values = true,
        value_parser = parse_from
    )]
    pub from: StartFrom,

    /// With --dry-run: read everything that is in the topic now, from the beginning or from --from, then exit
    #[arg(long, requires = "dry_run")]
    pub exit_at_end: bool,

    /// With --dry-run: how to print
    #[arg(
        long,
        value_name = "FORMAT",
        value_enum,
        default_value_t = NotifyOutput::Text,
        requires = "dry_run"
    )]
    pub output: NotifyOutput,

    /// Base URL of the page for the links in messages, without a path
    #[arg(long, value_name = "URL", value_parser = parse_link)]
    pub link: Option<String>,

    /// Address for health and metrics; port 0 picks a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8085", value_parser = parse_address)]
    pub listen: SocketAddr,

    /// Host name that requests to --listen may use in addition to localhost and IP addresses; can be
    /// repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = parse_host)]
    pub allowed_host: Vec<String>,

    /// Consumer group of the instances that share the work
    #[arg(long, value_name = "NAME", default_value = "citystream-notify", value_parser = parse_text)]
    pub notify_group: String,

    #[command(flatten)]
    pub kafka: KafkaArgs,
    #[command(flatten)]
    pub tables: TableArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Parses the base URL of the page, which has no path and no login. The URL is returned without a slash at its end.
fn parse_link(text: &str) -> Result<String, String> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let base = url.and_then(|url| {
        let base = url.origin().ascii_serialization();
        (url.as_str().strip_suffix('/') == Some(&*base)).then_some(base)
    });
    base.ok_or_else(|| "expected a URL without a path, such as https://city.example".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::settings::{Cli, Command};

    fn parse(options: &str) -> Result<Notify, String> {
        let line = format!("citystream notify {options}");
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|e| {
            assert_eq!(e.exit_code(), 2, "{line}");
            e.to_string()
        })?;
        match cli.command {
            Command::Notify(args) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn output_is_refused_without_a_dry_run() {
        assert_eq!(parse("").unwrap().output, NotifyOutput::Text);
        let dry = parse("--dry-run --output json").unwrap();
        assert_eq!(dry.output, NotifyOutput::Json);
        for (options, word) in [
            ("--output json", "--dry-run"),
            ("--output text", "--dry-run"),
            ("--exit-at-end", "--dry-run"),
            ("--test ops --output json", "--output"),
            ("--test ops --exit-at-end", "--exit-at-end"),
            ("--test ops --dry-run", "--dry-run"),
        ] {
            let error = parse(options).unwrap_err();
            assert!(error.contains(word), "{options}: {error}");
        }
    }

    #[test]
    fn exit_at_end_begins_at_the_beginning_unless_from_is_given() {
        for (options, from) in [
            ("", StartFrom::End),
            ("--dry-run", StartFrom::End),
            ("--dry-run --exit-at-end", StartFrom::Beginning),
            ("--dry-run --exit-at-end --from end", StartFrom::End),
            ("--from -1s --exit-at-end --dry-run", StartFrom::Ago(1_000)),
        ] {
            assert_eq!(parse(options).unwrap().from, from, "{options}");
        }
    }

    #[test]
    fn a_link_is_a_url_without_a_path() {
        for link in [
            "https://city.example",
            "http://127.0.0.1:8081",
            "http://[::1]:8081",
        ] {
            for slash in ["", "/"] {
                let args = parse(&format!("--link {link}{slash}")).unwrap();
                assert_eq!(args.link.as_deref(), Some(link));
            }
        }
        for link in [
            "city.example",
            "ftp://city.example",
            "https://",
            "https://city.example/page",
            "https://city.example?city=NYC",
            "https://city.example#top",
            "https://user:password@city.example",
            "javascript:alert(1)",
        ] {
            let error = parse(&format!("--link {link}")).unwrap_err();
            assert!(error.contains("such as https://"), "{link}: {error}");
        }
    }
}
