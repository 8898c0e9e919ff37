//! The binary: reads the surroundings, runs the command line, returns its code.

use std::path::PathBuf;
use std::process::ExitCode;

use engine::model::network::Network;
use engine::ops::app::Surroundings;
use engine::ops::deploy;

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
fn surroundings() -> Surroundings {
    let path = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(Into::into)
    };
    Surroundings {
        state_dir: path("ENGINE_STATE_DIR"),
        state_home: path("XDG_STATE_HOME"),
        home: path("HOME"),
        user: std::env::var("USER")
            .ok()
            .filter(|u| !u.is_empty())
            .or_else(user_id),
        ci: std::env::var("CI").is_ok_and(|v| !matches!(v.as_str(), "" | "0" | "false")),
        docker_config: path("DOCKER_CONFIG"),
        cosign_password: std::env::var("COSIGN_PASSWORD").ok(),
        policy: path("ENGINE_POLICY"),
        programs: std::env::var_os("PATH")
            .map(|all| std::env::split_paths(&all).collect())
            .unwrap_or_default(),
        plugins: own_plugins().unwrap_or_default(),
        network: Network::read(|name| std::env::var(name).ok()),
        stack: deploy::variables()
            .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
            .filter(|(_, value)| !value.is_empty())
            .collect(),
    }
}

/// The folders where the strategies may be that came with this binary: beside it, where
/// `make install` puts them, or in the sources that it was built from.
fn own_plugins() -> Option<Vec<PathBuf>> {
    let binary = std::env::current_exe().ok()?.canonicalize().ok()?;
    let folder = binary.parent()?;
    let above = folder.parent()?;
    let mut folders = vec![folder.to_owned(), above.join("share/engine/plugins")];
    // `target/debug` and `target/release`.
    if above.file_name()? == "target" {
        folders.push(above.parent()?.join("plugins"));
    }
    Some(folders)
}

/// In a container there may be no name, but there is always a number.
fn user_id() -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let this = std::fs::metadata("/proc/self").ok()?;
    Some(format!("uid {}", this.uid()))
}

#[tokio::main]
async fn main() -> ExitCode {
    match engine::cli::parse(std::env::args_os()) {
        Ok(cli) => engine::cli::main(cli, surroundings()).await,
        Err(code) => code,
    }
}
