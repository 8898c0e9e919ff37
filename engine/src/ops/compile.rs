//! Compiles plugins that were checked.

use std::sync::Arc;

use super::app::App;
use super::{Error, Result};
use crate::model::Millis;
use crate::strategy::Plugin;

/// Time after which a note says that compiling takes long, ms.
const PATIENCE_MS: Millis = 1_500;

/// Compiles a plugin, and notes it if that takes long. `shown` is the plugin's name
/// for people.
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
                "compiling {shown} ({} MiB); this is done once, the result is kept",
                bytes.len().div_ceil(1 << 20)
            ));
            loading.await
        }
    };
    loaded.map_err(|e| Error::from(e).context(format!("plugin {shown} is rejected")))
}
