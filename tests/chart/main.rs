//! The chart, as the real helm, kubectl and API server see it. Without `TORWART_TEST_KUBECONFIG` every test says that it
//! is skipped, and passes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod files;
mod helm;
mod install;
mod objects;
mod parts;
mod restricted;
mod values;
