//! Reports of ended transactions, told to the verdict in the background.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounter, Registry};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use torwart_core::{Delivery, Verdicts};
use tracing::{Instrument, Span};

/// What is on its way, and what was lost.
#[derive(Debug)]
pub(crate) struct Reports {
    room: Arc<Semaphore>,
    dropped: IntCounter,
}

/// What may be on its way at one time: one unit per report and one per recipient in it. At some 200 bytes each, 4 MiB
/// at most while the verdict takes none.
const ROOM: usize = 16_384;
/// How long the verdict may take to hear of a transaction.
const PATIENCE: Duration = Duration::from_secs(5);

// === impl Reports ===

impl Reports {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let dropped = IntCounter::new(
            "torwart_outcome_reports_dropped_total",
            "Reports of ended transactions that the verdict did not take in time, or for which there was no room.",
        )?;
        registry.register(Box::new(dropped.clone()))?;
        Ok(Self { room: Arc::new(Semaphore::new(ROOM)), dropped })
    }

    /// Hands one report over and does not wait for it. Where there is no room it is dropped and counted.
    pub(crate) fn send(
        &self,
        verdicts: &Arc<dyn Verdicts>,
        tasks: &TaskTracker,
        delivery: Delivery,
        span: Span,
    ) {
        let weight = u32::try_from(delivery.recipients.len().saturating_add(1).min(ROOM)).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.room).try_acquire_many_owned(weight) else {
            return self.dropped.inc();
        };
        let (verdicts, dropped) = (Arc::clone(verdicts), self.dropped.clone());
        let report = async move {
            let _permit = permit;
            if tokio::time::timeout(PATIENCE, verdicts.report_delivery(delivery)).await.is_err() {
                dropped.inc();
                tracing::debug!("a transaction's end was not taken by the verdict in time");
            }
        };
        tasks.spawn(report.instrument(span));
    }
}

#[cfg(test)]
mod tests {
    use torwart_core::{
        BoxFuture, ConnectionAnswer, ConnectionQuestion, DeliveryResult, Envelope, Id, Mailbox,
        MessageAnswer, MessageBody, MessageQuestion, Peer, RecipientsAnswer, RecipientsQuestion, Route,
        RouteDigest, Unavailable,
    };

    use super::*;

    /// A verdict that takes no report.
    struct Deaf;

    impl Verdicts for Deaf {
        fn check_connection(
            &self,
            _: ConnectionQuestion,
        ) -> BoxFuture<'_, Result<ConnectionAnswer, Unavailable>> {
            Box::pin(std::future::pending())
        }

        fn check_recipients(
            &self,
            _: RecipientsQuestion,
        ) -> BoxFuture<'_, Result<RecipientsAnswer, Unavailable>> {
            Box::pin(std::future::pending())
        }

        fn check_message(
            &self,
            _: MessageQuestion,
            _: Box<dyn MessageBody>,
        ) -> BoxFuture<'_, Result<MessageAnswer, Unavailable>> {
            Box::pin(std::future::pending())
        }

        fn report_delivery(&self, _: Delivery) -> BoxFuture<'_, ()> {
            Box::pin(std::future::pending())
        }

        fn route(&self, _: RouteDigest) -> BoxFuture<'_, Result<Arc<Route>, Unavailable>> {
            Box::pin(std::future::pending())
        }
    }

    fn delivery(recipients: usize) -> Delivery {
        let session = Id::from_u128(1);
        Delivery {
            peer: Arc::new(Peer {
                session,
                address: ([192, 0, 2, 1], 25).into(),
                helo: None,
                tls: None,
                early_talker: false,
            }),
            transaction: Id::from_u128(2),
            envelope: Arc::new(Envelope {
                sender: None,
                declared_size: None,
                eight_bit: false,
                smtputf8: false,
            }),
            recipients: vec![Mailbox::new("a", "example.org"); recipients],
            route: RouteDigest([1; 16]),
            score: 0.0,
            result: DeliveryResult::Delivered,
            upstream: None,
            upstream_reply: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_deaf_verdict_is_told_is_bounded_and_what_is_lost_is_counted() {
        let reports = Reports::new(&Registry::new()).unwrap();
        let (verdicts, tasks): (Arc<dyn Verdicts>, _) = (Arc::new(Deaf), TaskTracker::new());
        let send = |recipients| reports.send(&verdicts, &tasks, delivery(recipients), Span::none());
        for _ in 0..4 {
            send(ROOM / 4 - 1);
        }
        assert_eq!((tasks.len(), reports.dropped.get()), (4, 0));
        send(0);
        assert_eq!((tasks.len(), reports.dropped.get()), (4, 1));
        tasks.close();
        tasks.wait().await;
        assert_eq!(reports.dropped.get(), 5);
        send(2 * ROOM);
        assert_eq!(tasks.len(), 1, "there is room again, and for one of any size");
    }
}
