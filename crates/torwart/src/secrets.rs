//! `torwart secrets`: one line for each object on standard output.

use std::io::{self, Write};
use std::process::ExitCode;

use jiff::Timestamp;
use torwart_operator::secrets::{Done, What, delete, ensure};

use crate::complain;
use crate::config::SecretsConfig;

pub(crate) async fn run(config: SecretsConfig) -> ExitCode {
    let done = match config {
        SecretsConfig::Ensure(installation) => Box::pin(ensure(&installation, Timestamp::now())).await,
        SecretsConfig::Delete(installation, gateway) => Box::pin(delete(&installation, &gateway)).await,
    };
    match done.map(|done| print(&done)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("torwart: {}", error));
            ExitCode::FAILURE
        }
    }
}

/// Nobody reading is no failure.
fn print(done: &[Done]) {
    let mut out = io::stdout().lock();
    for Done { object, what } in done {
        let what = match what {
            What::Created => "created",
            What::Renewed => "renewed",
            What::Kept => "kept",
            What::Deleted => "deleted",
        };
        let _ = writeln!(out, "{object} {what}");
    }
}
