//! What messages may take that the verdict looks at.

use torwart_verdict::MessageLimits;

use super::reader::Reader;
use super::values::size;
use crate::cli::MessageArgs;

/// Nothing of interest is in less.
const LEAST_INSPECTED: u64 = 1024;

impl Reader {
    pub(super) fn messages(&mut self, arguments: &MessageArgs) -> MessageLimits {
        let defaults = MessageLimits::default();
        let at_least = |text: &str| match size(text)? {
            bytes if bytes < LEAST_INSPECTED => Err(format!("is less than {LEAST_INSPECTED} bytes")),
            bytes => usize::try_from(bytes).map_err(|_| "is more than this machine can address".to_owned()),
        };
        let memory = self.parsed("--message-memory", &arguments.message_memory, at_least);
        let inspect = self.parsed("--inspect-limit", &arguments.inspect_limit, at_least);
        if let (Some(memory), Some(inspect)) = (memory, inspect)
            && inspect > memory
        {
            let text = format!("{inspect} bytes are more than --message-memory has for all ({memory})");
            self.mistake("--inspect-limit", text);
        }
        MessageLimits {
            memory: memory.unwrap_or(defaults.memory),
            inspect: inspect.unwrap_or(defaults.inspect),
            test_check: arguments.test_message_check,
        }
    }
}
