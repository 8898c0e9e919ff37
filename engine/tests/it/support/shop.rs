//! A stack that comes, changes and goes with the operations of this process.

use std::sync::Mutex;

use engine::ops::Result;
use engine::ops::deploy::{
    Deleted, DeployRequest, Deployed, Deployment, Seen, Template, Watcher, delete, deploy, doomed,
};
use engine::ops::request::TargetRequest;
use engine::ops::traffic::set_weights;

use super::app::{TestApp, on_aws, on_stack, texts};
use super::aws::emulator::unique;
use super::aws::parameter;

/// The images of a new stack with the names of the canary.
pub const IMAGES: [&str; 2] = ["ImageURIStable=app:v1", "ImageURICanary=app:v1"];

/// Nobody looks, and nobody asks it to stop.
struct Unwatched;

impl Watcher for Unwatched {
    fn see(&self, _: Seen<'_>) {}
    fn stops(&self) -> u32 {
        0
    }
}

/// Does something once, at the first event of an operation, and then wants to leave as
/// often as is said.
pub struct Meanwhile<F> {
    act: Mutex<Option<F>>,
    stops: u32,
}

impl<F: FnOnce() + Send> Meanwhile<F> {
    pub fn new(act: F) -> Self {
        Self::leaving(act, 0)
    }

    pub fn leaving(act: F, stops: u32) -> Self {
        Self {
            act: Mutex::new(Some(act)),
            stops,
        }
    }
}

impl<F: FnOnce() + Send> Watcher for Meanwhile<F> {
    fn see(&self, seen: Seen<'_>) {
        if matches!(seen, Seen::Event(_))
            && let Some(act) = self.act.lock().expect("no panic").take()
        {
            tokio::task::block_in_place(act);
        }
    }

    fn stops(&self) -> u32 {
        let acted = self.act.lock().expect("no panic").is_none();
        if acted { self.stops } else { 0 }
    }
}

/// Wants to leave from the beginning.
pub struct Leaving;

impl Watcher for Leaving {
    fn see(&self, _: Seen<'_>) {}
    fn stops(&self) -> u32 {
        1
    }
}

/// A stack that is deployed again and again.
pub struct Shop {
    pub test: TestApp,
    pub target: TargetRequest,
    region: String,
}

impl Shop {
    /// One that is not there yet.
    pub fn new(region: &str) -> Self {
        Self::named(region, &unique("shop"))
    }

    /// The one of that name.
    pub fn named(region: &str, name: &str) -> Self {
        Self::of(TestApp::new(), region, name)
    }

    /// The one of that name, for somebody.
    pub fn of(test: TestApp, region: &str, name: &str) -> Self {
        Self {
            test: test.hurried(),
            target: on_aws(on_stack(region, name)),
            region: region.to_owned(),
        }
    }

    /// The stack, made anew.
    pub async fn open(region: &str) -> Self {
        let shop = Self::new(region);
        let made = shop.deploy(shop.request(&IMAGES)).await.expect("made");
        assert_eq!(made.result, Deployment::Done);
        let stack = made.stack.expect("it is there");
        assert_eq!(stack.status, "CREATE_COMPLETE");
        assert!(stack.outputs.contains_key("ListenerArn"));
        shop
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.target.aws.stack.as_deref().expect("named")
    }

    pub fn request(&self, parameters: &[&str]) -> DeployRequest {
        DeployRequest {
            target: self.target.clone(),
            kind: Template::Canary,
            template: None,
            parameters: texts(parameters),
            file_of_parameters: None,
            stack_role: None,
            accept_weights: false,
            accept: false,
            accept_replacement: false,
            dry_run: false,
        }
    }

    pub async fn deploy(&self, request: DeployRequest) -> Result<Deployed> {
        self.deploy_with(request, &Unwatched).await
    }

    /// The same while somebody watches.
    pub async fn deploy_with(
        &self,
        request: DeployRequest,
        watcher: &dyn Watcher,
    ) -> Result<Deployed> {
        let done = deploy(&self.test.app, &request, watcher).await?;
        crate::schemas::shown(&engine::view::stack::Deployed::from(&done));
        Ok(done)
    }

    /// Deletes it.
    pub async fn delete(&self) -> Result<()> {
        let doomed = doomed(&self.test.app, &self.target).await?;
        let Deleted::Gone(stack) = delete(&self.test.app, &doomed, &Unwatched).await? else {
            panic!("nobody stopped it");
        };
        assert_eq!(stack.status, "DELETE_COMPLETE");
        Ok(())
    }

    /// The share of the canary, in percent.
    pub async fn share(&self) -> f64 {
        let (_, target) = self.test.app.target(&self.target).await.expect("found");
        let live = target.observe().await.expect("reachable");
        live.weights().share("canary")
    }

    /// What the AWS CLI shows as a parameter of the stack.
    pub fn parameter(&self, key: &str) -> String {
        parameter(&self.region, self.name(), key)
    }

    pub async fn set(&self, weights: [&str; 2]) {
        let moved = set_weights(&self.test.app, &self.target, &texts(&weights)).await;
        moved.expect("done");
    }
}
