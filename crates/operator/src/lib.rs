//! From custom resources to a published policy.
//!
//! This crate will watch MailGateway and MailDomain, compile them with `torwart-policy`, publish the snapshot
//! that verdict pods read, and write conditions. It is empty until then: on one machine the policy comes from
//! files, through the same `compile`.
