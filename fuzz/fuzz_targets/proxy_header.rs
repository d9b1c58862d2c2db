#![no_main]

// The file itself, not the crate: the decoder is pure, and the rest of the edge takes minutes to build.
#[path = "../../crates/edge/src/proxy.rs"]
#[allow(dead_code, unreachable_pub)]
mod proxy;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    proxy::fuzz_header(data);
});
