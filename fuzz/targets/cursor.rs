//! Hands whatever libFuzzer makes up to `checks::cursor`, which ordinary tests call too.
#![no_main]
#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;
libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::cursor(data));
