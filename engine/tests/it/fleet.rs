//! The fleet as a scheduler: added to while it runs, and not stopped by a store that
//! fails or a task that panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::journal::Call;
use engine::model::{End, Outcome, Verdict};
use engine::rollout::fleet::{Fleet, News};
use engine::rollout::session::Calls;
use engine::rollout::{Driver, Ran, RolloutError, Standing, Strategy};
use engine::store::sqlite::SqliteStore;
use engine::store::{Schedule as _, Store, StoreError};
use serde_json::json;

use crate::support::folder;
use crate::support::lab::{self, Lab, Scripted};

fn outcome() -> Ran {
    Ran::Returned(Ok(Outcome {
        verdict: Verdict::RolledBack,
        reason: "that was all".to_owned(),
    }))
}

/// Waits an hour, which parks, and ends.
fn waits() -> Arc<dyn Strategy> {
    Arc::new(Scripted(|calls: Arc<dyn Calls>| async move {
        let wait = Call::Wait {
            seconds: 3_600,
            signals: vec![],
        };
        match calls.perform(wait).await {
            Ok(_) => outcome(),
            Err(_) => Ran::Interrupted,
        }
    }))
}

/// A rollout of that name on a target of its own.
async fn begin(driver: &Driver, lab: &Lab, id: &str) {
    let mut header = lab.header.clone();
    header.rollout = id.to_owned();
    header.identity = format!("on {id}");
    driver.begin(header).await.expect("begins");
}

fn ended(news: Option<News>) -> String {
    match news {
        Some(News::Stopped {
            rollout,
            result: Ok(Standing::Over(End::RolledBack, _)),
        }) => rollout,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rollouts_are_added_while_it_runs() {
    let lab = Lab::new(waits(), lab::good(), json!({}));
    let driver = lab.driver();
    let mut fleet = Fleet::new(driver.clone());
    let handle = fleet.handle();
    let more = handle.clone();
    let (start, lab) = (lab::START, Arc::new(lab));
    let adding = {
        let (driver, lab) = (driver.clone(), lab.clone());
        tokio::spawn(async move {
            for id in ["one", "two"] {
                begin(&driver, &lab, id).await;
                assert!(more.add(id.to_owned(), start));
            }
        })
    };
    // It is empty and waits all the same, because somebody has a handle.
    let mut all = vec![ended(fleet.next().await), ended(fleet.next().await)];
    all.sort();
    assert_eq!(all, ["one", "two"]);
    adding.await.expect("no panic");
    // Once nobody can add any more, it is over.
    drop(handle);
    assert!(fleet.next().await.is_none());
    // A handle can be had again.
    begin(&driver, &lab, "three").await;
    assert!(fleet.handle().add("three".to_owned(), start));
    assert_eq!(ended(fleet.next().await), "three");
    assert!(fleet.next().await.is_none());
}

/// Parked, a rollout has no owner; its fleet wakes it by claiming it again.
#[tokio::test]
async fn a_parked_rollout_has_no_owner_and_a_keeper() {
    let lab = Lab::new(waits(), lab::good(), json!({}));
    let driver = lab.driver();
    begin(&driver, &lab, "a").await;
    let Ok(Standing::Parked(until)) = driver.drive("a").await else {
        panic!("it waits an hour");
    };
    let busy = lab.store.occupant("on a").await.expect("memory");
    let busy = busy.expect("it goes on occupying its target");
    assert_eq!((busy.owner, busy.due), (None, Some(until)));
    assert_eq!(busy.keeper, Some(lab::owner()));
    // Another process may drive it at once; then it is that one's.
    let other = Driver {
        owner: engine::store::Owner {
            pid: 2,
            ..lab::owner()
        },
        ..lab.driver()
    };
    assert!(matches!(other.drive("a").await, Ok(Standing::Parked(_))));
    let busy = lab.store.occupant("on a").await.expect("memory");
    assert_eq!(busy.expect("occupied").keeper.map(|k| k.pid), Some(2));
    // The first one wakes it all the same: nobody has it.
    let mut fleet = Fleet::new(driver);
    fleet.add("a".to_owned(), until);
    assert_eq!(ended(fleet.next().await), "a");
    assert_eq!(lab.store.occupant("on a").await.expect("memory"), None);
}

#[tokio::test]
async fn a_task_that_panics_takes_nobody_with_it() {
    let seen = Arc::new(AtomicBool::new(false));
    let first = seen.clone();
    let clumsy = Scripted(move |_| {
        let first = !first.swap(true, Ordering::SeqCst);
        async move {
            assert!(!first, "stumbled");
            outcome()
        }
    });
    let lab = Lab::new(Arc::new(clumsy), lab::good(), json!({}));
    let driver = lab.driver();
    let mut fleet = Fleet::new(driver.clone());
    for id in ["a", "b", "c"] {
        begin(&driver, &lab, id).await;
        fleet.add(id.to_owned(), lab::START);
    }
    let (mut good, mut bad) = (vec![], vec![]);
    while let Some(news) = fleet.next().await {
        match news {
            News::Stopped {
                rollout,
                result: Err(RolloutError::Panicked(text)),
            } => bad.push((rollout, text)),
            news => good.push(ended(Some(news))),
        }
    }
    assert_eq!((good.len(), bad.len()), (2, 1), "{good:?} {bad:?}");
    assert!(bad[0].1.contains("stumbled"), "{bad:?}");
    assert!(!good.contains(&bad[0].0));
    // It is as it was, and can be driven on.
    fleet.add(bad[0].0.clone(), lab::START);
    assert_eq!(ended(fleet.next().await), bad[0].0);
}

/// The file of the store cannot be written for a while, as if another process had it.
#[tokio::test]
async fn a_store_that_fails_is_said_and_tried_again() {
    let folder = folder();
    let place = folder.path().join("engine.db");
    let lab = Lab::new(waits(), lab::good(), json!({}));
    let store = SqliteStore::open_within(&place, std::time::Duration::ZERO).expect("opens");
    let store: Arc<dyn Store> = Arc::new(store);
    let driver = Driver {
        store: store.clone(),
        ..lab.driver()
    };
    let mut fleet = Fleet::new(driver.clone());
    for id in ["a", "b"] {
        begin(&driver, &lab, id).await;
        fleet.add(id.to_owned(), lab::START);
    }
    let other = rusqlite::Connection::open(&place).expect("there");
    other.execute_batch("BEGIN IMMEDIATE").expect("free");
    let news = fleet.next().await;
    let Some(News::StoreFailed(StoreError::Database { .. })) = news else {
        panic!("{news:?}");
    };
    other.execute_batch("ROLLBACK").expect("ours");
    let mut all = vec![];
    while let Some(news) = fleet.next().await {
        // The other one may have met the lock too, and come back later.
        if !matches!(news, News::StoreFailed(_)) {
            all.push(ended(Some(news)));
        }
    }
    all.sort();
    assert_eq!(all, ["a", "b"], "both are there still");
}
