//! What an error of the server or of the connection means for the store.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::store::StoreError;

use super::url::Server;

/// Of a call that was sent.
pub(super) fn classify(error: &RedisError) -> StoreError {
    match error.kind() {
        ErrorKind::Server(kind) => of_server(kind, error),
        ErrorKind::AuthenticationFailed => StoreError::Auth(error.to_string().into()),
        ErrorKind::Io if error.is_timeout() => StoreError::TimedOut,
        ErrorKind::Io if error.is_connection_dropped() => StoreError::Disconnected(error.to_string().into()),
        ErrorKind::Io => StoreError::Io(error.to_string().into()),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            StoreError::Io(format!("an answer that is not understood: {error}").into())
        }
        ErrorKind::Extension => of_code(error.code().unwrap_or_default(), error),
        _ => StoreError::Unusable(error.to_string().into()),
    }
}

fn of_server(kind: ServerErrorKind, error: &RedisError) -> StoreError {
    match kind {
        ServerErrorKind::BusyLoading => StoreError::Loading,
        // MASTERDOWN: a replica that has lost its primary.
        ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown => StoreError::ReadOnly,
        ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain => StoreError::Moved,
        ServerErrorKind::ClusterDown => StoreError::ClusterDown(text(error)),
        ServerErrorKind::NoScript => StoreError::NoScript,
        ServerErrorKind::NoPerm => StoreError::Auth(text(error)),
        _ => of_script(error),
    }
}

/// Error codes that the library has no name for.
fn of_code(code: &str, error: &RedisError) -> StoreError {
    match code {
        "OOM" => StoreError::OutOfMemory,
        "NOAUTH" | "WRONGPASS" => StoreError::Auth(text(error)),
        // A script of somebody runs for too long.
        "BUSY" => StoreError::Busy,
        // It refuses writes since it cannot save them, or has too few replicas.
        "MISCONF" | "NOREPLICAS" => StoreError::Io(text(error)),
        _ => StoreError::Unusable(text(error)),
    }
}

/// Redis before 7 wraps the error of a command within a script into its own.
fn of_script(error: &RedisError) -> StoreError {
    let detail = error.detail().unwrap_or_default();
    let wraps =
        |code: &str| detail.contains(&format!(": -{code} ")) || detail.contains(&format!(": {code} "));
    if wraps("OOM") {
        StoreError::OutOfMemory
    } else if wraps("READONLY") {
        StoreError::ReadOnly
    } else if wraps("NOPERM") {
        StoreError::Auth(text(error))
    } else if wraps("MISCONF") {
        StoreError::Io(text(error))
    } else if detail.contains("has no permissions to run the") {
        // The library drops the code of what is said to SELECT.
        StoreError::Auth(text(error))
    } else {
        StoreError::Unusable(text(error))
    }
}

/// Code and what follows it, as the server wrote it.
fn text(error: &RedisError) -> std::sync::Arc<str> {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}").into(),
        _ => error.to_string().into(),
    }
}

/// Of a connection that could not be made: says whose it is, and which flag may mend it.
pub(super) fn at_connect(server: &Server, error: &RedisError) -> StoreError {
    match classify(error) {
        StoreError::Auth(what) => {
            StoreError::Auth(format!("{server}: {what} (--store-username, --store-password-file)").into())
        }
        StoreError::Io(what) if what.contains("certificate") => {
            StoreError::Io(format!("{server}: {what} (--store-ca)").into())
        }
        StoreError::Io(what) => StoreError::Io(format!("{server}: {what}").into()),
        StoreError::Disconnected(what) => StoreError::Disconnected(format!("{server}: {what}").into()),
        StoreError::Unusable(what) => StoreError::Unusable(format!("{server}: {what}").into()),
        StoreError::TimedOut => StoreError::Disconnected(format!("{server}: does not answer").into()),
        other => other,
    }
}

/// What a reply says about the server or the connection. `None`: it is about the command that it answers; so a right
/// that is missing, or writes that are refused for want of memory, disk or replicas, cost nobody else anything.
pub(super) fn trouble_in(reply: &RedisError) -> Option<StoreError> {
    let error = classify(reply);
    let is_theirs = match &error {
        StoreError::Loading | StoreError::ReadOnly | StoreError::ClusterDown(_) => true,
        StoreError::Auth(_) => reply.code() == Some("NOAUTH"),
        _ => false,
    };
    is_theirs.then_some(error)
}

/// Whether it says that the server is not well, rather than something about one call.
pub(super) fn is_unwell(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::TimedOut
            | StoreError::Disconnected(_)
            | StoreError::Io(_)
            | StoreError::Loading
            | StoreError::ReadOnly
            | StoreError::ClusterDown(_)
    )
}

/// Whether another connection, or one to another server, may be better.
pub(super) fn ends_connection(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Disconnected(_) | StoreError::Loading | StoreError::ReadOnly | StoreError::Auth(_)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::{Value, parse_redis_value};

    fn mk_error(line: &str) -> RedisError {
        let reply = parse_redis_value(format!("-{line}\r\n").as_bytes()).and_then(Value::extract_error);
        reply.unwrap_err()
    }

    #[test]
    fn each_error_reply_has_its_kind() {
        let table = [
            ("READONLY You can't write against a read only replica.", "readonly"),
            (
                "READONLY You can't write against a read only replica. script: 3f, on @user_script:1.",
                "readonly",
            ),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "readonly"),
            ("OOM command not allowed when used memory > 'maxmemory'.", "oom"),
            ("LOADING Redis is loading the dataset in memory", "loading"),
            ("MOVED 3999 127.0.0.1:6381", "moved"),
            ("ASK 3999 127.0.0.1:6381", "moved"),
            ("TRYAGAIN Multiple keys request during rehashing of slot", "moved"),
            ("CLUSTERDOWN The cluster is down", "cluster_down"),
            ("CLUSTERDOWN Hash slot not served", "cluster_down"),
            ("NOSCRIPT No matching script. Please use EVAL.", "noscript"),
            ("NOAUTH Authentication required.", "auth"),
            ("WRONGPASS invalid username-password pair or user is disabled.", "auth"),
            ("NOPERM this user has no permissions to run the 'evalsha' command", "auth"),
            (
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
                "busy",
            ),
            ("MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.", "io"),
            ("NOREPLICAS Not enough good replicas to write.", "io"),
            (
                "ERR Error running script (call to f_5): @user_script:2: @user_script: 2: -OOM command not allowed",
                "oom",
            ),
            ("ERR Error running script (call to f_5): @user_script:2: -READONLY You can't write", "readonly"),
            ("ERR Error running script (call to f_5): @user_script:2: NOPERM this user", "auth"),
            ("ERR max number of clients reached", "unusable"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", "unusable"),
        ];
        for (line, kind) in table {
            assert_eq!(classify(&mk_error(line)).kind(), kind, "{line}");
        }
    }

    #[test]
    fn each_error_of_the_connection_has_its_kind() {
        use std::io::{Error, ErrorKind};
        let table = [
            (ErrorKind::TimedOut, "timeout"),
            (ErrorKind::ConnectionRefused, "disconnected"),
            (ErrorKind::BrokenPipe, "disconnected"),
            (ErrorKind::UnexpectedEof, "disconnected"),
            (ErrorKind::InvalidData, "io"),
        ];
        for (error, kind) in table {
            assert_eq!(classify(&Error::from(error).into()).kind(), kind, "{error:?}");
        }
        assert_eq!(classify(&parse_redis_value(b"?what\r\n").unwrap_err()).kind(), "io");
    }

    #[test]
    fn what_is_wrong_with_one_call_says_nothing_about_the_server() {
        let of_one_call = [
            "OOM no",
            "NOSCRIPT no",
            "MOVED 1 a:1",
            "BUSY script",
            "ERR no",
            "NOPERM no",
            "MISCONF no",
            "NOREPLICAS no",
        ];
        for line in of_one_call {
            assert_eq!(trouble_in(&mk_error(line)), None, "{line}");
        }
        for line in ["READONLY no", "LOADING yet", "CLUSTERDOWN all"] {
            assert!(is_unwell(&trouble_in(&mk_error(line)).unwrap()), "{line}");
        }
        assert!(ends_connection(&trouble_in(&mk_error("NOAUTH who")).unwrap()));
    }
}
