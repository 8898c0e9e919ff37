//! The process dies at any call to AWS, before or after it had its effect; the
//! next one goes on and comes to the same end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engine::journal::{Event, StackVerb, Work};
use engine::model::End;
use engine::rollout::Standing;
use engine::target::Target as _;

use crate::support::aws::bottle::{self, Bottle, GOOD, Wish, direct, forward, three_steps};
use crate::support::aws::proxy::Trouble;
use crate::support::guests;
use crate::support::lab;

async fn bottle() -> Bottle {
    let plugin = guests::plugin("canary").await;
    let bottle = Bottle::new(Wish::default(), plugin, three_steps()).await;
    for arm in 0..2 {
        bottle.traffic(arm, -5..60, GOOD).await;
    }
    bottle.image("app:v2")
}

/// Dies at the n-th call of that name and goes on; whether it came to that call. Who reads the
/// same as somebody else at the same moment shares the answer, so one run has a few reads
/// fewer than another.
async fn dies_at(call: &str, n: usize, after: bool) -> bool {
    let bottle = bottle().await;
    let dead = bottle.doomed();
    let begun = dead.begin(bottle.header.clone()).await;
    begun.expect("it begins");
    let (reached, place) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (signal, placed) = (reached.clone(), place.clone());
    let (fatal, earlier) = (call.to_owned(), AtomicUsize::new(0));
    bottle.proxy.plot(move |index, name| {
        // From here on the dying process hears nothing any more.
        if signal.load(Ordering::SeqCst) {
            return Trouble::Reset;
        }
        if name != fatal || earlier.fetch_add(1, Ordering::SeqCst) < n {
            return Trouble::None;
        }
        placed.store(index, Ordering::SeqCst);
        signal.store(true, Ordering::SeqCst);
        match after {
            true => Trouble::AnswerLost,
            false => Trouble::Reset,
        }
    });
    let buried = dead.owner.clone();
    {
        let mut fleet = engine::rollout::fleet::Fleet::new(dead);
        fleet.add(lab::ID.to_owned(), 0);
        lab::until_dead(fleet.next(), &reached).await;
    }
    if !reached.load(Ordering::SeqCst) {
        return false;
    }
    bottle.store.bury(buried);
    bottle.proxy.settled().await;
    let before = bottle.proxy.take();
    bottle.proxy.calm();
    let standing = bottle.go_on().await.expect("the driver works");
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{call} {n}, after {after}: {standing:?}"
    );
    let live = bottle.live().await;
    assert_eq!(live.weights().share("stable"), 100.0, "{call} {n}");
    assert_eq!(live.arms[0].release.version, "app:v2", "{call} {n}");
    assert_eq!(live.arms[1].tasks, Some(1), "{call} {n}: the idle arm");
    let registered = |calls: &[String]| {
        calls
            .iter()
            .filter(|c| *c == "RegisterTaskDefinition")
            .count()
    };
    // Sent once by each process at most, and one that arrived is found again.
    let here = call == "RegisterTaskDefinition";
    let again = registered(&bottle.proxy.take());
    let place = place.load(Ordering::SeqCst).min(before.len());
    let arrived = registered(&before[..place]) + usize::from(here && after);
    assert_eq!(
        arrived + again,
        2,
        "{call} {n}, after {after}: one revision for each arm"
    );
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_call_of_a_whole_rollout() {
    let calm = bottle().await;
    let standing = calm.run().await;
    assert!(
        matches!(standing, Standing::Over(End::Promoted, _)),
        "{standing:?}"
    );
    let calls = calm.proxy.take();
    assert!(calls.len() > 80, "a whole rollout: {}", calls.len());
    // Every write before and after its effect, and every seventh read.
    let writes =
        |name: &str| ["ModifyListener", "UpdateService", "RegisterTaskDefinition"].contains(&name);
    let mut deaths = vec![];
    for (index, name) in calls.iter().enumerate() {
        let n = calls[..index].iter().filter(|other| *other == name).count();
        if writes(name) {
            deaths.extend([(name.clone(), n, false), (name.clone(), n, true)]);
        } else if index % 7 == 0 {
            deaths.push((name.clone(), n, false));
        }
    }
    let third = deaths.len().div_ceil(3);
    let lanes = deaths.chunks(third).map(|some| {
        let some = some.to_vec();
        tokio::spawn(async move {
            let mut missed = 0;
            for (call, n, after) in some {
                let came = dies_at(&call, n, after).await;
                assert!(came || !writes(&call), "{call} {n}: it was made");
                missed += usize::from(!came);
            }
            missed
        })
    });
    let mut missed = 0;
    for lane in lanes.collect::<Vec<_>>() {
        missed += lane.await.expect("no panic in a lane");
    }
    let all = deaths.len();
    assert!(missed * 20 <= all, "{missed} of {all} reads were not made");
}

/// A process that changes a stack dies at its n-th call, after the stack has moved
/// the traffic and forgotten the stickiness; the number of its calls.
async fn change_dies_at(n: usize, after: bool) -> usize {
    let wish = Wish {
        sticky: true,
        ..Wish::default()
    };
    let plugin = guests::plugin("canary").await;
    let mut bottle = Bottle::new(wish, plugin, three_steps()).await;
    bottle.header = bottle::verb(&bottle, bottle.header.baseline.clone());
    bottle.header.work = Work::StackChange {
        stack: "shop".to_owned(),
        change: StackVerb::Deploy,
        actor: "ada".to_owned(),
        accepts: false,
    };
    let dead = bottle.doomed();
    bottle.store.bury(dead.owner.clone());
    let begun = dead.begin_change(bottle.header.clone(), bottle.target.clone());
    let mut changing = begun.await.expect("it begins");
    let action = bottle.target.action().await.expect("readable");
    let action = action.written().expect("known");
    let [stable, canary] = &bottle.made.groups;
    let moved = forward(&[(stable, 40), (canary, 60)]);
    let elb = direct().await.elb;
    let modify = elb.modify_listener().listener_arn(&bottle.made.listener);
    modify.default_actions(moved).send().await.expect("moved");
    bottle.proxy.take();
    let reached = Arc::new(AtomicBool::new(false));
    let signal = reached.clone();
    bottle.proxy.plot(move |index, _| {
        if index < n {
            return Trouble::None;
        }
        signal.store(true, Ordering::SeqCst);
        if index == n && after {
            Trouble::AnswerLost
        } else {
            Trouble::Reset
        }
    });
    lab::until_dead(changing.give_back(Some(&action)), &reached).await;
    drop(changing);
    bottle.proxy.settled().await;
    let calls = bottle.proxy.take().len();
    bottle.proxy.calm();
    let asked = |e: &engine::journal::Entry| matches!(e.event, Event::Asked { .. });
    let intended = bottle.journal().await.iter().any(asked);
    let standing = bottle.go_on().await.expect("the driver works");
    let at = format!("call {n}, after {after}: {standing:?}");
    assert!(matches!(standing, Standing::Over(..)), "{at}");
    let live = bottle.live().await;
    // What was intended is done; what was not is said, and left to people.
    let share = if intended { 100.0 } else { 40.0 };
    assert_eq!(live.weights().share("stable"), share, "{at}");
    assert_eq!(live.sticky, intended, "{at}");
    let does = bottle.target.does(&action).await.expect("readable");
    assert_eq!(does, intended, "{at}: the whole action");
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn at_every_call_of_a_change_of_a_stack() {
    let calls = change_dies_at(usize::MAX, false).await;
    assert!((5..40).contains(&calls), "{calls}");
    for n in 0..calls {
        for after in [false, true] {
            change_dies_at(n, after).await;
        }
    }
}
