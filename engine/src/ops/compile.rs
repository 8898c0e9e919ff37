//! Compiles plugins that were checked.

use std::sync::Arc;

use super::app::App;
use super::{Error, Result};
use crate::model::Millis;
use crate::strategy::Plugin;
use crate::strategy::contract::Rejected;

/// Time after which it is said that compiling takes long, ms.
const PATIENCE_MS: Millis = 1_500;
/// Interval at which it is said again, ms.
const AGAIN_MS: Millis = 10_000;

/// Compiles a plugin, and notes it if that takes long. `shown` is the plugin's name
/// for people.
///
/// # Errors
/// It does not fit the contract, or cannot be compiled.
pub async fn compile(app: &App, shown: &str, bytes: &[u8]) -> Result<Arc<Plugin>> {
    let host = app.ports.host()?;
    let loading = host.load(bytes);
    tokio::pin!(loading);
    let begun = app.clock.now();
    let mut late = begun + PATIENCE_MS;
    let loaded = loop {
        tokio::select! {
            loaded = &mut loading => break loaded,
            () = app.clock.sleep_until(late) => {
                let size = bytes.len().div_ceil(1 << 20);
                app.progress(match late - begun {
                    PATIENCE_MS => format!(
                        "compiling {shown} ({size} MiB); this is done once, the result is kept"
                    ),
                    ms => format!("still compiling {shown}, for {} s", ms / 1_000),
                });
                late += AGAIN_MS;
            }
        }
    };
    loaded.map_err(|e| {
        let verdict = match e {
            Rejected::Machine(_) => "cannot be loaded",
            _ => "is rejected",
        };
        Error::from(e).context(format!("plugin {shown} {verdict}"))
    })
}
