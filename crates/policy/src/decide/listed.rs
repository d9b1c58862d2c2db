//! What the DNS lists mean for one recipient. Which of them are asked at all is the mail domain's to say, and the range's.

use std::sync::Arc;

use torwart_core::{CheckOutcome, CheckResult};

use crate::dns_lists::{ListFinding, ListKind};
use crate::model::{Enforcement, Policy, Range};

use super::because::Step;
use super::{Facts, Screened, Screening, Target};

/// On whose behalf lists are asked.
pub(super) struct Use<'p> {
    pub(super) target: Target<'p>,
    pub(super) range: Option<&'p Range>,
    pub(super) suspect: bool,
}

/// What they add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Weighed {
    pub(super) score: f32,
    /// The block lists alone.
    pub(super) against: f32,
    /// The block list that weighs most.
    pub(super) heaviest: Option<Arc<str>>,
    /// An allow list knows the client.
    pub(super) allowed: bool,
}

pub(super) fn weigh(user: &Use<'_>, findings: &[ListFinding]) -> Weighed {
    let mut weighed = Weighed::default();
    let mut heaviest = 0.0;
    for finding in findings.iter().filter(|finding| user.counts(&finding.list)) {
        weighed.score += finding.score;
        let listed = finding.result == CheckOutcome::Listed;
        match finding.kind {
            ListKind::Allow => weighed.allowed |= listed && finding.score < 0.0,
            ListKind::Block => {
                weighed.against += finding.score;
                if listed && finding.score > heaviest {
                    heaviest = finding.score;
                    weighed.heaviest = Some(Arc::clone(&finding.list));
                }
            }
        }
    }
    weighed
}

/// The findings as results of checks, with the score that they added for any of the recipients.
pub(super) fn results(screening: &Screening<'_>, facts: &Facts<'_>) -> Vec<CheckResult> {
    let users: Vec<Use<'_>> = screening.recipients.iter().filter_map(Use::of).collect();
    let result = |finding: &ListFinding| {
        let counts = users.iter().any(|user| user.counts(&finding.list));
        let detail = if counts || finding.score == 0.0 {
            Arc::clone(&finding.detail)
        } else {
            format!("{} (Monitor: {:+} is not counted)", finding.detail, finding.score).into()
        };
        CheckResult {
            name: Arc::clone(&finding.check),
            result: finding.result,
            score: if counts { finding.score } else { 0.0 },
            detail,
            milliseconds: finding.milliseconds,
        }
    };
    facts.dns_lists.iter().map(result).collect()
}

// === impl Use ===

impl<'p> Use<'p> {
    fn of(screened: &Screened<'p>) -> Option<Self> {
        let range = screened.range.map(|held| held.range);
        Some(Self { target: screened.target?, range, suspect: screened.suspect })
    }

    fn asks(&self, list: &str) -> bool {
        let check = &self.target.domain.dns_lists;
        let enabled = self.range.and_then(|range| range.dns_lists).unwrap_or(check.enabled);
        enabled && !self.suspect && (check.only.is_empty() || check.only.iter().any(|name| **name == *list))
    }

    fn counts(&self, list: &str) -> bool {
        self.asks(list) && self.target.domain.dns_lists.enforcement == Enforcement::Enforce
    }
}

// === impl Screening ===

impl Screening<'_> {
    /// The names of the DNS lists whose word may change something: those of recipients about whom nothing else has
    /// decided before.
    pub fn wanted_lists<'p>(&self, policy: &'p Policy) -> Vec<&'p str> {
        let lists = &policy.gateway.dns_lists;
        if lists.is_empty() {
            return Vec::new();
        }
        let open = self.recipients.iter().filter(|screened| !screened.step.precedes_checks());
        let users: Vec<Use<'_>> = open.filter_map(Use::of).collect();
        let names = lists.iter().map(|list| &*list.name);
        names.filter(|name| users.iter().any(|user| user.asks(name))).collect()
    }
}

// === impl Step ===

impl Step {
    /// Whether what is decided here is decided without any check.
    fn precedes_checks(self) -> bool {
        match self {
            Self::Domain
            | Self::RoutedLocalPart
            | Self::DeclaredSize
            | Self::RefusingRange
            | Self::MissingTls
            | Self::DeniedRecipient
            | Self::TrustedRange
            | Self::ExemptRecipient
            | Self::SenderLists => true,
            Self::Score
            | Self::UngreylistedRecipient
            | Self::GreylistingOff
            | Self::SuspectClient
            | Self::NotSuspicious
            | Self::Greylist => false,
        }
    }
}
