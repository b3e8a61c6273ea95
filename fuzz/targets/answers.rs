//! Calls `checks::answers` with libFuzzer's bytes. Ordinary tests call it, too.
#![no_main]
#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;
libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::answers(data));
