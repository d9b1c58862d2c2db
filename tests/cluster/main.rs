//! Torwart in a cluster: the real binary against the API server that `TORWART_TEST_KUBECONFIG` names, with the shipped
//! CRDs and the shipped rights. Without that name every test says that it is skipped, and passes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chain;
mod crd;
mod lost;
mod many;
mod objects;
mod operators;
mod pods;
mod rights;
mod scripted;
mod tenants;
