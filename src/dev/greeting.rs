//! The greeting that `dev` prints at its start, with its addresses and with commands to try.

use crate::dev::TOPIC;
use crate::dev::ports::Addresses;
use crate::settings::Dev;

/// Time from the first recorded event of January 2013 to the first recorded flight, in seconds of event time. Before
/// the first flight, the recording contains only three weather reports an hour.
const FIRST_FLIGHT_SECONDS: f64 = 15_420.0;

/// The example event in the greeting, which the user can send. The timestamp `now` stands for the time at which the
/// event arrives.
const OWN_EVENT: &str = r#"{"city":"NYC","event_type":"incident","severity":"critical","description":"Water main break","timestamp":"now"}"#;

/// Returns the shell command that starts this program. The command is the full path if the user started the program by
/// a path, and the program's name otherwise.
pub(crate) fn own_command() -> String {
    let command = std::env::args().next().unwrap_or_default();
    match std::env::current_exe() {
        Ok(path) if command.contains('/') => quote_for_shell(&path.to_string_lossy()),
        _ => command,
    }
}

/// Quotes a word for a shell if the word needs quotes.
fn quote_for_shell(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:,".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Returns the greeting. `own` is the shell command that starts this program.
pub(crate) fn greeting(args: &Dev, addresses: Addresses, own: &str) -> String {
    let Addresses {
        page,
        kafka,
        dynamodb,
    } = addresses;
    let file = match &args.input {
        Some(path) => path.display().to_string(),
        None => "the events of January 2013".to_owned(),
    };
    let what = match (args.replay, &args.input) {
        (Some(speed), _) => format!("playing {file} as if it happened now, {speed}x as fast"),
        (None, Some(_)) => format!("loading {file}"),
        (None, None) => "sending synthetic events".to_owned(),
    };
    let night = match (args.replay, &args.input) {
        (Some(speed), None) => format!(
            "It begins at night with a few weather reports; the first flight leaves after {:.0} seconds.\n",
            FIRST_FLIGHT_SECONDS / speed
        ),
        _ => String::new(),
    };
    let tables = match &args.data_dir {
        Some(dir) => format!("in {}", dir.display()),
        None => "in memory".to_owned(),
    };
    format!(
        "citystream dev: {what}; Ctrl-C stops it\n{night}\n  \
         http://{page}/\n\n\
         This is the page. The API is at /api/v1, and all metrics are at /metrics.\n\
         Kafka is embedded at {kafka}, with topic {TOPIC}; DynamoDB, {tables}, at {dynamodb}.\n\n\
         Send an event of your own from another terminal, and watch it arrive on the page:\n  \
         curl -d '{OWN_EVENT}' http://{page}/api/v1/events\n\n\
         Also try:\n  \
         curl http://{page}/api/v1/stats\n  \
         curl 'http://{page}/api/v1/events/NYC?limit=3'\n\n\
         With these variables, the other commands work there too:\n  \
         export KAFKA_BOOTSTRAP_SERVERS={kafka}\n  \
         export AWS_ENDPOINT_URL_DYNAMODB=http://{dynamodb}\n  \
         export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1\n  \
         export AWS_ACCESS_KEY_ID=dev AWS_SECRET_ACCESS_KEY=dev\n  \
         {own} tail\n  \
         {own} verify\n  \
         aws dynamodb list-tables\n\n"
    )
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::dev::tests::dev;

    #[test]
    fn the_greeting_has_the_addresses_and_commands() {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let addresses = Addresses {
            page: at(8082),
            kafka: at(9092),
            dynamodb: at(8000),
        };
        let text = greeting(
            &dev("citystream dev --data-dir kept"),
            addresses,
            "target/citystream",
        );
        assert_eq!(
            text,
            "citystream dev: sending synthetic events; Ctrl-C stops it\n\n  http://127.0.0.1:8082/\n\n\
             This is the page. The API is at /api/v1, and all metrics are at /metrics.\n\
             Kafka is embedded at 127.0.0.1:9092, with topic city-events; DynamoDB, in kept, at 127.0.0.1:8000.\n\n\
             Send an event of your own from another terminal, and watch it arrive on the page:\n  \
             curl -d '{\"city\":\"NYC\",\"event_type\":\"incident\",\"severity\":\"critical\",\"description\":\"Water main break\",\"timestamp\":\"now\"}' http://127.0.0.1:8082/api/v1/events\n\n\
             Also try:\n  curl http://127.0.0.1:8082/api/v1/stats\n  \
             curl 'http://127.0.0.1:8082/api/v1/events/NYC?limit=3'\n\n\
             With these variables, the other commands work there too:\n  \
             export KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092\n  \
             export AWS_ENDPOINT_URL_DYNAMODB=http://127.0.0.1:8000\n  \
             export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1\n  \
         export AWS_ACCESS_KEY_ID=dev AWS_SECRET_ACCESS_KEY=dev\n  \
             target/citystream tail\n  target/citystream verify\n  aws dynamodb list-tables\n\n"
        );
        let replayed = greeting(&dev("citystream dev --replay 60x"), addresses, "citystream");
        assert!(
            replayed.starts_with(
                "citystream dev: playing the events of January 2013 as if it happened now, 60x as fast; Ctrl-C stops it\n\
                 It begins at night with a few weather reports; the first flight leaves after 257 seconds.\n\n"
            ),
            "{replayed}"
        );
    }

    #[test]
    fn a_word_that_the_shell_would_split_is_quoted() {
        assert_eq!(
            quote_for_shell("/a/b-1.0/citystream"),
            "/a/b-1.0/citystream"
        );
        assert_eq!(
            quote_for_shell("/my programs/it's"),
            "'/my programs/it'\\''s'"
        );
    }
}
