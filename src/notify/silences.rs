//! Adds, lists and ends silences. Every `notify` process applies a new or ended silence within ten seconds.

use crate::core::clock::UnixMs;
use crate::core::incident::silence::Silence;
use crate::core::time::format_seconds;
use crate::exit::SettingsError;
use crate::output::print;
use crate::settings::SilenceAdd;
use crate::store::incidents::IncidentTable;
use crate::telemetry::unix_ms;

/// The characters that a silence id may contain. Digits and letters that look alike, such as `0` and `O`, are excluded.
const ID_CHARS: &[u8] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZ";
/// Number of characters in a silence id.
const ID_LENGTH: usize = 6;

/// Stores a silence that begins now, and prints the id of the silence.
///
/// # Errors
/// Returns an error if DynamoDB does not answer.
pub(crate) async fn add(table: &IncidentTable, add: SilenceAdd) -> anyhow::Result<()> {
    let now_ms = unix_ms();
    let id: String = (0..ID_LENGTH)
        .map(|_| char::from(ID_CHARS[fastrand::usize(..ID_CHARS.len())]))
        .collect();
    let silence = Silence {
        id: id.into(),
        rule: add.rule.map(Into::into),
        city: add.city.map(Into::into),
        event_type: add.event_type.map(Into::into),
        from_ms: now_ms,
        until_ms: now_ms.saturating_add(add.length),
        why: add.why.into(),
    };
    table.put_silence(&silence).await?;
    Ok(print(&line(&silence))?)
}

/// Prints the silences that have not ended, sorted by their end time.
///
/// # Errors
/// Returns an error if DynamoDB does not answer.
pub(crate) async fn list(table: &IncidentTable) -> anyhow::Result<()> {
    let mut silences = current(table, unix_ms()).await?;
    silences.sort_by_key(|silence| silence.until_ms);
    let lines: String = silences.iter().map(line).collect();
    Ok(print(&lines)?)
}

/// Ends the silence with the given id now.
///
/// # Errors
/// Returns an error if DynamoDB does not answer, or if there is no active silence with this id.
pub(crate) async fn end(table: &IncidentTable, id: &str) -> anyhow::Result<()> {
    let now_ms = unix_ms();
    let silences = current(table, now_ms).await?;
    let Some(silence) = silences.into_iter().find(|silence| &*silence.id == id) else {
        let error = SettingsError::new(format!("there is no silence {id:?}, or it has ended"));
        return Err(error
            .with_remedy("citystream silence list shows all")
            .into());
    };
    let ended = Silence {
        until_ms: now_ms,
        ..silence
    };
    table.put_silence(&ended).await?;
    Ok(())
}

async fn current(table: &IncidentTable, now_ms: UnixMs) -> anyhow::Result<Vec<Silence>> {
    let mut silences = table.silences().await?;
    silences.retain(|silence| now_ms < silence.until_ms);
    Ok(silences)
}

fn line(silence: &Silence) -> String {
    let part = |name: &str, value: &Option<Box<str>>| {
        value.as_ref().map(|value| format!("{name} {value}"))
    };
    let parts = [
        part("rule", &silence.rule),
        part("city", &silence.city),
        part("type", &silence.event_type),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let what = if parts.is_empty() {
        "every incident".to_owned()
    } else {
        parts.join(", ")
    };
    let until = format_seconds(silence.until_ms);
    format!("{}  until {until}  {what}: {}\n", silence.id, silence.why)
}
