#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| torwart_smtp::fuzz::command_line(data));
