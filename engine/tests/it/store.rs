//! The conformance suite of the store port: every store passes all of it.

use engine::journal::{Entry, Event, Header};
use engine::model::{End, Signal};
use engine::store::memory::MemoryStore;
use engine::store::sqlite::SqliteStore;
use engine::store::{Claim, Durability, Lease, Owner, Store, StoreError};
use serde_json::json;

use crate::lab::{self, Lab, Scripted};

fn owner(pid: u32) -> Owner {
    Owner {
        pid,
        ..lab::owner()
    }
}

fn header() -> Header {
    let never = Scripted(|_| async { engine::rollout::Ran::Interrupted });
    Lab::new(std::sync::Arc::new(never), lab::good(), json!({})).header
}

fn entry(seq: u32, event: Event) -> Entry {
    Entry {
        seq,
        at: 1_000 + u64::from(seq),
        epoch: 1,
        event,
    }
}

fn first() -> Entry {
    entry(0, Event::Started(Box::new(header())))
}

fn middle(seq: u32) -> Entry {
    entry(
        seq,
        Event::Failed {
            reason: "it fell over".to_owned(),
        },
    )
}

fn last(seq: u32) -> Entry {
    entry(
        seq,
        Event::Ended {
            end: End::Promoted,
            reason: "good".to_owned(),
        },
    )
}

async fn claim(store: &dyn Store, rollout: &str, pid: u32, now: u64) -> Result<Lease, StoreError> {
    let owner = owner(pid);
    let claim = Claim {
        target: "t",
        rollout,
        owner: &owner,
        now,
        ttl_ms: 100,
        dead_epoch: None,
    };
    store.claim(claim).await
}

async fn conforms(store: &dyn Store) {
    // A process that died between its last entry and giving the lease back, or
    // before its first entry, does not lock the target for ever.
    let lease = claim(store, "ended", 1, 0).await.expect("free");
    let ended = vec![first(), last(1)];
    store
        .append(&lease, ended, Durability::Power)
        .await
        .expect("ours");
    assert_eq!(store.occupant("t").await.expect("works"), None);
    let empty = claim(store, "empty", 1, 0).await.expect("the last ended");
    assert!(
        claim(store, "next", 2, 50).await.is_err(),
        "it may begin yet"
    );
    let next = claim(store, "next", 2, 100).await.expect("it never began");
    assert!(next.epoch > empty.epoch);
    store.release(&next, false).await.expect("ours");
    steady(store).await;
}

async fn steady(store: &dyn Store) {
    // A lease keeps other rollouts and other processes out.
    let lease = claim(store, "r1", 1, 0).await.expect("free");
    for (rollout, pid) in [("r2", 1), ("r1", 2)] {
        let Err(StoreError::Busy(busy)) = claim(store, rollout, pid, 50).await else {
            panic!("{rollout} by {pid} must not get it");
        };
        assert_eq!((busy.rollout.as_str(), busy.owner), ("r1", Some(owner(1))));
    }
    // Entries come back as they went in.
    store
        .append(&lease, vec![first(), middle(1)], Durability::Power)
        .await
        .expect("ours");
    let loaded = store.load("r1", 0).await.expect("there");
    assert_eq!(loaded, vec![first(), middle(1)]);
    assert_eq!(store.load("r1", 1).await.expect("there"), vec![middle(1)]);
    assert!(store.load("nobody", 0).await.expect("empty").is_empty());
    // A renewal prolongs; an expired lease goes to the next process, and the
    // old epoch can write no more.
    store.renew(&lease, 200).await.expect("ours");
    assert!(claim(store, "r1", 2, 199).await.is_err());
    let second = claim(store, "r1", 2, 200).await.expect("expired");
    assert!(second.epoch > lease.epoch);
    for result in [
        store
            .append(&lease, vec![middle(2)], Durability::Process)
            .await,
        store.renew(&lease, 999).await,
        store.release(&lease, false).await,
    ] {
        assert!(
            matches!(result, Err(StoreError::Fenced { .. })),
            "{result:?}"
        );
    }
    // An owner that is known to be dead need not expire.
    let third = owner(3);
    let dead = Claim {
        target: "t",
        rollout: "r1",
        owner: &third,
        now: 201,
        ttl_ms: 100,
        dead_epoch: Some(second.epoch),
    };
    let lease = store.claim(dead).await.expect("its owner is dead");
    // Given back but kept: any process may go on, no other rollout may begin.
    store.release(&lease, true).await.expect("ours");
    let busy = store.occupant("t").await.expect("works").expect("occupied");
    assert_eq!((busy.rollout.as_str(), busy.owner), ("r1", None));
    assert!(claim(store, "r2", 1, 999_999).await.is_err());
    let lease = claim(store, "r1", 4, 202).await.expect("nobody drives it");
    store.release(&lease, false).await.expect("ours");
    assert_eq!(store.occupant("t").await.expect("works"), None);
    assert!(claim(store, "r2", 1, 203).await.is_ok());
    // Epochs of one rollout never repeat, even after its lease was dropped.
    let listed = store.list(None, 10).await.expect("works");
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().any(|l| l.last == middle(1)));
    let on = listed[0].header.identity.clone();
    let here = store.list(Some(&on), 10).await.expect("works");
    assert_eq!(here.len(), 2);
    let elsewhere = store.list(Some("no such target"), 10).await.expect("works");
    assert!(elsewhere.is_empty());
    // Signals keep their order, and the same id is the same signal.
    let signal = |id: &str| Signal {
        id: id.to_owned(),
        name: "approve".to_owned(),
        actor: "ada".to_owned(),
        payload: "fine".to_owned(),
        until: None,
    };
    assert!(store.signal("r1", &signal("a")).await.expect("works"));
    assert!(
        store
            .signal("r2", &signal("a"))
            .await
            .expect("another rollout")
    );
    assert!(!store.signal("r1", &signal("a")).await.expect("known"));
    assert!(store.signal("r1", &signal("b")).await.expect("works"));
    let mine = store.signals(Some("r1"), 0).await.expect("works");
    let ids: Vec<&str> = mine.iter().map(|(_, _, s)| s.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"]);
    let after = store.signals(None, mine[0].0).await.expect("works");
    assert_eq!(after.len(), 2);
    // Bytes by digest, until nobody needs them.
    assert_eq!(store.recall("key").await.expect("works"), None);
    store.remember("key", "first").await.expect("works");
    store.remember("key", "second").await.expect("works");
    let recalled = store.recall("key").await.expect("works");
    assert_eq!(recalled.as_deref(), Some("second"));
    store.put_content("aa", b"one").await.expect("works");
    store.put_content("aa", b"one").await.expect("again");
    store.put_content("bb", b"two").await.expect("works");
    store
        .sweep_content(&["bb".to_owned()])
        .await
        .expect("works");
    assert_eq!(store.content("aa").await.expect("works"), None);
    assert_eq!(
        store.content("bb").await.expect("works"),
        Some(b"two".to_vec())
    );
}

#[tokio::test]
async fn memory_conforms() {
    conforms(&MemoryStore::default()).await;
}

#[tokio::test]
async fn sqlite_conforms() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("engine.db")).expect("opens");
    conforms(&store).await;
}

#[tokio::test]
async fn sqlite_is_shared_by_connections_and_outlives_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("engine.db");
    let (a, b) = (
        SqliteStore::open(&place).expect("opens"),
        SqliteStore::open(&place).expect("opens twice"),
    );
    let lease = claim(&a, "r1", 1, 0).await.expect("free");
    assert!(claim(&b, "r2", 2, 0).await.is_err());
    a.append(&lease, vec![first()], Durability::Power)
        .await
        .expect("ours");
    assert_eq!(b.load("r1", 0).await.expect("there"), vec![first()]);
    drop((a, b));
    let again = SqliteStore::open(&place).expect("opens");
    assert_eq!(again.load("r1", 0).await.expect("there"), vec![first()]);
}

#[tokio::test]
async fn one_of_many_claims_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("engine.db");
    for round in 0..20 {
        let target = format!("t{round}");
        let mut tasks = tokio::task::JoinSet::new();
        for pid in 0..8 {
            let (place, target) = (place.clone(), target.clone());
            tasks.spawn(async move {
                let store = SqliteStore::open(&place).expect("opens");
                let owner = owner(pid);
                let claim = Claim {
                    target: &target,
                    rollout: &format!("r{pid}"),
                    owner: &owner,
                    now: 0,
                    ttl_ms: 1_000,
                    dead_epoch: None,
                };
                store.claim(claim).await.is_ok()
            });
        }
        let winners = tasks
            .join_all()
            .await
            .into_iter()
            .filter(|won| *won)
            .count();
        assert_eq!(winners, 1, "round {round}");
    }
}

#[tokio::test]
async fn an_unreadable_entry_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("engine.db");
    let store = SqliteStore::open(&place).expect("opens");
    let raw = rusqlite::Connection::open(&place).expect("opens");
    raw.execute(
        "INSERT INTO journal (rollout, seq, at, epoch, event) VALUES ('r', 3, 0, 1, '{\"event\":\"from-the-future\"}')",
        [],
    )
    .expect("inserts");
    let error = store.load("r", 0).await.expect_err("unknown event");
    assert!(
        error.to_string().contains("entry 3 of rollout r"),
        "{error}"
    );
    assert!(
        error.to_string().contains("another version of engine"),
        "{error}"
    );
}
