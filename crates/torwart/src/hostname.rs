//! The name that an edge says it has, if nobody told it.

use std::sync::Arc;

use crate::config::is_host_name;

/// RFC 5321 section 4.1.3 would have a full name; what has none at all is called this.
const NONE: &str = "localhost";

/// What the system calls this machine (in a pod: the pod), with a warning if that is no full name: senders see it.
pub(crate) fn of_this_machine() -> Arc<str> {
    let name = usable(rustix::system::uname().nodename().to_str().unwrap_or_default());
    if !name.contains('.') {
        tracing::warn!(%name, "the machine's name is not a full one; give the gateway's own by --hostname");
    }
    name
}

fn usable(name: &str) -> Arc<str> {
    Arc::from(if is_host_name(name) { name } else { NONE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_host_name_is_not_said_to_senders() {
        for (name, said) in
            [("mx.example.net", "mx.example.net"), ("pod-7", "pod-7"), ("a b", NONE), ("", NONE)]
        {
            assert_eq!(&*usable(name), said);
        }
    }
}
