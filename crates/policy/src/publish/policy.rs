//! A published snapshot to a policy.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use torwart_api::ObjectRef;

use crate::compile::compile_published;
use crate::model::Policy;
use crate::snapshot::Snapshot;

/// What a process makes of a published snapshot.
#[derive(Debug)]
pub struct Reading {
    pub policy: Policy,
    /// What the policy was made of: the next reading's `last`.
    pub snapshot: Arc<Snapshot>,
    /// Objects that this process can't use, each with the reason, for people.
    pub problems: Vec<String>,
}

// === impl Snapshot ===

impl Snapshot {
    /// The policy that this snapshot makes, as it was accepted: nobody's permission, claim or reference is judged again.
    /// The mail domains of objects that this process can't use are deferred. `listeners` are this process's, `now` is
    /// in Unix seconds.
    ///
    /// # Errors
    /// If its MailGateway can't be used by this build.
    pub fn compile(&self, listeners: &[SocketAddr], now: i64) -> Result<Policy, String> {
        Arc::new(self.clone()).compile_after(None, listeners, now).map(|reading| reading.policy)
    }

    /// As [`compile`](Self::compile); but of an object that this process can't use, the form in `last` stands, if there
    /// is one that it can.
    ///
    /// # Errors
    /// If its MailGateway can't be used by this build.
    pub fn compile_after(
        self: Arc<Self>,
        last: Option<&Self>,
        listeners: &[SocketAddr],
        now: i64,
    ) -> Result<Reading, String> {
        let mut snapshot = self;
        let mut problems = Vec::new();
        // Each object's last form is tried once; if that fails too, nothing of it is left but its domains.
        let mut tried = BTreeSet::new();
        loop {
            let failed: Vec<(ObjectRef, String)> = match compile_published(&snapshot, listeners, now)? {
                Ok(policy) => return Ok(Reading { policy, snapshot, problems }),
                Err(failed) => failed,
            };
            let usable = Arc::make_mut(&mut snapshot);
            let failed: Vec<_> = failed
                .into_iter()
                .filter_map(|(object, error)| {
                    usable.resolutions.remove(&object);
                    let manifest = usable.domains.remove(&object)?;
                    Some((object, manifest, error))
                })
                .collect();
            let mut taken = usable.patterns();
            for (object, manifest, error) in failed {
                let stands = tried.insert(object.clone()) && usable.stand_in(&object, last, &mut taken);
                if !stands {
                    usable.hold(&manifest.spec.domains);
                }
                let then = if stands { "its last form holds" } else { "its mail domains are deferred" };
                problems.push(format!("{object} can't be used: {error}; {then}"));
            }
        }
    }
}
