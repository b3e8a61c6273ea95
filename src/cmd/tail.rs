//! `citystream tail`: reads the topic without a consumer group, and shows the records on a live screen or as lines.
//! With `--incidents`, the command shows incidents from the table of incidents.

use std::io;

use crate::blocking::run_blocking;
use crate::cmd::connect_dynamodb;
use crate::exit::Exit;
use crate::kafka::client::client_config;
use crate::kafka::reader::LogReader;
use crate::settings::{Tail, TailOutput};
use crate::shutdown::Shutdown;
use crate::store::client::ConnectOptions;
use crate::tail::{incidents, print_lines, range, screen, topic};
use crate::telemetry::{Metrics, can_draw};

/// Runs the role until its work is done or `shutdown` is triggered.
///
/// # Errors
/// Returns the error with which the role ended.
pub async fn run(args: Tail, _metrics: Metrics, shutdown: Shutdown) -> anyhow::Result<Exit> {
    if args.incidents {
        let client = connect_dynamodb(ConnectOptions::default()).await?;
        incidents::run(&args, client, &shutdown).await?;
        return Ok(Exit::Done);
    }
    let range = range(&args)?;
    let config = client_config(&args.kafka, "tail")?;
    if args.events == Some(0) {
        return Ok(Exit::Done);
    }
    let reader = if args.dlq {
        LogReader::of_letters(config, &topic(&args))
    } else {
        LogReader::new(config, &topic(&args))
    }?;
    let live = matches!(args.output, None | Some(TailOutput::Table)) && can_draw(&io::stdout());
    if live {
        screen::run(reader, range, args, shutdown).await?;
    } else {
        let work = move || print_lines(&reader, &range, &args, &shutdown);
        run_blocking(work).await?;
    }
    Ok(Exit::Done)
}
