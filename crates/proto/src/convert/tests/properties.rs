use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use torwart_core::{
    Action, BodyPart, ConnectionAnswer, ConnectionQuestion, Delivery, MessageAnswer, MessageQuestion,
    RecipientsAnswer, RecipientsQuestion, Route,
};

use super::super::Malformed;
use super::values;
use crate::v1;

/// To the wire, over it as bytes, and back.
fn round_trip<'a, T, W>(value: &'a T) -> T
where
    W: From<&'a T> + Message + Default,
    T: TryFrom<W, Error = Malformed>,
{
    let bytes = W::from(value).encode_to_vec();
    W::decode(bytes.as_slice()).unwrap().try_into().unwrap()
}

/// What `bytes`, as far as they are a message at all, are taken for.
fn taken<W, T>(bytes: &[u8]) -> Option<Result<T, Malformed>>
where
    W: Message + Default,
    T: TryFrom<W, Error = Malformed>,
{
    W::decode(bytes).ok().map(T::try_from)
}

/// Debug shows every field, and floats so that they read back.
fn assert_same(one: &impl Debug, other: &impl Debug) -> Result<(), TestCaseError> {
    prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
    Ok(())
}

/// An edge can say it to a client, whatever the verdict sent.
fn assert_sayable(answer: &RecipientsAnswer) -> Result<(), TestCaseError> {
    for verdict in &answer.recipients {
        let class = match verdict.action {
            Action::Accept => {
                prop_assert!(verdict.route.is_some() && verdict.class.is_some(), "{verdict:?}");
                prop_assert!(verdict.reply.is_none(), "{verdict:?}");
                continue;
            }
            Action::Defer => 4,
            Action::Reject => 5,
        };
        prop_assert_eq!(verdict.reply.as_ref().map(|reply| reply.code / 100), Some(class));
    }
    let replies = answer.recipients.iter().flat_map(|verdict| [&verdict.reply, &verdict.refuse_data]);
    for reply in replies.flatten() {
        prop_assert_eq!(u16::from(reply.enhanced.0), reply.code / 100);
        let line = reply.to_string();
        prop_assert!(line.len() < 450 && line.bytes().all(|c| (b' '..=b'~').contains(&c)), "{line}");
    }
    for deliver_to in answer.recipients.iter().filter_map(|verdict| verdict.deliver_to.as_ref()) {
        prop_assert!(!deliver_to.to_string().bytes().any(|c| c.is_ascii_control()), "{deliver_to:?}");
    }
    Ok(())
}

/// An edge can write its fields on top of a message, and nothing else comes of them.
fn assert_writable(answer: &MessageAnswer) -> Result<(), TestCaseError> {
    let class = answer.reply.as_ref().map(|reply| reply.code / 100);
    let expected = match answer.action {
        Action::Accept => None,
        Action::Defer => Some(4),
        Action::Reject => Some(5),
    };
    prop_assert_eq!(class, expected);
    for field in &answer.add_fields {
        let text = format!("{field}\r\n");
        for (i, line) in text.split_inclusive("\r\n").enumerate() {
            let line = line.strip_suffix("\r\n").unwrap();
            prop_assert!(
                line.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)),
                "{field:?}"
            );
            prop_assert!(!line.trim().is_empty() && line.starts_with([' ', '\t']) == (i > 0), "{field:?}");
        }
    }
    prop_assert!(answer.remove_fields.iter().all(|name| !name.is_empty() && &**name != "*"));
    Ok(())
}

/// Bytes of a good message, a few of them changed.
fn spoil(mut bytes: Vec<u8>, changes: Vec<(prop::sample::Index, u8)>) -> Vec<u8> {
    if !bytes.is_empty() {
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
    }
    bytes
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
}

proptest! {
    #[test]
    fn a_connection_question_survives_the_wire(peer in values::peer()) {
        let question = ConnectionQuestion { peer };
        assert_same(&round_trip::<_, v1::CheckConnectionRequest>(&question), &question)?;
    }

    #[test]
    fn a_recipients_question_survives_the_wire(question in values::recipients_question()) {
        assert_same(&round_trip::<_, v1::CheckRecipientsRequest>(&question), &question)?;
    }

    #[test]
    fn a_delivery_survives_the_wire(delivery in values::delivery()) {
        assert_same(&round_trip::<_, v1::ReportOutcomeRequest>(&delivery), &delivery)?;
    }

    #[test]
    fn a_connection_answer_survives_the_wire(answer in values::connection_answer()) {
        assert_same(&round_trip::<_, v1::CheckConnectionResponse>(&answer), &answer)?;
    }

    #[test]
    fn a_recipients_answer_survives_the_wire(answer in values::recipients_answer()) {
        assert_same(&round_trip::<_, v1::CheckRecipientsResponse>(&answer), &answer)?;
    }

    #[test]
    fn a_message_question_survives_the_wire(question in values::message_question()) {
        assert_same(&round_trip::<_, v1::MessageBegin>(&question), &question)?;
    }

    #[test]
    fn a_message_answer_survives_the_wire(answer in values::message_answer()) {
        assert_same(&round_trip::<_, v1::CheckMessageResponse>(&answer), &answer)?;
    }

    #[test]
    fn a_piece_of_a_message_survives_the_wire(bytes in vec(any::<u8>(), 0..200), size in any::<u64>()) {
        for part in [BodyPart::Chunk(bytes), BodyPart::End { size }] {
            let bytes = v1::CheckMessageRequest::from(part.clone()).encode_to_vec();
            prop_assert_eq!(taken::<v1::CheckMessageRequest, BodyPart>(&bytes).unwrap().unwrap(), part);
        }
    }

    #[test]
    fn a_route_survives_the_wire(route in values::route()) {
        prop_assert_eq!(round_trip::<_, v1::Route>(&route), route);
    }

    #[test]
    fn arbitrary_bytes_are_taken_or_refused_and_nothing_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _ = taken::<v1::CheckConnectionRequest, ConnectionQuestion>(&bytes);
        let _ = taken::<v1::CheckRecipientsRequest, RecipientsQuestion>(&bytes);
        let _ = taken::<v1::ReportOutcomeRequest, Delivery>(&bytes);
        let _ = taken::<v1::CheckConnectionResponse, ConnectionAnswer>(&bytes);
        let _ = taken::<v1::Route, Route>(&bytes);
        let _ = taken::<v1::MessageBegin, MessageQuestion>(&bytes);
        let _ = taken::<v1::CheckMessageRequest, BodyPart>(&bytes);
        if let Some(Ok(answer)) = taken::<v1::CheckMessageResponse, MessageAnswer>(&bytes) {
            assert_writable(&answer)?;
        }
        if let Some(Ok(answer)) = taken::<v1::CheckRecipientsResponse, RecipientsAnswer>(&bytes) {
            assert_sayable(&answer)?;
        }
    }

    #[test]
    fn a_spoiled_request_is_taken_or_refused_and_nothing_panics(
        question in values::recipients_question(),
        delivery in values::delivery(),
        changes in changes(),
    ) {
        let bytes = spoil(v1::CheckRecipientsRequest::from(&question).encode_to_vec(), changes.clone());
        let _ = taken::<v1::CheckRecipientsRequest, RecipientsQuestion>(&bytes);
        let bytes = spoil(v1::ReportOutcomeRequest::from(&delivery).encode_to_vec(), changes);
        let _ = taken::<v1::ReportOutcomeRequest, Delivery>(&bytes);
    }

    #[test]
    fn whatever_a_verdict_answers_can_be_said_to_a_client(
        answer in values::recipients_answer(),
        message in values::message_answer(),
        route in values::route(),
        changes in changes(),
    ) {
        let bytes = spoil(v1::CheckRecipientsResponse::from(&answer).encode_to_vec(), changes.clone());
        if let Some(Ok(answer)) = taken::<v1::CheckRecipientsResponse, RecipientsAnswer>(&bytes) {
            assert_sayable(&answer)?;
        }
        let bytes = spoil(v1::CheckMessageResponse::from(&message).encode_to_vec(), changes.clone());
        if let Some(Ok(answer)) = taken::<v1::CheckMessageResponse, MessageAnswer>(&bytes) {
            assert_writable(&answer)?;
        }
        let bytes = spoil(v1::Route::from(&route).encode_to_vec(), changes);
        if let Some(Ok(route)) = taken::<v1::Route, Route>(&bytes) {
            prop_assert!(!route.upstreams.is_empty());
        }
    }
}
