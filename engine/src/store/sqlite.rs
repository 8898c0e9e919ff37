//! A store in one SQLite file: several processes, one machine.
//!
//! WAL mode. One thread writes and takes whatever requests have queued up into
//! one transaction: that is the group commit. A transaction is synced to the
//! disk only if one of its requests asks for it; everything committed before is
//! then safe too, because the log is one file. Another thread reads, on a
//! connection of its own: a reader needs no lock, so nobody who holds one can
//! keep it waiting.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use tokio::sync::oneshot;

use super::{Busy, Claim, Durability, Lease, Listed, Owner, Store, StoreError};
use crate::journal::{Entry, Event, Header};
use crate::model::{Millis, Signal};

/// Most requests in one transaction.
const GROUP_MAX: usize = 256;
/// How long a transaction waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one that only looks waits for another process.
const LOOK_TIMEOUT: Duration = Duration::from_millis(250);
/// How often two processes that make a store at once get out of each other's way.
const SET_UP_PAUSE: Duration = Duration::from_millis(20);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS journal (
    rollout TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, epoch INTEGER NOT NULL,
    event TEXT NOT NULL, PRIMARY KEY (rollout, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
    target TEXT PRIMARY KEY, rollout TEXT NOT NULL, epoch INTEGER NOT NULL,
    owner TEXT, expires INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS signal (
    number INTEGER PRIMARY KEY AUTOINCREMENT, rollout TEXT NOT NULL, id TEXT NOT NULL,
    signal TEXT NOT NULL, UNIQUE (rollout, id));
CREATE TABLE IF NOT EXISTS remembered (key TEXT PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS content (sha256 TEXT PRIMARY KEY, bytes BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS journal_target
    ON journal (CASE WHEN json_valid(event) THEN json_extract(event, '$.identity') END, at)
    WHERE seq = 0;
";

type Work = Box<dyn FnOnce(&Transaction<'_>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), rusqlite::Error>) + Send>;

struct Request {
    work: Work,
    /// Answers without doing it.
    refuse: Box<dyn FnOnce(&str) + Send>,
    /// None for what only reads.
    durability: Option<Durability>,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    reads: mpsc::Sender<Request>,
    writes: mpsc::Sender<Request>,
    place: PathBuf,
    /// Where the copy lies that is read in place of the file itself.
    _copy: Option<Arc<tempfile::TempDir>>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// Makes the tables. SQLite does not wait by itself for another process that does
/// the same: neither may wait for the other while both change to WAL.
fn set_up(connection: &Connection, patience: Duration) -> Result<(), rusqlite::Error> {
    // Or each try could wait as long as all of them may.
    connection.busy_timeout(Duration::ZERO)?;
    let once = || {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.execute_batch(SCHEMA)
    };
    let tries = patience.as_millis() / SET_UP_PAUSE.as_millis();
    for _ in 0..tries {
        match once() {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                std::thread::sleep(SET_UP_PAUSE);
            }
            result => return result,
        }
    }
    once()
}

/// A connection that writes, with its tables.
fn writer(place: &Path, patience: Duration) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(place)?;
    set_up(&connection, patience)?;
    connection.busy_timeout(patience)?;
    Ok(connection)
}

/// A connection that only reads a store that is there, and can.
fn reader(place: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(place, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(LOOK_TIMEOUT)?;
    connection
        .prepare("SELECT seq FROM journal LIMIT 1")?
        .exists([])?;
    Ok(connection)
}

/// Refuses what would keep a reader waiting for ever, such as a pipe.
fn regular(place: &Path) -> Result<(), StoreError> {
    match std::fs::metadata(place) {
        Ok(meta) if !meta.is_file() => Err(StoreError::Database {
            place: place.display().to_string(),
            message: "it is no regular file".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn has_no_tables(place: &Path) -> bool {
    let tables = Connection::open_with_flags(place, OpenFlags::SQLITE_OPEN_READ_ONLY).and_then(
        |connection| {
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
        },
    );
    tables == Ok(0)
}

/// A store with nothing in it.
fn empty() -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// The file of a store and its log, copied to where one may write: SQLite needs
/// that even to read, unless another process has the store open.
fn copied(place: &Path) -> std::io::Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("engine.db");
    std::fs::copy(place, &copy)?;
    let with = |path: &Path, end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let log = with(place, "-wal");
    if log.exists() {
        std::fs::copy(log, with(&copy, "-wal"))?;
    }
    Ok((folder, copy))
}

type Opens = Box<dyn FnOnce() -> Result<Connection, rusqlite::Error> + Send>;

/// A thread that serves requests on a connection, which it opens when the first
/// one comes.
fn thread(place: &Path, name: &str, opens: Opens) -> Result<mpsc::Sender<Request>, StoreError> {
    let (queue, requests) = mpsc::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || serve(opens, &requests))
        .map_err(|e| StoreError::Database {
            place: place.display().to_string(),
            message: e.to_string(),
        })?;
    Ok(queue)
}

impl SqliteStore {
    /// Opens or creates the store at `place`; its folder must exist.
    ///
    /// # Errors
    /// It cannot be made or written to.
    pub fn open(place: &Path) -> Result<Self, StoreError> {
        Self::open_within(place, BUSY_TIMEOUT)
    }

    /// The same, with a limit for how long to wait for another process's lock,
    /// now and at each write.
    ///
    /// # Errors
    /// As for [`SqliteStore::open`].
    pub fn open_within(place: &Path, patience: Duration) -> Result<Self, StoreError> {
        regular(place)?;
        let failed = |e: rusqlite::Error| database(place, &e);
        let writes = writer(place, patience).map_err(failed)?;
        let reads = reader(place).map_err(failed)?;
        Ok(Self {
            writes: thread(place, "store", Box::new(move || Ok(writes)))?,
            reads: thread(place, "store-reader", Box::new(move || Ok(reads)))?,
            place: place.to_owned(),
            _copy: None,
        })
    }

    /// Opens a store that is there to read it, which needs no permission to write
    /// and no lock. What is written all the same is written if it can be at once.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn look(place: &Path) -> Result<Self, StoreError> {
        regular(place)?;
        let (connection, copy) = match reader(place) {
            Ok(connection) => (connection, None),
            // Whoever made it came no further.
            Err(_) if has_no_tables(place) => (empty().map_err(|e| database(place, &e))?, None),
            Err(first) => match copied(place) {
                Ok((folder, copy)) => (
                    Connection::open(copy).map_err(|_| database(place, &first))?,
                    Some(Arc::new(folder)),
                ),
                Err(_) => return Err(database(place, &first)),
            },
        };
        let writes = place.to_owned();
        Ok(Self {
            writes: thread(
                place,
                "store",
                Box::new(move || writer(&writes, LOOK_TIMEOUT)),
            )?,
            reads: thread(place, "store-reader", Box::new(move || Ok(connection)))?,
            place: place.to_owned(),
            _copy: copy,
        })
    }

    /// Runs `work` in the next transaction that only reads.
    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.ask(&self.reads, None, work).await
    }

    /// Runs `work` in the next transaction and returns its result once that
    /// transaction is committed.
    async fn within<T, F>(&self, durability: Durability, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.ask(&self.writes, Some(durability), work).await
    }

    async fn ask<T, F>(
        &self,
        queue: &mpsc::Sender<Request>,
        durability: Option<Durability>,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        // One of the two uses it.
        let sender = Arc::new(Mutex::new(Some(sender)));
        let to_refuse = sender.clone();
        let answer = |sender: &Mutex<Option<oneshot::Sender<Result<T, Failure>>>>, result| {
            let taken = sender.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(sender) = taken {
                let _ = sender.send(result);
            }
        };
        let refuse = Box::new(move |message: &str| {
            answer(&to_refuse, Err(Failure::Database(failure(message))));
        });
        let work: Work = Box::new(move |transaction| {
            let result = work(transaction);
            Box::new(move |committed| {
                answer(&sender, committed.map_err(Failure::Database).and(result));
            })
        });
        let stopped = || StoreError::Database {
            place: self.place.display().to_string(),
            message: "the store has stopped".to_owned(),
        };
        queue
            .send(Request {
                work,
                refuse,
                durability,
            })
            .map_err(|_| stopped())?;
        receiver
            .await
            .map_err(|_| stopped())?
            .map_err(|failure| match failure {
                Failure::Database(e) => database(&self.place, &e),
                Failure::Store(e) => e,
            })
    }
}

/// A request that fails leaves the transaction of the others alone: it has
/// written nothing, or the statement that failed has undone itself.
enum Failure {
    Database(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(e: rusqlite::Error) -> Self {
        Self::Database(e)
    }
}

fn database(place: &Path, error: &rusqlite::Error) -> StoreError {
    StoreError::Database {
        place: place.display().to_string(),
        message: error.to_string(),
    }
}

fn serve(opens: Opens, requests: &mpsc::Receiver<Request>) {
    let mut opens = Some(opens);
    let mut connection = None;
    while let Ok(first) = requests.recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = requests.try_recv()
        {
            group.push(next);
        }
        if let Some(opens) = opens.take() {
            connection = Some(opens());
        }
        match &mut connection {
            Some(Ok(connection)) => run(connection, group),
            Some(Err(error)) => {
                for request in group {
                    (request.refuse)(&error.to_string());
                }
            }
            None => {}
        }
    }
}

fn run(connection: &mut Connection, group: Vec<Request>) {
    let writes = group.iter().any(|r| r.durability.is_some());
    let power = group
        .iter()
        .any(|r| r.durability == Some(Durability::Power));
    let level = if power { "FULL" } else { "NORMAL" };
    let behaviour = if writes {
        TransactionBehavior::Immediate
    } else {
        TransactionBehavior::Deferred
    };
    let mut waiting = group.into_iter();
    let mut replies: Vec<Reply> = Vec::with_capacity(waiting.len());
    let outcome = connection
        .pragma_update(None, "synchronous", level)
        .and_then(|()| {
            let transaction = connection.transaction_with_behavior(behaviour)?;
            for request in waiting.by_ref() {
                replies.push((request.work)(&transaction));
            }
            transaction.commit()
        });
    let message = outcome.err().map(|e| e.to_string());
    for reply in replies {
        reply(message.as_ref().map_or(Ok(()), |m| Err(failure(m))));
    }
    for request in waiting {
        (request.refuse)(message.as_deref().unwrap_or("the store has stopped"));
    }
}

fn failure(message: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR),
        Some(message.to_owned()),
    )
}

/// Who occupies a target: a lease, unless its rollout has ended and its process
/// died before it could give the lease back.
fn occupant(transaction: &Transaction<'_>, target: &str) -> Result<Option<Busy>, rusqlite::Error> {
    let Some(busy) = leased(transaction, target)? else {
        return Ok(None);
    };
    let last: Option<String> = transaction
        .prepare_cached("SELECT event FROM journal WHERE rollout = ?1 ORDER BY seq DESC LIMIT 1")?
        .query_row([&busy.rollout], |row| row.get(0))
        .optional()?;
    let ended =
        last.is_some_and(|event| matches!(serde_json::from_str(&event), Ok(Event::Ended { .. })));
    Ok((!ended).then_some(busy))
}

fn has_journal(transaction: &Transaction<'_>, rollout: &str) -> Result<bool, rusqlite::Error> {
    transaction.query_row(
        "SELECT EXISTS (SELECT 1 FROM journal WHERE rollout = ?1)",
        [rollout],
        |row| row.get(0),
    )
}

fn leased(transaction: &Transaction<'_>, target: &str) -> Result<Option<Busy>, rusqlite::Error> {
    transaction
        .prepare_cached("SELECT rollout, epoch, owner, expires FROM lease WHERE target = ?1")?
        .query_row([target], |row| {
            let owner: Option<String> = row.get(2)?;
            Ok(Busy {
                rollout: row.get(0)?,
                epoch: row.get(1)?,
                owner: owner.and_then(|json| serde_json::from_str(&json).ok()),
                expires: unsigned(row.get(3)?),
            })
        })
        .optional()
}

fn ours(transaction: &Transaction<'_>, lease: &Lease) -> Result<(), Failure> {
    match leased(transaction, &lease.target)? {
        Some(busy) if busy.rollout == lease.rollout && busy.epoch == lease.epoch => Ok(()),
        _ => Err(Failure::Store(StoreError::Fenced {
            rollout: lease.rollout.clone(),
        })),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value)
        .map_err(|e| Failure::Database(rusqlite::Error::ToSqlConversionFailure(Box::new(e))))
}

fn entry(
    rollout: &str,
    row: &rusqlite::Row<'_>,
) -> Result<Result<Entry, Failure>, rusqlite::Error> {
    let seq = row.get(0)?;
    let event: String = row.get(3)?;
    Ok(match serde_json::from_str(&event) {
        Ok(event) => Ok(Entry {
            seq,
            at: unsigned(row.get(1)?),
            epoch: row.get(2)?,
            event,
        }),
        Err(e) => Err(Failure::Store(StoreError::Format {
            rollout: rollout.to_owned(),
            seq,
            message: e.to_string(),
        })),
    })
}

/// The first entry of a rollout and its last one; none if it has no beginning.
fn listed(transaction: &Transaction<'_>, id: &str) -> Result<Option<Listed>, Failure> {
    let mut ends = transaction
        .prepare_cached(
            "SELECT seq, at, epoch, event FROM journal WHERE rollout = ?1 AND (seq = 0 OR
             seq = (SELECT max(seq) FROM journal WHERE rollout = ?1)) ORDER BY seq",
        )?
        .query_map([id], |row| entry(id, row))?
        .map(|row| row?)
        .collect::<Result<Vec<Entry>, Failure>>()?;
    let Some(last) = ends.pop() else {
        return Ok(None);
    };
    let Event::Started(header) = &ends.first().unwrap_or(&last).event else {
        return Ok(None);
    };
    let header = (**header).clone();
    Ok(Some(Listed { header, last }))
}

#[async_trait]
impl Store for SqliteStore {
    async fn claim(&self, claim: Claim<'_>) -> Result<Lease, StoreError> {
        let (target, rollout) = (claim.target.to_owned(), claim.rollout.to_owned());
        let owner = claim.owner.clone();
        let (now, ttl, dead) = (claim.now, claim.ttl_ms, claim.dead_epoch);
        // A power cut ends every owner too, so a lease need not outlive it.
        self.within(Durability::Process, move |transaction| {
            let mut epoch = 1;
            if let Some(busy) = occupant(transaction, &target)? {
                let gone = busy.owner.is_none()
                    || busy.expires <= now
                    || dead == Some(busy.epoch);
                let free = gone || busy.owner.as_ref() == Some(&owner);
                // A process that died before its first entry leaves nothing to resume.
                let abandoned = gone && !has_journal(transaction, &busy.rollout)?;
                if busy.rollout != rollout && !abandoned || !free {
                    return Err(Failure::Store(StoreError::Busy(busy)));
                }
                epoch = busy.epoch + 1;
            }
            let last: Option<u32> = transaction.query_row(
                "SELECT max(epoch) FROM journal WHERE rollout = ?1",
                [&rollout],
                |row| row.get(0),
            )?;
            epoch = epoch.max(last.map_or(0, |e| e + 1));
            transaction.execute(
                "INSERT OR REPLACE INTO lease (target, rollout, epoch, owner, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![target, rollout, epoch, json::<Owner>(&owner)?, signed(now + ttl)],
            )?;
            Ok(Lease { target, rollout, epoch })
        })
        .await
    }

    async fn renew(&self, lease: &Lease, expires: Millis) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.within(Durability::Process, move |transaction| {
            ours(transaction, &lease)?;
            transaction.execute(
                "UPDATE lease SET expires = ?2 WHERE target = ?1",
                params![lease.target, signed(expires)],
            )?;
            Ok(())
        })
        .await
    }

    async fn release(&self, lease: &Lease, keep: bool) -> Result<(), StoreError> {
        let lease = lease.clone();
        // A power cut ends every owner too, so a lease need not outlive it.
        self.within(Durability::Process, move |transaction| {
            ours(transaction, &lease)?;
            let statement = if keep {
                "UPDATE lease SET owner = NULL WHERE target = ?1"
            } else {
                "DELETE FROM lease WHERE target = ?1"
            };
            transaction.execute(statement, [&lease.target])?;
            Ok(())
        })
        .await
    }

    async fn append(
        &self,
        lease: &Lease,
        entries: Vec<Entry>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.within(durability, move |transaction| {
            ours(transaction, &lease)?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO journal (rollout, seq, at, epoch, event) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for entry in &entries {
                insert.execute(params![
                    lease.rollout,
                    entry.seq,
                    signed(entry.at),
                    entry.epoch,
                    json(&entry.event)?
                ])?;
            }
            Ok(())
        })
        .await
    }

    async fn load(&self, rollout: &str, from: u32) -> Result<Vec<Entry>, StoreError> {
        let rollout = rollout.to_owned();
        self.read(move |transaction| {
            transaction
                .prepare_cached(
                    "SELECT seq, at, epoch, event FROM journal WHERE rollout = ?1 AND seq >= ?2 ORDER BY seq",
                )?
                .query_map(params![rollout, from], |row| entry(&rollout, row))?
                .map(|row| row?)
                .collect()
        })
        .await
    }

    async fn list(&self, on: Option<&str>, limit: u32) -> Result<Vec<Listed>, StoreError> {
        let on = on.map(ToOwned::to_owned);
        self.read(move |transaction| {
            let ids: Vec<String> = match on {
                None => transaction
                    .prepare("SELECT rollout FROM journal WHERE seq = 0 ORDER BY at DESC LIMIT ?1")?
                    .query_map([limit], |row| row.get(0))?
                    .collect::<Result<_, _>>()?,
                Some(target) => transaction
                    .prepare(
                        "SELECT rollout FROM journal WHERE seq = 0
                         AND CASE WHEN json_valid(event) THEN json_extract(event, '$.identity') END = ?2
                         ORDER BY at DESC LIMIT ?1",
                    )?
                    .query_map(params![limit, target], |row| row.get(0))?
                    .collect::<Result<_, _>>()?,
            };
            let listed = ids.iter().map(|id| listed(transaction, id));
            Ok(listed
                .collect::<Result<Vec<_>, Failure>>()?
                .into_iter()
                .flatten()
                .collect())
        })
        .await
    }

    async fn unfinished(&self) -> Result<Vec<Header>, StoreError> {
        self.read(move |transaction| {
            // A rollout has the lease on its target until it ends.
            let ids: Vec<String> = transaction
                .prepare("SELECT rollout FROM lease")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut found = vec![];
            for id in ids {
                if let Some(listed) = listed(transaction, &id)?
                    && !matches!(listed.last.event, Event::Ended { .. })
                {
                    found.push(listed.header);
                }
            }
            found.sort_by_key(|header| std::cmp::Reverse(header.created));
            Ok(found)
        })
        .await
    }

    async fn occupant(&self, target: &str) -> Result<Option<Busy>, StoreError> {
        let target = target.to_owned();
        self.read(move |transaction| Ok(occupant(transaction, &target)?))
            .await
    }

    async fn signal(&self, rollout: &str, signal: &Signal) -> Result<bool, StoreError> {
        let (rollout, signal) = (rollout.to_owned(), signal.clone());
        self.within(Durability::Power, move |transaction| {
            let added = transaction.execute(
                "INSERT OR IGNORE INTO signal (rollout, id, signal) VALUES (?1, ?2, ?3)",
                params![rollout, signal.id, json(&signal)?],
            )?;
            Ok(added == 1)
        })
        .await
    }

    async fn signals(
        &self,
        rollout: Option<&str>,
        after: u64,
    ) -> Result<Vec<(u64, String, Signal)>, StoreError> {
        let rollout = rollout.map(ToOwned::to_owned);
        self.read(move |transaction| {
            transaction
                .prepare_cached(
                    "SELECT number, rollout, signal FROM signal
                     WHERE number > ?1 AND (?2 IS NULL OR rollout = ?2) ORDER BY number",
                )?
                .query_map(params![signed(after), rollout], |row| {
                    let text: String = row.get(2)?;
                    Ok((unsigned(row.get(0)?), row.get(1)?, text))
                })?
                .map(|row| {
                    let (number, rollout, text): (u64, String, String) = row?;
                    let signal = serde_json::from_str(&text).map_err(|e| {
                        Failure::Store(StoreError::Format {
                            rollout: rollout.clone(),
                            seq: 0,
                            message: e.to_string(),
                        })
                    })?;
                    Ok((number, rollout, signal))
                })
                .collect()
        })
        .await
    }

    async fn remember(&self, key: &str, text: &str) -> Result<(), StoreError> {
        let (key, text) = (key.to_owned(), text.to_owned());
        self.within(Durability::Process, move |transaction| {
            transaction.execute(
                "INSERT INTO remembered (key, text) VALUES (?1, ?2)
                 ON CONFLICT (key) DO UPDATE SET text = excluded.text",
                params![key, text],
            )?;
            Ok(())
        })
        .await
    }

    async fn recall(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        self.read(move |transaction| {
            Ok(transaction
                .query_row(
                    "SELECT text FROM remembered WHERE key = ?1",
                    [&key],
                    |row| row.get(0),
                )
                .optional()?)
        })
        .await
    }

    async fn put_content(&self, sha256: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let (sha256, bytes) = (sha256.to_owned(), bytes.to_vec());
        self.within(Durability::Power, move |transaction| {
            transaction.execute(
                "INSERT OR IGNORE INTO content (sha256, bytes) VALUES (?1, ?2)",
                params![sha256, bytes],
            )?;
            Ok(())
        })
        .await
    }

    async fn content(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let sha256 = sha256.to_owned();
        self.read(move |transaction| {
            Ok(transaction
                .query_row(
                    "SELECT bytes FROM content WHERE sha256 = ?1",
                    [&sha256],
                    |row| row.get(0),
                )
                .optional()?)
        })
        .await
    }

    async fn sweep_content(&self, needed: &[String]) -> Result<(), StoreError> {
        let needed = needed.to_vec();
        self.within(Durability::Process, move |transaction| {
            let known: Vec<String> = transaction
                .prepare("SELECT sha256 FROM content")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for sha256 in known.iter().filter(|sha| !needed.contains(sha)) {
                transaction.execute("DELETE FROM content WHERE sha256 = ?1", [sha256])?;
            }
            Ok(())
        })
        .await
    }
}
