//! `--spool-dir` and what belongs to it.

use std::path::Path;

use torwart_edge::SpoolSettings;

use super::reader::Reader;
use super::values::size;
use crate::cli::EdgeArgs;

impl Reader {
    pub(super) fn spool(&mut self, arguments: &EdgeArgs, largest_message: u64) -> SpoolSettings {
        let defaults = SpoolSettings::default();
        let dir = self.once("--spool-dir", &arguments.spool_dir).cloned();
        // where files go that nobody asked for is seen when the first one is needed
        if let Some(Err(text)) = dir.as_deref().map(usable) {
            self.mistake("--spool-dir", text);
        }
        let memory = self.parsed("--spool-memory", &arguments.spool_memory, size);
        let max = self.parsed("--spool-max", &arguments.spool_max, size);
        if let Some(max) = max
            && max < largest_message
        {
            let text = format!("{max} bytes are less than one message may have (--max-message-size)");
            self.mistake("--spool-max", text);
        }
        SpoolSettings {
            dir: dir.unwrap_or(defaults.dir),
            memory: memory.unwrap_or(defaults.memory),
            max: max.unwrap_or(defaults.max),
        }
    }
}

fn usable(dir: &Path) -> Result<(), String> {
    let made = tempfile::tempfile_in(dir);
    made.map(drop).map_err(|error| format!("no file can be made in {}: {error}", dir.display()))
}
