//! The conformance suites of the three store ports: every store passes all of each.

use std::sync::Arc;

use engine::journal::summary::Summary;
use engine::journal::{Call, Entry, Event, Header, Reply};
use engine::model::aws::{Access, Also, AwsSpec, Find, Found, looked_for};
use engine::model::target::TargetSpec;
use engine::model::{End, Level, Phase, Signal};
use engine::store::lifeboat::Lifeboat;
use engine::store::memory::MemoryStore;
use engine::store::sqlite::SqliteStore;
use engine::store::{
    BLOB_GRACE_MS, Blobs, Claim, Cursor, Durability, ENTRY_BYTES_MAX, Journals, KEPT_AFTER_WAKE_MS,
    Lease, Owner, Page, Schedule, Store, StoreError,
};
use serde_json::json;

use crate::support::folder;
use crate::support::lab::{self, Lab, Scripted};

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

/// The row of a rollout whose journal is this, and which is on the target of tests.
fn row(rollout: &str, entries: &[Entry]) -> Summary {
    let mut all = entries.to_vec();
    if !matches!(all[0].event, Event::Started(_)) {
        all.insert(0, first());
    }
    let row = Summary::of_journal(&all).expect("it has a beginning");
    let rollout = rollout.to_owned();
    Summary { rollout, ..row }
}

async fn append(
    store: &dyn Journals,
    lease: &Lease,
    entries: Vec<Entry>,
    durability: Durability,
) -> Result<(), StoreError> {
    let row = row(&lease.rollout, &entries);
    store.append(lease, entries, &row, durability).await
}

async fn claim(
    store: &dyn Journals,
    rollout: &str,
    pid: u32,
    now: u64,
) -> Result<Lease, StoreError> {
    let owner = owner(pid);
    let claim = Claim {
        target: "t",
        also: &[],
        rollout,
        owner: &owner,
        now,
        ttl_ms: 100,
        dead_epoch: None,
    };
    store.claim(claim).await
}

/// What any implementation of [`Journals`] does. The suites ask an occupant to see it.
async fn journals<S: Journals + Schedule>(store: &S) {
    // A process that died between its last entry and giving the lease back, or
    // before its first entry, does not lock the target for ever.
    let lease = claim(store, "ended", 1, 0).await.expect("free");
    let ended = vec![first(), last(1)];
    append(store, &lease, ended, Durability::Power)
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
    store.release(&next).await.expect("ours");
    steady(store).await;
    many_identities(store).await;
    one_history(store).await;
}

/// A claim under several identities.
async fn claim_all(
    store: &dyn Journals,
    (target, also): (&str, &[&str]),
    rollout: &str,
    now: u64,
) -> Result<Lease, StoreError> {
    let owner = owner(1);
    let also: Vec<String> = also.iter().map(|id| (*id).to_owned()).collect();
    let claim = Claim {
        target,
        also: &also,
        rollout,
        owner: &owner,
        now,
        ttl_ms: 100,
        dead_epoch: None,
    };
    store.claim(claim).await
}

/// A target with several identities is occupied under each, whichever comes first.
async fn many_identities<S: Journals + Schedule>(store: &S) {
    let occupant = async |id: &str| {
        let busy = store.occupant(id).await.expect("works");
        busy.map(|busy| (busy.rollout, busy.expires))
    };
    let set = claim_all(store, ("a", &["b", "c"]), "set", 0).await;
    let set = set.expect("free");
    let begun = vec![first()];
    let appended = append(store, &set, begun, Durability::Process).await;
    appended.expect("ours");
    for (target, also) in [
        ("b", &[][..]),
        ("x", &["c"]),
        ("a", &[]),
        ("y", &["z", "b"]),
    ] {
        let Err(StoreError::Busy(busy)) = claim_all(store, (target, also), "late", 10).await else {
            panic!("{target} {also:?}");
        };
        assert_eq!(busy.rollout, "set");
    }
    assert_eq!(occupant("x").await, None, "a refused claim leaves nothing");
    store.renew(&set, 500).await.expect("ours");
    for id in ["a", "b", "c"] {
        assert_eq!(occupant(id).await, Some(("set".to_owned(), 500)), "{id}");
    }
    let open = store.open(None).await.expect("works");
    let open = open.iter().filter(|o| o.summary.rollout == "set").count();
    assert!(open <= 1, "listed once");
    store.park(&set, None).await.expect("ours");
    let refused = claim_all(store, ("c", &[]), "late", 999).await;
    assert!(refused.is_err(), "parked is occupied");
    // The same rollout goes on, and gives all of it back.
    let again = claim_all(store, ("a", &["b", "c"]), "set", 1_000).await;
    let again = again.expect("its own");
    assert!(again.epoch > set.epoch);
    store.release(&again).await.expect("ours");
    for id in ["a", "b", "c"] {
        assert_eq!(occupant(id).await, None, "{id}");
    }
    // Who never began and loses one identity loses all.
    let slow = claim_all(store, ("a", &["b"]), "slow", 2_000).await;
    let slow = slow.expect("free");
    let one = claim_all(store, ("b", &[]), "one", 2_100).await;
    let one = one.expect("abandoned");
    assert_eq!(occupant("a").await, None);
    let fenced = append(store, &slow, vec![first()], Durability::Process).await;
    assert!(matches!(fenced, Err(StoreError::Fenced { .. })));
    store.release(&one).await.expect("ours");
}

/// What was done by one route of a target is in the history of its others.
async fn one_history<S: Journals + Schedule>(store: &S) {
    let also = |route: &str| Also {
        route: route.to_owned(),
        place: String::new(),
        load_balancer: String::new(),
    };
    let spec = AwsSpec {
        found: Some(Found {
            route: "first".to_owned(),
            also: vec![also("second"), also("third")],
            ..Found::default()
        }),
        ..looked_for(Access::default(), Find::default())
    };
    let several = Header {
        rollout: "several".to_owned(),
        identity: "first".to_owned(),
        target: TargetSpec::Aws(Box::new(spec)),
        created: 5,
        ..header()
    };
    let alone = Header {
        rollout: "alone".to_owned(),
        identity: "second".to_owned(),
        created: 6,
        ..header()
    };
    for (header, others) in [(several, &["second", "third"][..]), (alone, &[])] {
        let id = header.rollout.clone();
        let lease = claim_all(store, (&header.identity, others), &id, 0).await;
        let lease = lease.expect("free");
        let begun = entry(0, Event::Started(Box::new(header.clone())));
        let begun = vec![begun];
        append(store, &lease, begun.clone(), Durability::Process)
            .await
            .expect("ours");
        for route in others.iter().chain([&&*header.identity]) {
            let open = store.open(Some(route)).await.expect("works");
            assert_eq!(open.len(), 1, "{route}");
            assert_eq!(open[0].summary.rollout, id);
        }
        let whole = [begun, vec![last(1)]].concat();
        let row = Summary::of_journal(&whole).expect("it has a beginning");
        let ended = store.append(&lease, vec![last(1)], &row, Durability::Process);
        ended.await.expect("ours");
        store.release(&lease).await.expect("ours");
    }
    let history = async |on: &str, limit| {
        let rows = store.history(&Page::newest(Some(on), limit)).await;
        let rows = rows.expect("works").into_iter();
        rows.map(|row| row.rollout).collect::<Vec<_>>()
    };
    assert_eq!(history("first", 9).await, ["several"]);
    assert_eq!(history("second", 9).await, ["alone", "several"]);
    assert_eq!(history("second", 1).await, ["alone"]);
    assert_eq!(history("third", 9).await, ["several"]);
    assert_eq!(history("fourth", 9).await, [""; 0]);
}

async fn steady<S: Journals + Schedule>(store: &S) {
    // A lease keeps other rollouts and other processes out.
    let lease = claim(store, "r1", 1, 0).await.expect("free");
    for (rollout, pid) in [("r2", 1), ("r1", 2)] {
        let Err(StoreError::Busy(busy)) = claim(store, rollout, pid, 50).await else {
            panic!("{rollout} by {pid} must not get it");
        };
        assert_eq!((busy.rollout.as_str(), busy.owner), ("r1", Some(owner(1))));
    }
    // Entries come back as they went in.
    append(store, &lease, vec![first(), middle(1)], Durability::Power)
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
        append(store, &lease, vec![middle(2)], Durability::Process).await,
        store.renew(&lease, 999).await,
        store.release(&lease).await,
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
        also: &[],
        rollout: "r1",
        owner: &third,
        now: 201,
        ttl_ms: 100,
        dead_epoch: Some(second.epoch),
    };
    let lease = store.claim(dead).await.expect("its owner is dead");
    // Given back but kept: any process may go on, no other rollout may begin.
    store.park(&lease, None).await.expect("ours");
    let busy = store.occupant("t").await.expect("works").expect("occupied");
    assert_eq!((busy.rollout.as_str(), busy.owner), ("r1", None));
    assert!(claim(store, "r2", 1, 999_999).await.is_err());
    let lease = claim(store, "r1", 4, 202).await.expect("nobody drives it");
    store.release(&lease).await.expect("ours");
    assert_eq!(store.occupant("t").await.expect("works"), None);
    assert!(claim(store, "r2", 1, 203).await.is_ok());
    // Epochs of one rollout never repeat, even after its lease was dropped.
    let lease = claim(store, "r2", 1, 204).await.expect("its own");
    store.release(&lease).await.expect("ours");
    let again = claim(store, "r1", 4, 205).await.expect("free");
    assert!(again.epoch > 1, "{again:?}");
    assert_eq!(store.header("r1").await.expect("works"), Some(header()));
    assert_eq!(store.header("nobody").await.expect("works"), None);
    // Parked: no owner, nobody writes, and whoever claims first drives.
    store.park(&again, Some(1_000)).await.expect("ours");
    let busy = store.occupant("t").await.expect("works").expect("occupied");
    assert_eq!((busy.owner.clone(), busy.due), (None, Some(1_000)));
    assert_eq!(busy.keeper, Some(owner(4)));
    assert_eq!(busy.expires, 1_000 + KEPT_AFTER_WAKE_MS);
    for result in [
        append(store, &again, vec![middle(2)], Durability::Process).await,
        store.renew(&again, 9_999).await,
    ] {
        assert!(
            matches!(result, Err(StoreError::Fenced { .. })),
            "{result:?}"
        );
    }
    assert!(claim(store, "r2", 4, 206).await.is_err(), "it is occupied");
    let taken = claim(store, "r1", 5, 206).await.expect("at once");
    let busy = store.occupant("t").await.expect("works").expect("occupied");
    assert_eq!(
        (busy.owner, busy.keeper, busy.due),
        (Some(owner(5)), None, None)
    );
    assert!(
        store.park(&again, None).await.is_err(),
        "it was claimed since"
    );
    // Who parked it may let go of it altogether.
    store.park(&taken, Some(1_000)).await.expect("ours");
    store.park(&taken, None).await.expect("nobody claimed it");
    let busy = store.occupant("t").await.expect("works").expect("occupied");
    assert_eq!((busy.driver(), busy.due), (None, None));
    let lease = claim(store, "r1", 5, 207).await.expect("free to claim");
    // An entry has a largest size, and nothing of a larger one is written.
    let message = "x".repeat(usize::try_from(ENTRY_BYTES_MAX).expect("64 bits"));
    let call = Call::Log {
        level: Level::Info,
        message,
    };
    let by = engine::journal::Actor::Strategy;
    let large = entry(
        3,
        Event::Exchanged {
            by,
            call,
            reply: Reply::Done,
        },
    );
    let refused = append(store, &lease, vec![middle(2), large], Durability::Process).await;
    assert!(
        matches!(refused, Err(StoreError::TooLarge { seq: 3, .. })),
        "{refused:?}"
    );
    assert_eq!(store.load("r1", 2).await.expect("works"), vec![]);
    store.release(&lease).await.expect("ours");
}

/// A rollout on a target of its own, from its first entry on; its lease.
async fn begun<S: Journals>(store: &S, id: &str, created: u64, plugin: Option<&str>) -> Lease {
    let mut header = header();
    header.rollout = id.to_owned();
    header.identity = format!("on {id}");
    header.created = created;
    header.work = match plugin {
        Some(sha256) => match header.work {
            engine::journal::Work::Strategy(pin) => {
                let sha256 = sha256.to_owned();
                engine::journal::Work::Strategy(engine::journal::Pin { sha256, ..pin })
            }
            work => work,
        },
        // It has no name of its own in its first entry.
        None => engine::journal::Work::Undo {
            of: "a".to_owned(),
            actor: "ada".to_owned(),
        },
    };
    let owner = owner(1);
    let claim = Claim {
        target: &header.identity,
        also: &[],
        rollout: id,
        owner: &owner,
        now: created,
        ttl_ms: 100,
        dead_epoch: None,
    };
    let lease = store.claim(claim).await.expect("free");
    let entries = vec![entry(0, Event::Started(Box::new(header.clone())))];
    let summary = Summary::of_journal(&entries).expect("a beginning");
    let appended = store.append(&lease, entries, &summary, Durability::Power);
    appended.await.expect("ours");
    lease
}

/// Ends it.
async fn ended<S: Journals>(store: &S, lease: &Lease) {
    let mut entries = store.load(&lease.rollout, 0).await.expect("there");
    let at = u32::try_from(entries.len()).expect("few");
    entries.push(last(at));
    let summary = Summary::of_journal(&entries).expect("a beginning");
    let appended = store.append(lease, vec![last(at)], &summary, Durability::Power);
    appended.await.expect("ours");
    store.release(lease).await.expect("ours");
}

/// What any implementation of [`Schedule`] does.
async fn schedule<S: Journals + Schedule>(store: &S) {
    let ids = |rows: &[Summary]| rows.iter().map(|r| r.rollout.clone()).collect::<Vec<_>>();
    let mut leases = vec![];
    // Two began in the same millisecond.
    for (id, created, plugin) in [
        ("a", 10, Some("aa")),
        ("b", 20, None),
        ("c", 20, Some("cc")),
        ("d", 30, Some("aa")),
    ] {
        leases.push(begun(store, id, created, plugin).await);
    }
    ended(store, &leases[1]).await;
    // Newest first, page by page, each row once.
    let mut page = Page::newest(None, 3);
    let rows = store.history(&page).await.expect("works");
    assert_eq!(ids(&rows), ["d", "c", "b"]);
    page.after = rows.last().map(Cursor::at);
    assert_eq!(ids(&store.history(&page).await.expect("works")), ["a"]);
    let strategies = Page::newest(None, 10).of_strategies();
    assert_eq!(
        ids(&store.history(&strategies).await.expect("works")),
        ["d", "c", "a"]
    );
    // By a part of the id, at either end and by the letter.
    for id in ["canary-x7k2", "canary-b3k2", "a%-X7k2"] {
        ended(store, &begun(store, id, 1, None).await).await;
    }
    for (part, found) in [
        ("canary-", &["canary-x7k2", "canary-b3k2"][..]),
        ("7k2", &["canary-x7k2", "a%-X7k2"]),
        ("x7k2", &["canary-x7k2"]),
        ("a%", &["a%-X7k2"]),
        ("c%2", &[]),
        ("_3k2", &[]),
        ("b3", &["canary-b3k2"]),
        ("ary-", &[]),
    ] {
        let page = Page::newest(None, 10).of_part(part);
        assert_eq!(
            ids(&store.history(&page).await.expect("works")),
            found,
            "{part}"
        );
    }
    let on = Page::newest(Some("on b"), 10);
    assert_eq!(ids(&store.history(&on).await.expect("works")), ["b"]);
    let on = on.of_strategies();
    assert_eq!(store.history(&on).await.expect("works"), vec![]);
    assert_eq!(
        store
            .history(&Page::newest(Some("nowhere"), 9))
            .await
            .expect("works"),
        vec![]
    );
    // A row says what its journal says.
    let ended_row = &rows[2];
    assert_eq!(
        (ended_row.phase, ended_row.end),
        (Phase::Succeeded, Some(End::Promoted))
    );
    assert_eq!((ended_row.note.as_str(), ended_row.entries), ("good", 2));
    assert_eq!(
        (ended_row.title.as_str(), &ended_row.plugin),
        ("undo", &None)
    );
    assert_eq!(
        (rows[0].title.as_str(), rows[0].plugin.as_deref()),
        ("test", Some("aa"))
    );
    // What has not ended, with who has it.
    let open = store.open(None).await.expect("works");
    let open_ids: Vec<&str> = open.iter().map(|o| o.summary.rollout.as_str()).collect();
    assert_eq!(open_ids, ["d", "c", "a"]);
    assert_eq!(open[0].busy.owner, Some(owner(1)));
    assert_eq!(store.open(Some("on c")).await.expect("works").len(), 1);
    assert_eq!(store.open(Some("on b")).await.expect("works"), vec![]);
    // Due: who was to drive or to wake it has not been heard of. A paused one is not.
    store.park(&leases[0], Some(500)).await.expect("ours");
    store.park(&leases[2], None).await.expect("ours");
    assert_eq!(store.due(129, 9).await.expect("works"), vec![]);
    let silent = ("d".to_owned(), 130);
    assert_eq!(
        store.due(130, 9).await.expect("works"),
        vec![silent.clone()]
    );
    let parked = ("a".to_owned(), 500 + KEPT_AFTER_WAKE_MS);
    let later = store.due(parked.1, 9).await.expect("works");
    assert_eq!(later, vec![silent.clone(), parked]);
    assert_eq!(
        store.due(u64::MAX / 4, 1).await.expect("works"),
        vec![silent]
    );
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
}

/// What any implementation of [`Blobs`] does.
async fn blobs<S: Journals + Blobs>(store: &S) {
    assert_eq!(store.recall("key").await.expect("works"), None);
    store.remember("key", "first").await.expect("works");
    store.remember("key", "second").await.expect("works");
    let recalled = store.recall("key").await.expect("works");
    assert_eq!(recalled.as_deref(), Some("second"));
    store.put("aa", b"one", 0).await.expect("works");
    store.put("aa", b"one", 0).await.expect("again");
    store.put("bb", b"two", 0).await.expect("works");
    store.put("cc", b"new", 0).await.expect("works");
    // An unfinished rollout needs its plugin; the others have a time of grace, from
    // the last time that they were put.
    let lease = begun(store, "needs", 10, Some("bb")).await;
    store.put("cc", b"new", 1).await.expect("works");
    store.sweep(BLOB_GRACE_MS).await.expect("works");
    assert!(store.get("aa").await.expect("works").is_some());
    store.sweep(BLOB_GRACE_MS + 1).await.expect("works");
    assert_eq!(store.get("aa").await.expect("works"), None);
    assert_eq!(store.get("cc").await.expect("works"), Some(b"new".to_vec()));
    assert_eq!(store.get("bb").await.expect("works"), Some(b"two".to_vec()));
    ended(store, &lease).await;
    store.sweep(BLOB_GRACE_MS + 2).await.expect("works");
    assert_eq!(store.get("bb").await.expect("works"), None);
    assert_eq!(store.get("cc").await.expect("works"), None);
}

/// All three suites, each on a new store.
async fn conforms<S: Store>(make: impl Fn() -> S) {
    journals(&make()).await;
    schedule(&make()).await;
    blobs(&make()).await;
}

#[tokio::test]
async fn memory_conforms() {
    conforms(MemoryStore::default).await;
}

/// As long as the store below works.
#[tokio::test]
async fn lifeboat_conforms() {
    conforms(|| Lifeboat::over(Arc::new(MemoryStore::default()))).await;
}

#[tokio::test]
async fn sqlite_conforms() {
    let folder = folder();
    let number = std::sync::atomic::AtomicU32::new(0);
    conforms(|| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let place = folder.path().join(format!("{number}.db"));
        SqliteStore::open(&place).expect("opens")
    })
    .await;
}

#[tokio::test]
async fn sqlite_is_shared_by_connections_and_outlives_them() {
    let folder = folder();
    let place = folder.path().join("engine.db");
    let (a, b) = (
        SqliteStore::open(&place).expect("opens"),
        SqliteStore::open(&place).expect("opens twice"),
    );
    let lease = claim(&a, "r1", 1, 0).await.expect("free");
    assert!(claim(&b, "r2", 2, 0).await.is_err());
    append(&a, &lease, vec![first()], Durability::Power)
        .await
        .expect("ours");
    assert_eq!(b.load("r1", 0).await.expect("there"), vec![first()]);
    drop((a, b));
    let again = SqliteStore::open(&place).expect("opens");
    assert_eq!(again.load("r1", 0).await.expect("there"), vec![first()]);
}

#[tokio::test]
async fn one_of_many_claims_wins() {
    let folder = folder();
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
                    also: &[],
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
    let folder = folder();
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

/// The tables as the first engines made them.
const OLD_TABLES: &str = "
CREATE TABLE journal (
    rollout TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, epoch INTEGER NOT NULL,
    event TEXT NOT NULL, PRIMARY KEY (rollout, seq)) WITHOUT ROWID;
CREATE TABLE lease (
    target TEXT PRIMARY KEY, rollout TEXT NOT NULL, epoch INTEGER NOT NULL,
    owner TEXT, expires INTEGER NOT NULL);
CREATE TABLE signal (
    number INTEGER PRIMARY KEY AUTOINCREMENT, rollout TEXT NOT NULL, id TEXT NOT NULL,
    signal TEXT NOT NULL, UNIQUE (rollout, id));
CREATE TABLE remembered (key TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE content (sha256 TEXT PRIMARY KEY, bytes BLOB NOT NULL);
CREATE INDEX journal_target
    ON journal (CASE WHEN json_valid(event) THEN json_extract(event, '$.identity') END, at)
    WHERE seq = 0;
PRAGMA journal_mode = WAL;
";

/// A store of an older engine: one rollout that has ended and one that is paused.
fn old_store(place: &std::path::Path) {
    let raw = rusqlite::Connection::open(place).expect("new");
    raw.execute_batch(OLD_TABLES).expect("SQL");
    write_raw(&raw, "ended", vec![first(), middle(1), last(2)]);
    let hold = engine::model::Hold::Deadline;
    let held = Event::Held { hold, signal: None };
    write_raw(&raw, "held", vec![first(), entry(1, held)]);
    raw.execute_batch(
        "INSERT INTO lease VALUES ('sim', 'held', 1, NULL, 0);
         INSERT INTO content VALUES ('test', x'00'), ('nobody', x'00');",
    )
    .expect("SQL");
}

/// Writes a journal as an engine does that knows no rows.
fn write_raw(raw: &rusqlite::Connection, rollout: &str, entries: Vec<Entry>) {
    for mut entry in entries {
        if let Event::Started(header) = &mut entry.event {
            header.rollout = rollout.to_owned();
        }
        let event = serde_json::to_string(&entry.event).expect("JSON");
        raw.execute(
            "INSERT INTO journal VALUES (?1, ?2, ?3, 1, ?4)",
            rusqlite::params![rollout, entry.seq, 1_000 + i64::from(entry.seq), event],
        )
        .expect("SQL");
    }
}

/// What the rows of [`old_store`] must say.
async fn knows_the_old(store: &SqliteStore) {
    let rows = store
        .history(&Page::newest(Some("sim"), 9))
        .await
        .expect("works");
    let told: Vec<_> = rows
        .iter()
        .map(|r| (r.rollout.as_str(), r.phase, r.entries))
        .collect();
    assert_eq!(
        told,
        [("held", Phase::Paused, 2), ("ended", Phase::Succeeded, 3)]
    );
    let open = store.open(None).await.expect("works");
    assert_eq!((open.len(), open[0].summary.rollout.as_str()), (1, "held"));
}

#[tokio::test]
async fn a_store_of_an_older_engine_is_brought_up_to_date() {
    let folder = folder();
    let place = folder.path().join("engine.db");
    old_store(&place);
    let store = SqliteStore::open(&place).expect("opens");
    knows_the_old(&store).await;
    assert_eq!(store.load("ended", 0).await.expect("there").len(), 3);
    store.sweep(BLOB_GRACE_MS + 1).await.expect("works");
    assert!(
        store.get("test").await.expect("works").is_some(),
        "a paused rollout needs it"
    );
    assert_eq!(store.get("nobody").await.expect("works"), None);
    // An older engine goes on beside it: what it writes is seen all the same.
    let raw = rusqlite::Connection::open(&place).expect("opens");
    write_raw(&raw, "later", vec![first(), last(1)]);
    write_raw(&raw, "held", vec![last(2)]);
    let rows = store.history(&Page::newest(None, 9)).await.expect("works");
    assert!(
        rows.iter().all(|row| row.end == Some(End::Promoted)),
        "{rows:?}"
    );
    assert_eq!(rows.len(), 3);
    assert_eq!(store.open(None).await.expect("works"), vec![]);
    // Nobody takes the tables of a newer engine for its own.
    raw.pragma_update(None, "user_version", 99).expect("SQL");
    let error = SqliteStore::open(&place).expect_err("newer").to_string();
    assert!(error.contains("newer engine"), "{error}");
}

#[tokio::test]
async fn a_store_of_an_older_engine_can_be_read_where_nothing_can_be_written() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = folder();
    let closed = folder.path().join("closed");
    std::fs::create_dir(&closed).expect("writable");
    let place = closed.join("engine.db");
    old_store(&place);
    let other = rusqlite::Connection::open(&place).expect("there");
    other.execute_batch("BEGIN IMMEDIATE").expect("free");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).expect("ours");
    let store = SqliteStore::look(&place).expect("a copy is read");
    knows_the_old(&store).await;
    drop(other);
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).expect("ours");
    let raw = rusqlite::Connection::open(&place).expect("there");
    let version: u32 = raw
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .expect("SQL");
    assert_eq!(version, 0, "the store itself is as it was");
}
