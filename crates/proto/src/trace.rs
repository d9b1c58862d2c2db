//! Spans, and how a trace goes along with a call.
//!
//! A span of ours is a span of the `tracing` crate with the target [`TARGET`]. The binary turns them into OTLP with a
//! layer that it installs only if it was given a collector. The edge decides once per session whether it is traced;
//! everything else follows its parent: no parent, no span. So a session that is not traced builds none.
//!
//! No attribute holds an address, a name from mail or the id of a person.

#[cfg(test)]
mod tests;

use opentelemetry::trace::{SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use tonic::metadata::{MetadataMap, MetadataValue};
use tracing::{Level, Span, span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use opentelemetry::Value;

/// The target of every span of ours, and of nothing else. A layer that writes logs leaves it out.
pub const TARGET: &str = "trace";

/// W3C Trace Context, section 3.2.
const TRACEPARENT: &str = "traceparent";

/// Starts a trace, whatever is current. To be called for a session that is to be traced, and for no other.
pub fn root(name: &'static str) -> Span {
    real(span!(target: TARGET, parent: None, Level::INFO, "root", otel.name = name, otel.kind = "server"))
}

/// A part of `parent`. [`Span::none`] if that is none, or not taken by anybody.
pub fn child(parent: &Span, name: &'static str) -> Span {
    if parent.is_disabled() {
        return Span::none();
    }
    real(span!(target: TARGET, parent: parent, Level::INFO, "child", otel.name = name))
}

/// A part of what is current. [`Span::none`] if that is no span of ours.
pub fn current_child(name: &'static str) -> Span {
    let current = Span::current();
    let is_ours = current.metadata().is_some_and(|metadata| metadata.target() == TARGET);
    if is_ours { child(&current, name) } else { Span::none() }
}

/// The server's side of a call that came with `metadata`. [`Span::none`] if the caller does not trace it.
pub fn remote_child(metadata: &MetadataMap, name: &'static str) -> Span {
    let Some(parent) = metadata.get(TRACEPARENT).and_then(|value| sampled_parent(value.as_bytes())) else {
        return Span::none();
    };
    let span = real(
        span!(target: TARGET, parent: None, Level::INFO, "call", otel.name = name, otel.kind = "server"),
    );
    if span.is_disabled() {
        return span;
    }
    // Without the layer the span goes nowhere: as good as none.
    match span.set_parent(Context::new().with_remote_span_context(parent)) {
        Ok(()) => span,
        Err(_) => Span::none(),
    }
}

/// The client's side of a call: writes `traceparent` if `span` is part of a trace.
pub fn inject(span: &Span, metadata: &mut MetadataMap) {
    let Some(context) = sampled(span) else { return };
    let value = format!("00-{}-{}-01", context.trace_id(), context.span_id());
    if let Ok(value) = MetadataValue::try_from(value) {
        metadata.insert(TRACEPARENT, value);
    }
}

/// Sets an attribute; nothing happens if `span` is none. Where making the value costs something, ask
/// [`Span::is_disabled`] first.
pub fn attribute(span: &Span, key: &'static str, value: impl Into<Value>) {
    if !span.is_disabled() {
        let KeyValue { key, value, .. } = KeyValue::new(key, value);
        span.set_attribute(key, value);
    }
}

/// Marks what `span` stands for as failed, with a fixed word of ours.
pub fn fail(span: &Span, what: &'static str) {
    if !span.is_disabled() {
        span.set_status(Status::error(what));
    }
}

/// The trace that `span` belongs to, as 32 hexadecimal digits. `None` if it belongs to none.
pub fn trace_id(span: &Span) -> Option<String> {
    Some(sampled(span)?.trace_id().to_string())
}

fn real(span: Span) -> Span {
    if span.is_disabled() { Span::none() } else { span }
}

fn sampled(span: &Span) -> Option<SpanContext> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context().span().span_context().clone();
    (context.is_valid() && context.is_sampled()).then_some(context)
}

/// Reads `version-trace-parent-flags` (W3C Trace Context, section 3.2.2): all in lower case; a version later than 00
/// may say more behind the flags. `None` without the sampled flag.
fn sampled_parent(value: &[u8]) -> Option<SpanContext> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.splitn(5, '-');
    let version = hex(parts.next()?, 2)?;
    let trace = hex(parts.next()?, 32)?;
    let parent = hex(parts.next()?, 16)?;
    let flags = hex(parts.next()?, 2)?;
    let has_more = parts.next().is_some();
    if version == "ff" || (version == "00" && has_more) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(parent).ok()?,
        flags & TraceFlags::SAMPLED,
        true,
        TraceState::default(),
    );
    (context.is_valid() && context.is_sampled()).then_some(context)
}

/// `text`, if it is that many hexadecimal digits in lower case.
fn hex(text: &str, digits: usize) -> Option<&str> {
    let fits = text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    fits.then_some(text)
}
