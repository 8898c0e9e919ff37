//! The operations without a front end: an app in this process, over a store in
//! memory, whose news are kept.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use engine::cli::advice;
use engine::clock::VirtualClock;
use engine::ops::app::{App, Surroundings};
use engine::ops::begin::{self, BeginRequest};
use engine::ops::news::{Listener, News};
use engine::ops::ports::Ports;
use engine::ops::request::{AwsRequest, TargetRequest};
use engine::ops::watch::{self, Audience, Happened, Left, Watched, Wish};
use engine::ops::{Error, Kind, Result};
use engine::rollout::fleet::Fleet;
use engine::rollout::{Options, Standing};
use engine::store::memory::MemoryStore;

use super::aws::bottle::{Made, REGION, impatient};
use super::aws::emulator;
use super::guests::guest_path;
use super::lab::{START, stopped};
use super::{folder, target_folder};

/// Who asks in these tests.
pub const ACTOR: &str = "tester";

/// An app, and what its operations said.
pub struct TestApp {
    pub app: App,
    pub store: Arc<MemoryStore>,
    news: Arc<Mutex<Vec<News>>>,
    folder: tempfile::TempDir,
}

impl TestApp {
    /// With the emulator as AWS.
    pub fn new() -> Self {
        Self::through(&emulator::endpoint())
    }

    /// With AWS at that address.
    pub fn through(endpoint: &str) -> Self {
        Self::with(endpoint, Surroundings::default())
    }

    /// In surroundings of its own.
    pub fn surrounded(surroundings: Surroundings) -> Self {
        Self::with("http://127.0.0.1:1", surroundings)
    }

    fn with(endpoint: &str, surroundings: Surroundings) -> Self {
        let folder = folder();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).expect("writable");
        // Compiling a plugin takes seconds, and all tests have the same ones.
        let compiled = target_folder().join("test-compiled");
        std::fs::create_dir_all(&compiled).expect("writable");
        std::os::unix::fs::symlink(&compiled, state.join("compiled")).expect("a link");
        let news: Arc<Mutex<Vec<News>>> = Arc::default();
        let heard = news.clone();
        let listener: Listener = Arc::new(move |news| heard.lock().expect("no panic").push(news));
        let store = Arc::new(MemoryStore::default());
        let ports = Ports::new(&state, store.clone(), listener.clone());
        let ports = ports.with_patience(impatient(endpoint));
        let surroundings = Surroundings {
            user: Some(ACTOR.to_owned()),
            ..surroundings
        };
        Self {
            app: App::over(&state, surroundings, (store.clone(), ports), listener),
            store,
            news,
            folder,
        }
    }

    /// The same app in other surroundings.
    pub fn within(&self, change: impl FnOnce(&mut Surroundings)) -> App {
        let mut app = self.app.clone();
        change(&mut app.surroundings);
        app
    }

    /// Another process that has the same store, and remembers nothing else.
    pub fn restarted(&self) -> App {
        let App {
            state_dir,
            surroundings,
            listener,
            ..
        } = self.app.clone();
        let ports = Ports::new(&state_dir, self.store.clone(), listener.clone());
        App::over(
            &state_dir,
            surroundings,
            (self.store.clone(), ports),
            listener,
        )
    }

    /// Where waiting takes no time.
    #[must_use]
    pub fn hurried(mut self) -> Self {
        self.app.clock = Arc::new(VirtualClock::new(START));
        self
    }

    /// A place in its folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into its folder.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let place = self.at(name);
        std::fs::write(&place, bytes).expect("writable");
        place
    }

    /// What was told so far, as the command line says it, and forgets it.
    pub fn heard(&self) -> String {
        let news = std::mem::take(&mut *self.news.lock().expect("no panic"));
        let texts = news.into_iter().map(|news| match news {
            News::Note(note) => advice::note(&note),
            News::Progress(text) | News::Trouble(text) => text,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// Begins a rollout; its id.
    pub async fn begin(&self, request: &BeginRequest) -> Result<String> {
        let begun = begin::begin_rollout(&self.app, request, Options::default()).await?;
        Ok(begun.header.rollout)
    }

    /// Begins a rollout that nobody drives; its id.
    pub async fn begin_and_leave(&self, request: &BeginRequest) -> String {
        let id = self.begin(request).await.expect("it begins");
        self.app.let_go(&id).await.expect("it may go");
        id
    }

    /// Drives a rollout until it ends or holds.
    pub async fn drive(&self, rollout: &str) -> Standing {
        let driver = self.app.driver(Options::default());
        driver.drive(rollout).await.expect("the driver works")
    }

    /// The same, through all that it waits for.
    pub async fn drive_on(&self, rollout: &str) -> Standing {
        self.drive_with(rollout, Options::default()).await
    }

    /// The same in another way.
    pub async fn drive_with(&self, rollout: &str, options: Options) -> Standing {
        let mut fleet = Fleet::new(self.app.driver(options));
        fleet.add(rollout.to_owned(), self.app.clock.now());
        stopped(fleet.next().await).expect("the driver works")
    }
}

/// Begins a rollout, drives it until that arm has that share of the traffic, percent,
/// and leaves it there; its id.
pub async fn suspended(app: &App, request: &BeginRequest, (arm, share): (&str, f64)) -> String {
    let begun = begin::begin_rollout(app, request, Options::default()).await;
    let id = begun.expect("it begins").header.rollout;
    drive_until(app, &id, |seen, _| seen.status.weights.share(arm) >= share).await;
    id
}

/// Drives a rollout until that has happened, and leaves it.
pub async fn drive_until(
    app: &App,
    id: &str,
    mut enough: impl FnMut(&Watched, Happened<'_>) -> bool + Send,
) {
    let (wish, mut wishes) = tokio::sync::mpsc::unbounded_channel();
    let audience = Audience {
        hears: &mut |seen, happened| {
            if enough(seen, happened) {
                // Nobody hears it once the rollout is left.
                let _ = wish.send(Wish::Leave);
            }
        },
        wishes: &mut wishes,
        sees_arms: false,
    };
    let ended = watch::drive(app, id, Options::default(), audience).await;
    let left = ended.expect("it is driven").left;
    assert!(matches!(left, Left::Suspended { .. }), "{left:?}");
}

/// A local balancer, by its admin address.
pub fn local(admin: SocketAddr) -> TargetRequest {
    TargetRequest {
        local: Some(admin),
        ..TargetRequest::default()
    }
}

/// What a rollout file says.
pub fn in_file(file: &Path) -> TargetRequest {
    TargetRequest {
        file: Some(file.to_owned()),
        ..TargetRequest::default()
    }
}

/// A target on AWS.
pub fn on_aws(aws: AwsRequest) -> TargetRequest {
    TargetRequest {
        aws,
        ..TargetRequest::default()
    }
}

/// A target that was made by hand, by its listener.
pub fn on(made: &Made) -> AwsRequest {
    AwsRequest {
        listener: Some(made.listener.clone()),
        cluster: Some(made.cluster.clone()),
        region: Some(REGION.to_owned()),
        ..AwsRequest::default()
    }
}

/// A stack of that name.
pub fn on_stack(region: &str, name: &str) -> AwsRequest {
    AwsRequest {
        stack: Some(name.to_owned()),
        region: Some(region.to_owned()),
        ..AwsRequest::default()
    }
}

/// A guest on a target, with these parameters.
pub fn rollout(guest: &str, target: TargetRequest, set: &[&str]) -> BeginRequest {
    BeginRequest {
        target,
        plugin: Some(guest_path(guest)),
        set: texts(set),
        ..BeginRequest::default()
    }
}

/// Texts of their own.
pub fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The error of that kind that says so.
#[track_caller]
pub fn refused<T>(result: Result<T>, kind: Kind, says: &[&str]) -> Error {
    let Err(error) = result else {
        panic!("it was done");
    };
    assert_eq!(error.kind, kind, "{error}");
    let said = advice::text(&error);
    for part in says {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    error
}

/// The code of what the target said.
pub fn code_of(error: &Error) -> Option<&str> {
    error.target.as_ref().map(|target| target.code.as_str())
}
