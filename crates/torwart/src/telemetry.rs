//! Log lines about the process itself, on standard output beside the mail log, so that one stream holds all.
//! As JSON they carry `"event":"log"`, where the mail log has `transaction` or `session`. Traces go elsewhere.

mod traces;

use std::fmt::{self, Write};

use jiff::Timestamp;
use torwart_edge::LogFormat;
use torwart_proto::trace::TARGET;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use self::traces::Traces;
use crate::output::Output;

/// Sends every event of `level` and above to `output`, and spans to `traces`; without that, no span is made. Call once;
/// later calls change nothing.
pub(crate) fn start(output: Output, format: LogFormat, level: Level, traces: Option<&Traces>) {
    let lines = Lines { output, format }.with_filter(wanted(level));
    let registry = tracing_subscriber::registry().with(lines);
    let _ = match traces {
        Some(traces) => registry.with(traces.layer()).try_init(),
        None => registry.try_init(),
    };
}

/// Libraries speak up only where something is wrong, unless everything is asked for. Traces are no lines. `notify` tells
/// of each change that it sees: were this log in a folder that is watched, every line would make the next. The DNS
/// library writes out the names that it asks for, and those of some DNS lists hold a key.
fn wanted(level: Level) -> Targets {
    let libraries = if level == Level::TRACE { LevelFilter::TRACE } else { LevelFilter::WARN };
    Targets::new()
        .with_default(libraries)
        .with_target("torwart", LevelFilter::from_level(level))
        .with_target("notify", LevelFilter::WARN)
        .with_target("hickory", LevelFilter::OFF)
        .with_target(TARGET, LevelFilter::OFF)
}

struct Lines {
    output: Output,
    format: LogFormat,
}

/// The fields of one event, written out as they come.
struct Fields {
    format: LogFormat,
    message: String,
    /// JSON: `,"name":value` for each. Text: ` name=value` for each.
    rest: String,
}

/// Keys of the line itself; a field of such a name would make it ambiguous.
const RESERVED: [&str; 5] = ["event", "time", "level", "target", "message"];

// === impl Lines ===

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields { format: self.format, message: String::new(), rest: String::new() };
        event.record(&mut fields);
        self.output.line(line(self.format, Timestamp::now(), event.metadata(), &fields));
    }
}

fn line(format: LogFormat, time: Timestamp, metadata: &Metadata<'_>, fields: &Fields) -> String {
    let level = level_word(*metadata.level());
    let rest = &fields.rest;
    match format {
        LogFormat::Json => format!(
            "{{\"event\":\"log\",\"time\":\"{time:.3}\",\"level\":\"{level}\",\"message\":{},\"target\":{}{rest}}}",
            json_string(&fields.message),
            json_string(metadata.target()),
        ),
        LogFormat::Text => format!("{time:.3} {level:<5} {}{rest}", one_line(&fields.message)),
    }
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// No control character of a value may start a new line or move a terminal's cursor.
fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

// === impl Fields ===

impl Fields {
    fn push(&mut self, field: &Field, json: &str, text: &str) {
        let name = field.name();
        // What comes through the `log` crate brings its place in the source.
        if name.starts_with("log.") {
            return;
        }
        let prefix = if RESERVED.contains(&name) { "field_" } else { "" };
        let written = match self.format {
            LogFormat::Json => write!(self.rest, ",{}:{json}", json_string(&format!("{prefix}{name}"))),
            LogFormat::Text => write!(self.rest, " {prefix}{name}={}", one_line(text)),
        };
        // Writing to a String does not fail.
        let _ = written;
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.push(field, &json_string(value), value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, &value.to_string(), &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, &value.to_string(), &value.to_string());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, &value.to_string(), &value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, log: impl FnOnce()) -> String {
        let target = Shared::default();
        let output = Output::start(target.clone()).unwrap();
        let subscriber = tracing_subscriber::registry().with(Lines { output: output.clone(), format });
        tracing::subscriber::with_default(subscriber, log);
        output.flush();
        let bytes = target.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn without_a_collector_no_span_is_made_at_any_level() {
        for level in [Level::INFO, Level::TRACE] {
            let output = Output::start(Shared::default()).unwrap();
            let lines = Lines { output, format: LogFormat::Json }.with_filter(wanted(level));
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
                assert!(torwart_proto::trace::root("session").is_disabled(), "{level}");
            });
        }
    }

    #[test]
    fn what_watches_files_does_not_tell_of_each_change_at_any_level() {
        let wanted = wanted(Level::TRACE);
        assert!(!wanted.would_enable("notify::inotify", &Level::INFO));
        assert!(wanted.would_enable("notify::inotify", &Level::WARN));
        assert!(wanted.would_enable("hyper::proto", &Level::TRACE));
    }

    #[test]
    fn no_name_that_is_asked_of_dns_gets_into_the_log_at_any_level() {
        let wanted = wanted(Level::TRACE);
        for target in ["hickory_resolver::name_server_pool", "hickory_net::udp", "hickory_proto"] {
            assert!(!wanted.would_enable(target, &Level::ERROR), "{target}");
        }
    }

    #[test]
    fn a_json_line_holds_message_and_fields() {
        let text = logged(
            LogFormat::Json,
            || tracing::info!(port = 25, on = true, name = %"a\"b", level = "x", "ready"),
        );
        let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(line["event"], "log");
        assert_eq!(line["level"], "info");
        assert_eq!(line["message"], "ready");
        assert_eq!(line["port"], 25);
        assert_eq!(line["on"], true);
        assert_eq!(line["name"], "a\"b");
        assert_eq!(line["field_level"], "x");
        assert!(line["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
    }

    #[test]
    fn a_text_line_stays_one_line() {
        let text = logged(LogFormat::Text, || tracing::warn!(from = "a\r\nb", "odd\nname"));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("warn  odd\\nname from=a\\r\\nb"), "{text}");
    }
}
