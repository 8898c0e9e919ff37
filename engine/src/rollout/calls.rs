//! What a strategy can ask of whoever runs it.

use async_trait::async_trait;

use crate::journal::{Call, Reply};
use crate::model::{HostError, Millis};

/// The strategy's calls end here. The reason of an interruption stays with the
/// callee, because a guest could not carry it.
#[async_trait]
pub trait Calls: Send + Sync {
    /// Answers a call, or says that the strategy must stop at once.
    async fn perform(&self, call: Call) -> Result<Reply, Interrupted>;
    /// The same for a call whose arguments the host does not take. It is performed
    /// by nobody, and else a call like all others: journaled, counted, interrupted.
    async fn refuse(&self, call: Call, why: HostError) -> Result<Reply, Interrupted>;
    /// Time of the last answer.
    fn now(&self) -> Millis;
    /// Names of the probes.
    fn probes(&self) -> Vec<String>;
}

/// The strategy must stop here; whoever started it knows why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by the host")]
pub struct Interrupted;
