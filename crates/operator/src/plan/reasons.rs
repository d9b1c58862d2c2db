//! Why conditions are as they are, in one word each. `docs/conditions.md` lists every one with its meaning, what to do,
//! and the test that brings it about; a test holds the two together.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        $($(#[$doc])* pub const $name: &str = $text;)+

        /// All of them.
        pub const ALL: &[&str] = &[$($text),+];
    };
}

reasons! {
    /// Accepted: the newest form is.
    ACCEPTED = "Accepted",
    /// Accepted: a field is wrong.
    INVALID = "Invalid",
    /// Accepted: `tenants` has no entry for the namespace.
    NAMESPACE_NOT_PERMITTED = "NamespaceNotPermitted",
    /// Accepted: the namespace may not claim a mail domain.
    DOMAIN_NOT_PERMITTED = "DomainNotPermitted",
    /// Accepted: the namespace may not send mail to an upstream.
    UPSTREAM_NOT_PERMITTED = "UpstreamNotPermitted",
    /// Accepted: another object has a mail domain.
    DOMAIN_CONFLICT = "DomainConflict",
    /// Accepted: there is no MailGateway, and none was ever in force.
    GATEWAY_NOT_FOUND = "GatewayNotFound",
    /// Accepted, of a MailDomain: the MailGateway is not accepted, and none was ever in force.
    GATEWAY_NOT_ACCEPTED = "GatewayNotAccepted",
    /// ResolvedRefs: every reference leads somewhere.
    RESOLVED = "Resolved",
    /// ResolvedRefs: a Service is missing, or none that a route can use.
    SERVICE_NOT_FOUND = "ServiceNotFound",
    /// ResolvedRefs: a ConfigMap with authorities is missing.
    AUTHORITY_NOT_FOUND = "AuthorityNotFound",
    /// Others than Accepted: the newest form is not accepted.
    NOT_ACCEPTED = "NotAccepted",
    /// Programmed: every Ready verdict pod had this form in force.
    PROGRAMMED = "Programmed",
    /// Programmed: not every Ready verdict pod has it yet, for the first time.
    PENDING = "Pending",
    /// Programmed: not every Ready verdict pod has this form yet; an older one was in force everywhere.
    UPDATING = "Updating",
    /// Programmed, Ready: a reference leads nowhere and never did.
    REFS_NOT_RESOLVED = "RefsNotResolved",
    /// There is no Ready verdict pod to ask.
    NO_VERDICT_PODS = "NoVerdictPods",
    /// Programmed: most mail domains would go, which waits for a confirmation.
    MASS_REMOVAL = "MassRemoval",
    /// Programmed: a piece of the policy does not fit into a ConfigMap.
    SNAPSHOT_TOO_LARGE = "SnapshotTooLarge",
    /// Programmed: the API server did not take it.
    PUBLISH_FAILED = "PublishFailed",
    /// Programmed: a Ready verdict pod does not read the format that this operator writes.
    FORMAT_NOT_READABLE = "FormatNotReadable",
    /// Programmed: a newer operator published in a format that this one does not know.
    NEWER_FORMAT = "NewerFormat",
    /// UpstreamReachable: the last transaction reached one.
    REACHED = "Reached",
    /// UpstreamReachable: the last transaction reached none.
    UNREACHABLE = "Unreachable",
    /// UpstreamReachable: no verdict pod has seen mail for it.
    NO_MAIL = "NoMail",
    /// UpstreamReachable: nothing of the object is in force, so it gets no mail.
    NOT_IN_FORCE = "NotInForce",
    /// Ready: all is well.
    READY = "Ready",
    /// Ready: it is not Programmed.
    NOT_PROGRAMMED = "NotProgrammed",
    /// Ready: the upstream was not reached.
    UPSTREAM_UNREACHABLE = "UpstreamUnreachable",
    /// ClientIPPreserved: no client had an address that no sender on the internet has.
    PRESERVED = "Preserved",
    /// ClientIPPreserved: some had, within the last hour.
    SUSPECT_ADDRESSES = "SuspectAddresses",
    /// No verdict pod answered.
    NO_ANSWER = "NoAnswer",
    /// ListsUsable, ReputationClean: the MailGateway names no list.
    NO_LISTS = "NoLists",
    /// ListsUsable: every list answers its probes.
    USABLE = "Usable",
    /// ListsUsable: a list does not, and is not asked.
    LIST_UNUSABLE = "ListUnusable",
    /// ListsUsable, ReputationClean: no pod says anything of a list.
    NOT_REPORTED = "NotReported",
    /// ReputationClean: no list names one of our addresses.
    NOT_LISTED = "NotListed",
    /// ReputationClean: one does.
    OWN_ADDRESS_LISTED = "OwnAddressListed",
}
