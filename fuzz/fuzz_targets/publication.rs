#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| torwart_policy::fuzz::publication(data));
