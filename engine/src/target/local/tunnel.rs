//! What follows the head that opens a tunnel, such as a WebSocket.

use std::sync::atomic::{AtomicBool, Ordering};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split};

/// How much of the first part is read at once, bytes.
const FIRST_BYTES: usize = 8 * 1024;

/// Both ends of a tunnel, once they are there.
pub(super) struct Tunnel<C> {
    pub(super) client: OnUpgrade,
    pub(super) backend: OnUpgrade,
    /// What counts it for as long as it is open.
    pub(super) counted: C,
}

impl<C> Tunnel<C> {
    /// Passes on what both ends say, until both are done or one breaks; whether the backend
    /// never said anything.
    pub(super) async fn was_silent(self) -> bool {
        let _counted = self.counted;
        let (Ok(client), Ok(backend)) = tokio::join!(self.client, self.backend) else {
            return false;
        };
        let (mut from_client, mut to_client) = split(TokioIo::new(client));
        let (mut from_backend, mut to_backend) = split(TokioIo::new(backend));
        let heard = AtomicBool::new(false);
        let up = async {
            copy(&mut from_client, &mut to_backend).await?;
            to_backend.shutdown().await
        };
        let down = async {
            let mut first = vec![0; FIRST_BYTES];
            let count = from_backend.read(&mut first).await?;
            heard.store(count > 0, Ordering::Relaxed);
            to_client.write_all(&first[..count]).await?;
            drop(first);
            copy(&mut from_backend, &mut to_client).await?;
            to_client.shutdown().await
        };
        let _ = tokio::try_join!(up, down);
        !heard.into_inner()
    }
}
