#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| torwart_smtp::fuzz::header_edit(data));
