//! `GET /`: what can be asked here, with links to try.

use axum::response::Html;

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>CityStream API</title>
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:44em;margin:2em auto;padding:0 1em}code{font-size:.95em}</style>
<h1>CityStream API</h1>
<ul>
<li><a href="/api/v1/stats"><code>/api/v1/stats</code></a> all events, by severity
<li><a href="/api/v1/cities"><code>/api/v1/cities</code></a> every city, largest first
<li><a href="/api/v1/summary/NYC"><code>/api/v1/summary/{city}</code></a> a city's events by type
<li><a href="/api/v1/events/NYC?limit=20"><code>/api/v1/events/{city}?limit=20&amp;from=&amp;to=</code></a> a city's events
<li><a href="/api/v1/alerts?hours=24"><code>/api/v1/alerts?city=&amp;severity=&amp;hours=24</code></a> high and critical events
<li><a href="/api/v1/aggregations?city=NYC&amp;event_type=traffic"><code>/api/v1/aggregations?city=&amp;event_type=&amp;limit=10</code></a> counts by window
<li><a href="/api/v1/health"><code>/api/v1/health</code></a>, <a href="/livez"><code>/livez</code></a>, <a href="/readyz"><code>/readyz</code></a>, <a href="/metrics"><code>/metrics</code></a>
</ul>
<p>Lists are newest first. Where there is more, the answer holds <code>next</code>: pass it as <code>cursor=</code>.</p>
</html>
"#;

pub(super) async fn get() -> Html<&'static str> {
    Html(PAGE)
}
