//! Tells a person what happens, and keeps count of what went as it should.

use std::io::{self, IsTerminal, Write};

#[derive(Debug)]
pub(super) struct Narrator {
    colour: bool,
    step: usize,
    passed: usize,
    failed: usize,
}

#[derive(Clone, Copy, Debug)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
}

// === impl Narrator ===

impl Narrator {
    /// In colour only on a terminal, and not if `NO_COLOR` is set.
    pub(super) fn new() -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { colour, step: 0, passed: 0, failed: 0 }
    }

    pub(super) fn title(&self, text: &str) {
        self.print(&self.styled(Style::Bold, text));
    }

    pub(super) fn step(&mut self, text: &str) {
        self.step += 1;
        let heading = format!("\n{}. {text}", self.step);
        self.print(&self.styled(Style::Bold, &heading));
    }

    pub(super) fn say(&self, text: &str) {
        self.print(&format!("   {text}"));
    }

    pub(super) fn client(&self, line: &str) {
        self.print(&self.styled(Style::Dim, &format!("     C: {line}")));
    }

    pub(super) fn server(&self, line: &str) {
        self.print(&self.styled(Style::Dim, &format!("     S: {line}")));
    }

    /// Something to look at: a header, a log line.
    pub(super) fn exhibit(&self, line: &str) {
        self.print(&self.styled(Style::Dim, &format!("     {line}")));
    }

    /// What should be true now; `text` says it.
    pub(super) fn expect(&mut self, is_so: bool, text: &str) {
        if is_so {
            self.passed += 1;
            self.print(&format!("   {} {text}", self.styled(Style::Green, "ok")));
        } else {
            self.failed += 1;
            self.print(&format!("   {} {text}", self.styled(Style::Red, "NOT SO:")));
        }
    }

    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    fn styled(&self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Green => 32,
            Style::Red => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    fn print(&self, text: &str) {
        // Whoever closed the pipe doesn't want to read on; the outcome is in the exit status.
        let _ = writeln!(io::stdout(), "{text}");
    }
}
