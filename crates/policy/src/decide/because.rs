//! Why: what the walk through the steps came upon, for whoever asks. No verdict depends on it.

use crate::model::Range;
use crate::patterns::AddressPattern;

/// What decided about one recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// No MailDomain that is in force names its domain.
    Domain,
    RoutedLocalPart,
    DeclaredSize,
    RefusingRange,
    MissingTls,
    DeniedRecipient,
    TrustedRange,
    ExemptRecipient,
    SenderLists,
    Score,
    UngreylistedRecipient,
    GreylistingOff,
    SuspectClient,
    NotSuspicious,
    Greylist,
}

/// Whose word it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// The MailGateway's.
    Gateway,
    /// The MailDomain's.
    Domain,
}

/// The IP range that holds for one recipient, whether it decided or not.
#[derive(Clone, Copy, Debug)]
pub struct Held<'p> {
    pub level: Level,
    pub range: &'p Range,
}

/// The list that decided.
#[derive(Clone, Copy, Debug)]
pub enum Listed<'p> {
    AllowedSender(Level, &'p AddressPattern),
    DeniedSender(Level, &'p AddressPattern),
    DeniedRecipient(&'p AddressPattern),
    /// There are `recipients.accept`, and the recipient is none of them.
    UnlistedRecipient,
    ExemptRecipient(&'p AddressPattern),
}

// === impl Step ===

impl Step {
    pub const ALL: [Self; 15] = [
        Self::Domain,
        Self::RoutedLocalPart,
        Self::DeclaredSize,
        Self::RefusingRange,
        Self::MissingTls,
        Self::DeniedRecipient,
        Self::TrustedRange,
        Self::ExemptRecipient,
        Self::SenderLists,
        Self::Score,
        Self::UngreylistedRecipient,
        Self::GreylistingOff,
        Self::SuspectClient,
        Self::NotSuspicious,
        Self::Greylist,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Domain => "domain",
            Self::RoutedLocalPart => "routed_local_part",
            Self::DeclaredSize => "declared_size",
            Self::RefusingRange => "refusing_range",
            Self::MissingTls => "missing_tls",
            Self::DeniedRecipient => "denied_recipient",
            Self::TrustedRange => "trusted_range",
            Self::ExemptRecipient => "exempt_recipient",
            Self::SenderLists => "sender_lists",
            Self::Score => "score",
            Self::UngreylistedRecipient => "ungreylisted_recipient",
            Self::GreylistingOff => "greylisting_off",
            Self::SuspectClient => "suspect_client",
            Self::NotSuspicious => "not_suspicious",
            Self::Greylist => "greylist",
        }
    }
}

// === impl Level ===

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Domain => "domain",
        }
    }
}
