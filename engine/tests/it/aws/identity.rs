//! Which image it is: a name that is pushed again during a rollout means another image, and
//! what was judged is what is promoted and what is taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::clock::{Clock, VirtualClock};
use engine::journal::status::Status;
use engine::journal::{Call, Event, Reply};
use engine::model::{Command, End, Hold, Outcome, Promotion, Release, Source, Verdict, Weights};

use engine::rollout::session::Calls;
use engine::rollout::{Driver, Ran, Standing};
use engine::store::memory::MemoryStore;
use engine::store::{Journals as _, Schedule as _};
use serde_json::{Value, json};

use crate::support::app::{TestApp, on, on_aws};
use crate::support::aws::bottle::{Bottle, Made, REGION, Wish, direct, make};
use crate::support::aws::emulator::{self, script};
use crate::support::aws::proxy::Trouble;
use crate::support::lab;

/// What happens after so many raises.
#[derive(Clone, Copy)]
enum Then {
    /// The name of the new version means another image.
    Pushed,
    /// The name of the new version means another image, of which no task says which it is.
    Muted,
    /// From now on the tasks say which image they run, or they do not.
    Told(bool),
    /// The canary gets so many tasks.
    Scaled(i32),
}

async fn happens(made: &Made, image: &str, then: Then) {
    match then {
        Then::Pushed => {
            script("ecs/push", json!({"image": image})).await;
        }
        Then::Muted => {
            script("ecs/push", json!({"image": image, "untold": true})).await;
        }
        Then::Told(told) => {
            script("ecs/push", json!({"image": image, "hidden": !told})).await;
        }
        Then::Scaled(tasks) => {
            let update = direct().await.ecs.update_service().cluster(&made.cluster);
            let update = update.service(format!("{}-canary", made.name));
            update.desired_count(tasks).send().await.expect("scaled");
        }
    }
}

/// A rollout of `NAME:v2` by copy that gives the canary 50 and 100 percent.
async fn rollout(name: &'static str, wish: Wish, then: &'static [(usize, Then)]) -> Bottle {
    by_shares(name, wish, &[50, 100], then, None).await
}

/// What a person commands, and the store that takes it.
type Commanded = (Arc<MemoryStore>, Command);

fn full() -> Command {
    Command::PromoteFull {
        reason: "known".to_owned(),
    }
}

/// A rollout of `NAME:v2` by copy that gives the canary these shares, and then is promoted by
/// its strategy, or by a person.
async fn by_shares(
    name: &'static str,
    wish: Wish,
    shares: &'static [u32],
    then: &'static [(usize, Then)],
    person: Option<Commanded>,
) -> Bottle {
    let store = person.as_ref().map(|(store, _)| store.clone());
    let made: Arc<std::sync::Mutex<Option<Made>>> = Arc::default();
    let known = made.clone();
    let image = format!("{name}:v2");
    let pushed = image.clone();
    let strategy = lab::Scripted(move |calls: Arc<dyn Calls>| {
        let made = known.lock().expect("no panic").clone().expect("made");
        let (image, person) = (pushed.clone(), person.clone());
        async move {
            for (done, share) in shares.iter().copied().enumerate() {
                for (_, then) in then.iter().filter(|(after, _)| *after == done) {
                    happens(&made, &image, *then).await;
                }
                let weights = Weights::of([("stable", 100 - share), ("canary", share)]);
                match calls.perform(Call::SetWeights { weights }).await {
                    Ok(Reply::Done) => {}
                    Ok(other) => return Ran::Trapped(other.to_string()),
                    Err(_) => return Ran::Interrupted,
                }
            }
            for (_, then) in then.iter().filter(|(after, _)| *after == shares.len()) {
                happens(&made, &image, *then).await;
            }
            if let Some((store, command)) = person {
                commands(&store, "early", &command).await;
                let wait = Call::Wait {
                    seconds: 60,
                    signals: vec![],
                };
                return match calls.perform(wait).await {
                    Ok(other) => Ran::Trapped(other.to_string()),
                    Err(_) => Ran::Interrupted,
                };
            }
            Ran::Returned(Ok(Outcome {
                verdict: Verdict::Promoted,
                reason: "as the test wants".to_owned(),
            }))
        }
    });
    let mut bottle = Bottle::new(wish, Arc::new(strategy), json!({})).await;
    *made.lock().expect("no panic") = Some(bottle.made.clone());
    if let Some(store) = store {
        bottle.store = store;
    }
    // As `run` writes it down.
    let live = bottle.live().await;
    for arm in &live.arms {
        let seen = engine::target::running(bottle.target.as_ref(), arm).await;
        bottle.header.running.push(seen);
    }
    bottle.image(&image)
}

async fn commands(store: &MemoryStore, id: &str, command: &Command) {
    let signal = command.signal(id.to_owned(), "ada");
    store.signal(lab::ID, &signal).await.expect("sent");
}

/// A clock at which something happens once the new version has all traffic, between two
/// looks of the driver.
struct Baking {
    clock: Arc<VirtualClock>,
    store: Arc<MemoryStore>,
    made: Made,
    image: String,
    then: std::sync::Mutex<Vec<Then>>,
}

#[async_trait::async_trait]
impl Clock for Baking {
    fn now(&self) -> u64 {
        self.clock.now()
    }

    async fn sleep_until(&self, until: u64) {
        let journal = self.store.load(lab::ID, 0).await.expect("memory");
        let status = Status::of(&journal).expect("it began");
        let all = status.weights.share("canary") >= 100.0 && status.decision.is_some();
        if all && status.in_doubt.is_none() {
            let then = std::mem::take(&mut *self.then.lock().expect("no panic"));
            for then in then {
                happens(&self.made, &self.image, then).await;
            }
        }
        self.clock.sleep_until(until).await;
    }
}

/// Drives a rollout during whose bake something happens.
async fn baked(bottle: &Bottle, image: &str, then: &[Then]) -> Standing {
    let clock = Arc::new(Baking {
        clock: bottle.clock.clone(),
        store: bottle.store.clone(),
        made: bottle.made.clone(),
        image: image.to_owned(),
        then: std::sync::Mutex::new(then.to_vec()),
    });
    let driver = Driver {
        clock: clock.clone(),
        ..bottle.driver()
    };
    driver
        .begin(bottle.header.clone())
        .await
        .expect("it begins");
    let standing = driver.drive(lab::ID).await.expect("the driver works");
    assert!(
        clock.then.lock().expect("no panic").is_empty(),
        "it happened"
    );
    standing
}

fn promoted(standing: &Standing) -> &str {
    let Standing::Over(End::Promoted, why) = standing else {
        panic!("{standing:?}");
    };
    why
}

fn named(image: &'static str) -> Wish {
    Wish {
        images: [image, image],
        ..Wish::default()
    }
}

/// The digests of the images that the tasks of an arm run.
async fn digests(bottle: &Bottle, arm: &str) -> Vec<String> {
    use engine::target::Target as _;
    let images = bottle.target.digests(arm).await.expect("readable");
    images.digests
}

async fn status(bottle: &Bottle) -> Status {
    Status::of(&bottle.journal().await).expect("it began")
}

/// The image of the container in what the service of an arm runs, as the AWS CLI shows it.
fn image(made: &Made, arm: &str) -> Value {
    let service = format!("{}-{arm}", made.name);
    let describe = ["ecs", "describe-services", "--cluster", &made.cluster];
    let describe = [&describe[..], &["--services", &service]].concat();
    let service = emulator::aws(REGION, &describe)["services"][0].clone();
    let arn = service["taskDefinition"].as_str().expect("an ARN");
    let describe = ["ecs", "describe-task-definition", "--task-definition", arn];
    emulator::aws(REGION, &describe)["taskDefinition"]["containerDefinitions"][0]["image"].clone()
}

fn says(standing: &Standing, parts: &[&str]) {
    let Standing::Held(Hold::Stuck { reason }) = standing else {
        panic!("{standing:?}");
    };
    for part in parts {
        assert!(reason.contains(part), "{part:?} is not in: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_judged_is_promoted_although_its_name_was_pushed_again() {
    let bottle = rollout("late", named("late:v1"), &[(2, Then::Pushed)]).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let judged = digests(&bottle, "canary").await;
    assert_eq!(judged.len(), 1, "{judged:?}");
    assert_eq!(digests(&bottle, "stable").await, judged);
    let status = status(&bottle).await;
    assert_eq!(status.judged.as_deref(), Some(judged[0].as_str()));
    let left = status.running("stable").expect("read");
    assert_eq!(left.digests, judged);
    assert_eq!(image(&bottle.made, "stable"), format!("late@{}", judged[0]));
    // It got no traffic as the other image.
    let writes = lab::writes(&bottle.journal().await);
    let named = writes
        .iter()
        .position(|w| w == "set-version stable late:v2");
    let pinned = format!("set-version stable late@{}", judged[0]);
    let pinned = writes.iter().position(|w| *w == pinned).expect("pinned");
    let moved = &writes[named.expect("given")..pinned];
    assert!(
        !moved.iter().any(|w| w.starts_with("set-weights")),
        "{writes:?}"
    );
}

/// Sibling: tasks of the candidate that start later run another image. It is not raised.
#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_with_tasks_of_another_image_gets_no_more_traffic() {
    let then = &[(1, Then::Pushed), (1, Then::Scaled(4))];
    let bottle = rollout("scaled", named("scaled:v1"), then).await;
    let standing = bottle.run().await;
    says(
        &standing,
        &[
            "tasks of canary run sha256:",
            "is what was judged",
            "scaled:v2",
        ],
    );
    let seen = bottle.live().await;
    assert_eq!(seen.weights().share("canary"), 50.0);
    assert_eq!(digests(&bottle, "canary").await.len(), 2);
    // It goes back like every rollout that holds.
    let abort = Command::Abort {
        reason: "no".to_owned(),
    };
    let signal = abort.signal("abort-1".to_owned(), "ada");
    bottle.store.signal(lab::ID, &signal).await.expect("sent");
    let standing = bottle.go_on().await.expect("driven");
    assert!(
        matches!(standing, Standing::Over(End::RolledBack, _)),
        "{standing:?}"
    );
    assert_eq!(bottle.live().await.weights().share("stable"), 100.0);
}

/// Sibling: they start between the verdict and the promotion. Only a person who insists
/// has it promoted, and then the image that was judged.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_judged_is_promoted_for_nobody_but_who_insists() {
    let then = &[(2, Then::Pushed), (2, Then::Scaled(5))];
    let bottle = rollout("verdict", named("verdict:v1"), then).await;
    let standing = bottle.run().await;
    says(
        &standing,
        &["tasks of canary run sha256:", "is not promoted"],
    );
    let judged = status(&bottle).await.judged.expect("known");
    commands(&bottle.store, "full-1", &full()).await;
    let standing = bottle.go_on().await.expect("driven");
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    assert_eq!(digests(&bottle, "stable").await, [judged]);
}

/// Sibling: the same name again, and ECS can place neither the new image in the stable arm
/// nor the former one: nobody can go home, and that is not called a way back.
#[tokio::test(flavor = "multi_thread")]
async fn a_stable_arm_that_cannot_be_placed_again_is_a_failed_way_back() {
    script("ecs/push", json!({"image": "placed:v2"})).await;
    let mut bottle = rollout("placed", named("placed:v2"), &[]).await;
    let served = digests(&bottle, "stable").await;
    bottle.header.repeats = vec!["stable".to_owned(), "canary".to_owned()];
    let pinned = format!("placed@{}", served[0]);
    bottle.header.stable = Some(Release {
        version: pinned.clone(),
        source: Source::Image(pinned),
    });
    script("ecs/push", json!({"image": "placed:v2"})).await;
    let body = json!({
        "cluster": bottle.made.cluster,
        "service": format!("{}-stable", bottle.made.name),
        "fail": "no room",
    });
    script("ecs", body).await;
    let standing = bottle.run().await;
    let Standing::Over(End::RollbackFailed, why) = &standing else {
        panic!("{standing:?}");
    };
    assert!(why.contains("no arm runs another release"), "{why}");
    assert_eq!(bottle.live().await.weights().share("canary"), 100.0);
}

/// Sibling: where no task tells its digest, the journal says that nobody would notice.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_task_tells_its_digest_that_is_said() {
    script("ecs/push", json!({"image": "mute:v2", "untold": true})).await;
    let bottle = rollout("mute", named("mute:v1"), &[]).await;
    let standing = bottle.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let journal = bottle.journal().await;
    let told = journal.iter().any(|entry| {
        matches!(&entry.event, Event::Exchanged { call: Call::Log { message, .. }, .. }
            if message.contains("would not be noticed"))
    });
    assert!(told);
    assert_eq!(status(&bottle).await.judged, None);
    let why = promoted(&standing);
    assert!(why.contains("promoted by the name mute:v2 alone"), "{why}");
}

/// A person promotes early: the tasks that are started for all traffic run another image, and
/// get no more of it. Who insists once more knows that.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_promotes_no_image_that_was_not_judged() {
    for (name, promotion) in [
        ("hand-copy", Promotion::Copy),
        ("hand-swap", Promotion::Swap),
    ] {
        let wish = Wish {
            tasks: [4, 1],
            images: ["app:v1", "app:v1"],
            ..Wish::default()
        };
        let store = Arc::<MemoryStore>::default();
        let then = &[(1, Then::Pushed)];
        let person = Some((store, full()));
        let mut bottle = by_shares(name, wish, &[5], then, person).await;
        bottle.header.promotion = promotion;
        let standing = bottle.run().await;
        says(
            &standing,
            &[
                "tasks of canary run sha256:",
                "is what was judged",
                "is not promoted",
            ],
        );
        assert_eq!(bottle.live().await.weights().share("canary"), 5.0, "{name}");
        let judged = status(&bottle).await.judged.expect("known");
        assert_eq!(digests(&bottle, "canary").await.len(), 2, "{name}");
        commands(&bottle.store, "again", &full()).await;
        let standing = bottle.go_on().await.expect("driven");
        promoted(&standing);
        if promotion == Promotion::Copy {
            assert_eq!(digests(&bottle, "stable").await, [judged]);
        }
    }
}

/// Sibling: it stands still because a person paused it, who was told nothing of images.
/// Each new image is told before anybody can insist on it.
#[tokio::test(flavor = "multi_thread")]
async fn who_promotes_a_paused_rollout_has_not_insisted_on_another_image() {
    for (name, promotion) in [
        ("paused-copy", Promotion::Copy),
        ("paused-swap", Promotion::Swap),
    ] {
        let wish = Wish {
            tasks: [4, 1],
            images: ["app:v1", "app:v1"],
            ..Wish::default()
        };
        let person = Some((Arc::<MemoryStore>::default(), Command::Pause));
        let mut bottle = by_shares(name, wish, &[5], &[], person).await;
        bottle.header.promotion = promotion;
        let standing = bottle.run().await;
        assert!(
            matches!(&standing, Standing::Held(Hold::Asked { .. })),
            "{standing:?}"
        );
        happens(&bottle.made, &format!("{name}:v2"), Then::Pushed).await;
        commands(&bottle.store, "first", &full()).await;
        let standing = bottle.go_on().await.expect("driven");
        says(
            &standing,
            &["tasks of canary run sha256:", "is not promoted"],
        );
        assert_eq!(bottle.live().await.weights().share("canary"), 5.0, "{name}");
        // One more image is one more reason.
        happens(&bottle.made, &format!("{name}:v2"), Then::Pushed).await;
        happens(&bottle.made, &format!("{name}:v2"), Then::Scaled(6)).await;
        commands(&bottle.store, "second", &full()).await;
        let standing = bottle.go_on().await.expect("driven");
        says(
            &standing,
            &["tasks of canary run sha256:", "is not promoted"],
        );
        commands(&bottle.store, "third", &full()).await;
        let standing = bottle.go_on().await.expect("driven");
        promoted(&standing);
    }
}

/// Sibling: the process dies with a raise that never arrived, and ECS starts tasks before the
/// next one would send it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_raise_in_doubt_is_not_sent_again_for_another_image() {
    let bottle = rollout("doubt", named("app:v1"), &[]).await;
    let mut dead = bottle.driver();
    dead.owner.started = "dead".to_owned();
    let buried = dead.owner.clone();
    dead.begin(bottle.header.clone()).await.expect("it begins");
    let (raises, reached) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let dies = reached.clone();
    bottle.proxy.plot(move |_, call| {
        let raise = call == "ModifyListener" && raises.fetch_add(1, Ordering::SeqCst) == 1;
        if raise {
            dies.store(true, Ordering::SeqCst);
        }
        match dies.load(Ordering::SeqCst) {
            true => Trouble::Reset,
            false => Trouble::None,
        }
    });
    lab::until_dead(dead.drive(lab::ID), &reached).await;
    bottle.store.bury(buried);
    bottle.proxy.calm();
    let before = status(&bottle).await;
    let doubt = before.in_doubt.expect("in doubt").call.to_string();
    assert_eq!(doubt, "set-weights stable=0 canary=100");
    for then in [Then::Pushed, Then::Scaled(5)] {
        happens(&bottle.made, "doubt:v2", then).await;
    }
    // The strategy is told why it got no more, and gives up.
    let standing = bottle.go_on().await.expect("driven");
    let Standing::Over(End::RolledBack, why) = &standing else {
        panic!("{standing:?}");
    };
    assert!(why.contains("is what was judged"), "{why}");
    assert_eq!(bottle.live().await.weights().share("stable"), 100.0);
}

/// Siblings: ECS starts tasks while the promotion bakes. That is seen during a long bake, and
/// at the end of one that is shorter than the time between two looks.
#[tokio::test(flavor = "multi_thread")]
async fn another_image_is_seen_while_a_promotion_bakes() {
    for (name, image, bake_ms, within_ms) in [
        ("bake-long", "bake-long:v2", 3_600_000, 60_000),
        ("bake-short", "bake-short:v2", 3_000, 60_000),
    ] {
        let mut bottle = by_shares(name, named("app:v1"), &[50, 100], &[], None).await;
        bottle.header.promotion = Promotion::Swap;
        bottle.header.guardrails.final_bake_ms = bake_ms;
        let then = [Then::Pushed, Then::Scaled(5)];
        let standing = baked(&bottle, image, &then).await;
        says(&standing, &["is what was judged", "is not promoted"]);
        let status = status(&bottle).await;
        let ran = bottle.clock.now() - status.moved;
        assert!(ran <= within_ms, "{name} baked for {ran} ms");
    }
}

/// Sibling: tasks that never say what they run are not taken for what was judged. They get
/// the time to say it.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_do_not_say_what_they_run_hold_what_was_judged() {
    let then = &[(1, Then::Muted), (1, Then::Scaled(4))];
    let mut bottle = rollout("silent", named("silent:v1"), then).await;
    bottle.header.guardrails.healthy_timeout_ms = 60_000;
    let standing = bottle.run().await;
    let known = status(&bottle).await;
    let judged = known.judged.as_deref().expect("known");
    says(
        &standing,
        &[
            "not all tasks of canary say which image they run (3 do not)",
            judged,
            "silent:v2",
        ],
    );
    assert_eq!(bottle.live().await.weights().share("canary"), 50.0);
}

/// ECS says it late: what the tasks say before the first raise is what is judged.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_before_the_first_raise_is_what_is_judged() {
    script("ecs/push", json!({"image": "slow:v2", "hidden": true})).await;
    let then = &[
        (0, Then::Told(true)),
        (1, Then::Pushed),
        (1, Then::Scaled(4)),
    ];
    let bottle = rollout("slow", named("slow:v1"), then).await;
    let standing = bottle.run().await;
    let judged = status(&bottle).await.judged.expect("known");
    says(&standing, &["is what was judged", &judged]);
}

/// Siblings: what they say later may be of other tasks, so it was not judged, and a promotion
/// by the name alone says so; that they run different images is seen all the same.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_after_the_first_raise_was_not_judged() {
    script("ecs/push", json!({"image": "later:v2", "hidden": true})).await;
    let bottle = rollout("later", named("later:v1"), &[(1, Then::Told(true))]).await;
    let standing = bottle.run().await;
    let why = promoted(&standing);
    assert!(why.contains("promoted by the name later:v2 alone"), "{why}");
    assert_eq!(status(&bottle).await.judged, None);
    assert_eq!(status(&bottle).await.tried_as.len(), 1, "it was looked at");

    script("ecs/push", json!({"image": "mixed:v2", "hidden": true})).await;
    let then = &[
        (1, Then::Pushed),
        (1, Then::Scaled(4)),
        (1, Then::Told(true)),
    ];
    let bottle = rollout("mixed", named("mixed:v1"), then).await;
    let standing = bottle.run().await;
    says(&standing, &["different images", "mixed:v2"]);
    assert_eq!(bottle.live().await.weights().share("canary"), 50.0);

    // One of two says nothing: the other does not speak for it.
    script("ecs/push", json!({"image": "half:v2", "untold": true})).await;
    let then = &[(0, Then::Pushed), (0, Then::Scaled(2))];
    let bottle = rollout("half", named("half:v1"), then).await;
    let standing = bottle.run().await;
    let why = promoted(&standing);
    assert!(why.contains("promoted by the name half:v2 alone"), "{why}");
    let status = status(&bottle).await;
    assert_eq!(status.judged, None);
    let seen = status.running("canary").expect("read");
    assert_eq!((seen.digests.len(), seen.silent), (1, 1), "{seen}");
}

/// Sibling: a task definition that runs already starts nothing, also if its image's name
/// means another one by now, and that is said with what starts it.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_definition_that_runs_already_starts_nothing_and_that_is_said() {
    let made = make(&named("again:v1")).await;
    script("ecs/push", json!({"image": "again:v1"})).await;
    let test = TestApp::new();
    let mut request = crate::support::app::rollout("canary", on_aws(on(&made)), &[]);
    request.task_definition = Some(format!("{}-canary:1", made.name));
    test.begin_and_leave(&request).await;
    let heard = test.heard();
    let said = format!(
        "canary runs the task definition {}-canary:1 already, so nothing new is started there",
        made.name
    );
    assert!(heard.contains(&said), "{heard}");
    assert!(heard.contains("--image"), "{heard}");
}

/// What the way back starts tasks of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Starts {
    /// The image that served.
    Same,
    /// Another one, of the same name.
    Other,
    /// One of which no task says which it is.
    Untold,
    /// The image that served, by its digest, whose name was pushed again.
    ByDigest,
}

/// A rollout of 50 percent that goes back, during which stable loses three of its four tasks.
async fn shrunk(name: &'static str, starts: Starts) -> (Bottle, Standing) {
    let image = format!("{name}:v1");
    let made: Arc<std::sync::Mutex<Option<Made>>> = Arc::default();
    let (known, pushed) = (made.clone(), image.clone());
    let strategy = lab::Scripted(move |calls: Arc<dyn Calls>| {
        let made = known.lock().expect("no panic").clone().expect("made");
        let image = pushed.clone();
        async move {
            let weights = Weights::of([("stable", 50), ("canary", 50)]);
            match calls.perform(Call::SetWeights { weights }).await {
                Ok(Reply::Done) => {}
                Ok(other) => return Ran::Trapped(other.to_string()),
                Err(_) => return Ran::Interrupted,
            }
            let update = direct().await.ecs.update_service().cluster(&made.cluster);
            let update = update.service(format!("{}-stable", made.name));
            update.desired_count(1).send().await.expect("scaled");
            match starts {
                Starts::Same => {}
                Starts::Other | Starts::ByDigest => happens(&made, &image, Then::Pushed).await,
                Starts::Untold => happens(&made, &image, Then::Muted).await,
            }
            Ran::Returned(Ok(Outcome {
                verdict: Verdict::RolledBack,
                reason: "as the test wants".to_owned(),
            }))
        }
    });
    let wish = Wish {
        images: [Box::leak(image.clone().into_boxed_str()); 2],
        tasks: [4, 1],
        ..Wish::default()
    };
    let mut bottle = Bottle::new(wish, Arc::new(strategy), json!({})).await;
    *made.lock().expect("no panic") = Some(bottle.made.clone());
    let live = bottle.live().await;
    for arm in &live.arms {
        let mut seen = engine::target::running(bottle.target.as_ref(), arm).await;
        if starts == Starts::ByDigest {
            seen.release = seen.release.by_digest(&seen.digests[0]).expect("one image");
        }
        bottle.header.running.push(seen);
    }
    let bottle = bottle.image(&format!("{name}:v2"));
    let standing = bottle.run().await;
    (bottle, standing)
}

/// Tasks that the end of a way back starts are for all users, and their name may mean another
/// image by then. The traffic waits for none of them; that nobody has judged it is said, with
/// both digests and the name of the former one.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_says_that_the_tasks_it_started_run_another_image() {
    for starts in [
        Starts::Same,
        Starts::Other,
        Starts::Untold,
        Starts::ByDigest,
    ] {
        let name = match starts {
            Starts::Same => "shrunk-same",
            Starts::Other => "shrunk-other",
            Starts::Untold => "shrunk-untold",
            Starts::ByDigest => "shrunk-digest",
        };
        let (bottle, standing) = shrunk(name, starts).await;
        let Standing::Over(End::RolledBack, reason) = &standing else {
            panic!("{starts:?}: {standing:?}");
        };
        let writes = lab::writes(&bottle.journal().await);
        let at = |write: &str| writes.iter().position(|w| w == write);
        let back = at("set-weights stable=100 canary=0").expect("it went back");
        let started = at("set-tasks stable 4").expect("what it had");
        assert!(back < started, "{writes:?}");
        let served = bottle.header.running[0].digests[0].clone();
        match starts {
            Starts::Other => {
                let all = digests(&bottle, "stable").await;
                assert_eq!(all.len(), 2, "{all:?}");
                let former = format!("{name}@{served}");
                for part in all.iter().chain([&former]) {
                    assert!(reason.contains(part.as_str()), "{part}: {reason}");
                }
            }
            Starts::Untold => {
                assert!(reason.contains("not all tasks of stable said"), "{reason}");
                assert!(reason.contains(&served), "{reason}");
            }
            Starts::Same | Starts::ByDigest => assert_eq!(reason, "as the test wants"),
        }
    }
}
