//! `citystream produce --from-dlq`: resends the dead letters and prints the result.

use anyhow::Context as _;

use crate::exit::{Exit, SettingsError};
use crate::failure::Failure;
use crate::kafka::client::client_config;
use crate::produce::report;
use crate::produce::resend::{self, ResendError, Resent};
use crate::settings::{LogFormat, Produce};
use crate::shutdown::Shutdown;
use crate::telemetry::join_list;

pub(crate) async fn run(args: &Produce, shutdown: Shutdown) -> anyhow::Result<Exit> {
    let config = client_config(&args.kafka, "produce")?;
    let (topic, dlq) = (args.kafka.topic.clone(), args.kafka.dlq_topic());
    let stop = shutdown.clone();
    let work = tokio::task::spawn_blocking(move || resend::run(&config, &topic, &dlq, &stop));
    let resent = work.await.context("the producer panicked")?;
    let resent = resent.map_err(|error| match error {
        ResendError::Refused(refusal) => SettingsError((&refusal).into()).into(),
        other => anyhow::Error::from(other),
    })?;
    report_result(args, &resent);
    if shutdown.is_triggered() {
        let failure = Failure::new("stopped while processing the dead letters");
        return Err(failure.with_remedy("run it again").into());
    }
    Ok(Exit::Done)
}

fn report_result(args: &Produce, resent: &Resent) {
    let Resent {
        letters,
        sent,
        stay,
    } = resent;
    let stay_count: u64 = stay.values().sum();
    if args.log.log_format == Some(LogFormat::Json) {
        tracing::info!(
            letters,
            sent,
            stay = stay_count,
            reasons = join_list(
                stay.iter()
                    .map(|(reason, count)| format!("{reason} {count}"))
            ),
            "processed the dead letters"
        );
        return;
    }
    report::print_line(&format!(
        "looked at {letters} new dead letters: sent {sent} again, {stay_count} stay"
    ));
    for (reason, count) in stay {
        report::print_line(&format!("  {reason} {count}"));
    }
}
