//! What the edge asks.

use torwart_core as core;

use super::{Malformed, parts};
use crate::v1;

impl From<&core::ConnectionQuestion> for v1::CheckConnectionRequest {
    fn from(question: &core::ConnectionQuestion) -> Self {
        let core::ConnectionQuestion { peer } = question;
        Self { peer: Some(parts::peer(peer)) }
    }
}

impl TryFrom<v1::CheckConnectionRequest> for core::ConnectionQuestion {
    type Error = Malformed;

    fn try_from(request: v1::CheckConnectionRequest) -> Result<Self, Malformed> {
        let v1::CheckConnectionRequest { peer } = request;
        Ok(Self { peer: parts::to_peer(peer)? })
    }
}

impl From<&core::RecipientsQuestion> for v1::CheckRecipientsRequest {
    fn from(question: &core::RecipientsQuestion) -> Self {
        let core::RecipientsQuestion { peer, transaction, envelope, recipients, accepted_before } = question;
        Self {
            peer: Some(parts::peer(peer)),
            transaction_id: parts::id(*transaction),
            envelope: Some(parts::envelope(envelope)),
            recipients: recipients.iter().map(parts::mailbox).collect(),
            accepted_before: *accepted_before,
        }
    }
}

impl TryFrom<v1::CheckRecipientsRequest> for core::RecipientsQuestion {
    type Error = Malformed;

    fn try_from(request: v1::CheckRecipientsRequest) -> Result<Self, Malformed> {
        let v1::CheckRecipientsRequest { peer, transaction_id, envelope, recipients, accepted_before } =
            request;
        if recipients.is_empty() {
            return Err(Malformed::new("recipients", "there is none"));
        }
        Ok(Self {
            peer: parts::to_peer(peer)?,
            transaction: parts::to_id(&transaction_id, "transaction_id")?,
            envelope: parts::to_envelope(envelope)?,
            recipients: parts::to_recipients(recipients)?,
            accepted_before,
        })
    }
}
