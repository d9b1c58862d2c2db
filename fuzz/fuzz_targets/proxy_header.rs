#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    torwart_edge::proxy::fuzz_header(data);
});
