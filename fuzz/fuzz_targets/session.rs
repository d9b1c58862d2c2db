#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| torwart_smtp::fuzz::session(data));
