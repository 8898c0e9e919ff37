//! A folder in which plugins are named and pinned, and what a person does there, with
//! the operations of this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::ops::app::{App, Surroundings};
use engine::ops::begin::{BeginRequest, make_ready};
use engine::ops::pin::{self, LockFile, PinRequest};
use engine::ops::plugin::check::{CheckRequest, check};
use engine::ops::plugin::inspect::{self, Inspected};
use engine::ops::plugin::registry::{self, PullRequest, PushRequest};
use engine::ops::plugin::sign::{self, SignRequest, Signature};
use engine::ops::request::TargetRequest;
use engine::ops::{Error, Result};
use engine::spec::plugins;
use engine::view::plugin as view;

use super::app::TestApp;
use crate::schemas::shown;

/// The only plugin of most projects, by its name.
pub const GATE: &str = "gate";

/// A folder of a user: `plugins.toml`, keys, what the engine keeps. A clone is the same
/// folder, and may have other surroundings and another request.
#[derive(Clone)]
pub struct Project {
    pub test: Arc<TestApp>,
    pub app: App,
    pub pins: PinRequest,
}

impl Project {
    pub fn empty() -> Self {
        let test = TestApp::surrounded(Surroundings::default());
        let mut app = test.app.clone();
        app.surroundings.cosign_password = Some("secret".to_owned());
        app.surroundings.docker_config = Some(test.at("docker"));
        let pins = PinRequest {
            plugins: Some(test.at(plugins::FILE)),
            ..PinRequest::default()
        };
        Self {
            test: Arc::new(test),
            app,
            pins,
        }
    }

    /// Where `CI=true`.
    #[must_use]
    pub fn in_ci(mut self) -> Self {
        self.app.surroundings.ci = true;
        self
    }

    /// On a host with that policy.
    #[must_use]
    pub fn under(mut self, policy: &str) -> Self {
        self.app.surroundings.policy = Some(self.at(policy));
        self
    }

    /// As with `--locked`.
    #[must_use]
    pub fn locked(mut self) -> Self {
        self.pins.locked = true;
        self
    }

    /// As with `--offline`.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.pins.offline = true;
        self
    }

    /// As with `--frozen`.
    #[must_use]
    pub fn frozen(self) -> Self {
        self.locked().offline()
    }

    /// Without a file that gives names.
    #[must_use]
    pub fn nameless(mut self) -> Self {
        self.pins.plugins = None;
        self
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.test.at(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        self.test.write(name, text);
    }

    /// The text of its lock; empty if there is none.
    pub fn lock_file(&self) -> String {
        std::fs::read_to_string(self.at("plugins.lock")).unwrap_or_default()
    }

    /// What was told so far, and forgets it.
    pub fn heard(&self) -> String {
        self.test.heard()
    }

    /// Looks at the plugin by its name; needs everything that a rollout needs.
    pub async fn look(&self) -> Result<Inspected> {
        self.inspect(GATE).await
    }

    /// The name that the plugin gives itself.
    pub async fn looks_like(&self) -> String {
        self.look().await.expect("it may run").description.name
    }

    pub async fn inspect(&self, plugin: impl AsRef<Path>) -> Result<Inspected> {
        let seen = inspect::inspect(&self.app, &self.pins, plugin.as_ref()).await?;
        shown(&view::Inspection::from(&seen));
        Ok(seen)
    }

    pub async fn lock(&self) -> Result<LockFile> {
        pin::lock(&self.app, &self.pins).await
    }

    /// Updates all plugins, whatever they may do now.
    pub async fn update(&self) -> Result<LockFile> {
        pin::update(&self.app, &self.pins, &[], true).await
    }

    /// Verifies all plugins; the first that is not as pinned.
    pub async fn verify(&self) -> Result<()> {
        let all = pin::verify(&self.app, &self.pins, &[]).await?;
        shown(&view::Verification::from(&all[..]));
        all.into_iter().try_for_each(|one| one.result.map(|_| ()))
    }

    pub async fn vendor(&self) -> Result<Option<PathBuf>> {
        pin::vendor(&self.app, &self.pins).await
    }

    /// Checks the plugin by its name.
    pub async fn check(&self) -> Result<()> {
        let request = CheckRequest {
            plugin: GATE.into(),
            set: vec![],
            queries: vec![],
            pins: self.pins.clone(),
        };
        let checked = check(&self.app, request).await?;
        shown(&view::Check::from(&checked));
        checked.verdict()
    }

    /// Gets a rollout with that plugin ready, or with that of its rollout file.
    pub async fn get_ready(&self, plugin: Option<&Path>) -> Result<()> {
        let file = self.at("rollout.toml");
        let request = BeginRequest {
            target: TargetRequest {
                file: file.exists().then_some(file),
                ..TargetRequest::default()
            },
            plugin: plugin.map(Path::to_owned),
            pins: self.pins.clone(),
            ..BeginRequest::default()
        };
        make_ready(&self.app, &request).await.map(|_| ())
    }

    /// Makes a pair of keys.
    pub fn keys(&self, prefix: &str) -> Result<sign::Keys> {
        let prefix = self.at(prefix).display().to_string();
        sign::keys(&self.app, &prefix, &|_| Ok(None))
    }

    /// Signs a name, a reference or a file with a key of this folder.
    pub async fn sign(&self, plugin: &str, key: &str) -> Result<Signature> {
        let request = SignRequest {
            plugin: plugin.to_owned(),
            key: self.at(key),
            ca_files: vec![],
            pins: self.pins.clone(),
        };
        sign::sign(&self.app, request, &|_| Ok(None)).await
    }

    /// Signs a file of this folder.
    pub async fn sign_file(&self, file: &str, key: &str) -> Result<Signature> {
        self.sign(&self.at(file).display().to_string(), key).await
    }

    /// Pushes; the exact reference.
    pub async fn publish(&self, request: PushRequest) -> Result<String> {
        let pushed = registry::push(&self.app, request, &|_| Ok(None)).await?;
        shown(&view::Push::from(&pushed));
        Ok(pushed.exact)
    }

    /// Writes a name or a reference to a file of this folder.
    pub async fn pull(&self, plugin: &str, output: &str) -> Result<()> {
        let request = PullRequest {
            plugin: Some(plugin.to_owned()),
            output: Some(self.at(output)),
            ca_files: vec![],
            pins: self.pins.clone(),
        };
        registry::pull(&self.app, request, &mut |_| ()).await
    }
}

/// What was done.
#[track_caller]
pub fn done<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
