//! The wire form of the question and its answer.
//!
//! This crate will hold the generated code of `torwart.verdict.v1` and every conversion between it and
//! `torwart-core`, each field by name. Edge and verdict share a process until then, so it is empty; it stands
//! here so that no other crate takes that place.
