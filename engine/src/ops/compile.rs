//! Bytes that nothing speaks against, compiled.

use std::sync::Arc;

use super::app::App;
use super::{Error, Result};
use crate::model::Millis;
use crate::strategy::Plugin;

/// Components of other languages take their time.
const PATIENCE_MS: Millis = 1_500;

/// Compiles a plugin, and says so if that takes long. `shown` is what people call
/// it.
///
/// # Errors
/// It does not fit the contract, or cannot be compiled.
pub async fn compile(app: &App, shown: &str, bytes: &[u8]) -> Result<Arc<Plugin>> {
    let host = app.ports.host()?;
    let loading = host.load(bytes);
    tokio::pin!(loading);
    let late = app.clock.now() + PATIENCE_MS;
    let loaded = tokio::select! {
        loaded = &mut loading => loaded,
        () = app.clock.sleep_until(late) => {
            app.progress(format!(
                "compiling {shown} ({} MiB); once is enough, the result is kept",
                bytes.len().div_ceil(1 << 20)
            ));
            loading.await
        }
    };
    loaded.map_err(|e| Error::from(e).context(format!("plugin {shown} is rejected")))
}
