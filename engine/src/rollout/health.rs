//! How a way back asks for the health of the arms: beside the traffic, and not for long. What
//! users came from may harm them all the while, and a load balancer that does not say how its
//! backends are may serve well from them.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::clock::Clock;
use crate::model::{ArmHealth, ErrorKind, HostError, Millis};
use crate::target::Target;

/// How long a way back waits for the health of the arms, ms.
const WITHIN_MS: Millis = 10_000;
/// For how long a way back that went without it does not wait for it again, ms.
pub(super) const OVERLOOKED_MS: Millis = 60_000;
/// Longest pause between two tries, ms.
const PAUSE_MAX_MS: Millis = 2_000;

/// Asks for the health of the arms.
pub(super) struct AskForHealth {
    pub(super) target: Arc<dyn Target>,
    pub(super) clock: Arc<dyn Clock>,
    /// Pause before the second try, ms; it doubles each time.
    pub(super) retry_ms: Millis,
    /// Whether it was waited for a moment ago, and in vain.
    pub(super) in_vain: bool,
}

impl AskForHealth {
    /// What is read beside the health, and the health. It is not waited for where the other
    /// fails, because then nothing is done with it.
    pub(super) async fn beside<T>(
        &self,
        other: impl Future<Output = Result<T, HostError>>,
    ) -> (Result<T, HostError>, Result<Vec<ArmHealth>, HostError>) {
        let (mut other, mut health) = (pin!(other), pin!(self.read()));
        let mut early = None;
        let read = loop {
            tokio::select! {
                biased;
                read = &mut other => break read,
                read = &mut health, if early.is_none() => early = Some(read),
            }
        };
        let health = match (&read, early) {
            (_, Some(early)) => early,
            (Ok(_), None) if self.in_vain => Err(silent(None)),
            (Ok(_), None) => health.await,
            (Err(error), None) => Err(error.clone()),
        };
        (read, health)
    }

    /// The health, with tries again for what may pass; in real time, because a target that is
    /// silent is so whatever clock the rollout has.
    async fn read(&self) -> Result<Vec<ArmHealth>, HostError> {
        let give_up = self.clock.now().saturating_add(WITHIN_MS);
        let mut last = None;
        let tries = async {
            let mut pause = self.retry_ms;
            loop {
                match self.target.health().await {
                    Err(error) if error.retryable && self.clock.now() < give_up => {
                        last = Some(error);
                    }
                    read => return read,
                }
                let again = self.clock.now().saturating_add(pause);
                self.clock.sleep_until(again).await;
                pause = (pause * 2).min(PAUSE_MAX_MS);
            }
        };
        // Where a target answers at once, as simulated ones do, there is no time to pass.
        let read = {
            let mut tries = pin!(tries);
            match poll_fn(|cx| Poll::Ready(tries.as_mut().poll(cx))).await {
                Poll::Ready(read) => Ok(read),
                Poll::Pending => {
                    let within = Duration::from_millis(WITHIN_MS);
                    tokio::time::timeout(within, tries).await
                }
            }
        };
        read.unwrap_or_else(|_| Err(last.unwrap_or_else(|| silent(Some(WITHIN_MS)))))
    }
}

/// The error of a load balancer that does not say how the backends are.
fn silent(waited_ms: Option<Millis>) -> HostError {
    let time = waited_ms.map_or_else(
        || "in time".to_owned(),
        |ms| format!("within {} s", ms / 1_000),
    );
    let message = format!("the load balancer did not say {time} how the backends are");
    HostError::new(ErrorKind::Unavailable, "silent-health", message).retryable()
}
