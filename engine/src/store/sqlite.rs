//! A store in one SQLite file, for several processes of one machine.
//!
//! The file is in WAL mode. One thread writes, and puts all requests that have
//! queued up into one transaction (group commit). A transaction is synced to disk
//! only if one of its requests asks for it; everything committed before is then
//! safe too, because the log is one file. Another thread reads on a connection of
//! its own, which needs no lock, so no other process can keep it waiting.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use tokio::sync::oneshot;

use super::claim::{Known, decide};
use super::{
    BLOB_GRACE_MS, Blobs, Busy, Claim, Durability, Journals, KEPT_AFTER_WAKE_MS, Lease, Open,
    Owner, Page, Schedule, StoreError, check_sizes, process,
};
use crate::journal::status::Status;
use crate::journal::summary::Summary;
use crate::journal::{Entry, Event, Header};
use crate::model::{End, Millis, Phase, Signal};

/// Most requests in one transaction.
const GROUP_MAX: usize = 256;
/// Longest wait for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for a process that only reads.
const LOOK_TIMEOUT: Duration = Duration::from_millis(250);
/// Interval between two attempts when two processes make the tables at once.
const SET_UP_PAUSE: Duration = Duration::from_millis(20);

/// Version of the tables, in `PRAGMA user_version`.
const SCHEMA: u32 = 1;

/// The tables of version 0, which the first engines made.
const TABLES: &str = "
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
";

/// Version 1 adds a row for each rollout, and what a lease says of a parked one.
/// The trigger makes the row with the first entry, also for an older engine that
/// shares the file; rows that are behind their journal are made again when read.
const INDEX: &str = "
DROP INDEX IF EXISTS journal_target;
ALTER TABLE lease ADD COLUMN keeper TEXT;
ALTER TABLE lease ADD COLUMN due INTEGER;
CREATE INDEX lease_due ON lease
    (CASE WHEN owner IS NULL AND keeper IS NULL THEN NULL ELSE expires END);
CREATE TABLE content_put (sha256 TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE rollout (
    rollout TEXT PRIMARY KEY, target TEXT NOT NULL, title TEXT NOT NULL, plugin TEXT,
    created INTEGER NOT NULL, updated INTEGER NOT NULL, entries INTEGER NOT NULL,
    phase TEXT NOT NULL, note TEXT NOT NULL, ended TEXT) WITHOUT ROWID;
CREATE INDEX rollout_created ON rollout (created, rollout);
CREATE INDEX rollout_target ON rollout (target, created, rollout);
CREATE INDEX rollout_strategy ON rollout (created, rollout) WHERE plugin IS NOT NULL;
CREATE INDEX rollout_strategy_target ON rollout (target, created, rollout) WHERE plugin IS NOT NULL;
CREATE INDEX rollout_open ON rollout (plugin) WHERE ended IS NULL;
CREATE TRIGGER rollout_begins AFTER INSERT ON journal
WHEN NEW.seq = 0 AND json_valid(NEW.event)
BEGIN
    INSERT OR IGNORE INTO rollout
    SELECT NEW.rollout, json_extract(NEW.event, '$.identity'),
        coalesce(json_extract(NEW.event, '$.work.name'), json_extract(NEW.event, '$.work.verb'), ''),
        json_extract(NEW.event, '$.work.sha256'),
        coalesce(json_extract(NEW.event, '$.created'), NEW.at), NEW.at, 0, '\"pending\"', '', NULL
    WHERE json_extract(NEW.event, '$.identity') IS NOT NULL;
END;
INSERT OR IGNORE INTO rollout
    SELECT rollout, json_extract(event, '$.identity'),
        coalesce(json_extract(event, '$.work.name'), json_extract(event, '$.work.verb'), ''),
        json_extract(event, '$.work.sha256'),
        coalesce(json_extract(event, '$.created'), at), at, 0, '\"pending\"', '', NULL
    FROM journal WHERE seq = 0 AND CASE WHEN json_valid(event)
        THEN json_extract(event, '$.identity') IS NOT NULL ELSE 0 END;
";

/// A target with several identities has a lease under each. The index only makes it quick
/// to find them, so tables without it have the same version.
const LEASES_OF: &str = "CREATE INDEX IF NOT EXISTS lease_rollout ON lease (rollout)";

/// The other identities of each rollout's target: a history by any of them is the same
/// history. Tables without this one have the same version, and are found by the first
/// identity alone.
const ROUTES: &str = "
CREATE TABLE route (
    target TEXT NOT NULL, rollout TEXT NOT NULL, PRIMARY KEY (target, rollout)) WITHOUT ROWID;
CREATE TRIGGER route_begins AFTER INSERT ON journal
WHEN NEW.seq = 0 AND json_valid(NEW.event)
BEGIN
    INSERT OR IGNORE INTO route
    SELECT json_extract(value, '$.route'), NEW.rollout
    FROM json_each(NEW.event, '$.target.found.also')
    WHERE json_extract(value, '$.route') IS NOT NULL;
END;
INSERT OR IGNORE INTO route
    SELECT json_extract(also.value, '$.route'), journal.rollout
    FROM journal, json_each(
        CASE WHEN json_valid(journal.event) THEN journal.event ELSE '{}' END,
        '$.target.found.also') also
    WHERE journal.seq = 0 AND json_extract(also.value, '$.route') IS NOT NULL;
";

/// Adds what tables of this version may lack.
fn complete(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.execute_batch(LEASES_OF)?;
    if has_routes(connection)? {
        return Ok(());
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Another process may have made it meanwhile.
    if !has_routes(&transaction)? {
        transaction.execute_batch(ROUTES)?;
    }
    transaction.commit()
}

fn has_routes(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'route'")?
        .exists([])
}

/// The condition for the rollouts of the target `?1`, by whichever of its identities.
fn of_target(connection: &Connection, target: &str) -> Result<&'static str, rusqlite::Error> {
    let is_one_of_several = has_routes(connection)?
        && connection
            .prepare_cached("SELECT 1 FROM route WHERE target = ?1")?
            .exists([target])?;
    Ok(match is_one_of_several {
        true => "(r.target = ?1 OR r.rollout IN (SELECT rollout FROM route WHERE target = ?1))",
        // Rows come out of the index in their order.
        false => "r.target = ?1",
    })
}

type Work = Box<dyn FnOnce(&Transaction<'_>) -> Reply + Send>;
type Reply = Box<dyn FnOnce(Result<(), rusqlite::Error>) + Send>;

struct Request {
    work: Work,
    /// Answers the request with an error instead.
    refuse: Box<dyn FnOnce(&str) + Send>,
    /// `None` for a request that only reads.
    durability: Option<Durability>,
}

/// A store in one SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    reads: mpsc::Sender<Request>,
    writes: mpsc::Sender<Request>,
    place: PathBuf,
    /// The folder of the copy that is read in place of the file, if there is one.
    _copy: Option<Arc<tempfile::TempDir>>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// Makes the tables. If another process does the same, SQLite does not wait by
/// itself, because each would wait for the other while both change to WAL.
fn set_up(connection: &Connection, patience: Duration) -> Result<(), rusqlite::Error> {
    // Otherwise each attempt could wait as long as all of them may.
    connection.busy_timeout(Duration::ZERO)?;
    let once = || {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        bring_up_to_date(connection)?;
        complete(connection)
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

fn version(connection: &Connection) -> Result<u32, rusqlite::Error> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Makes the tables, or updates those of an older engine, in one transaction.
fn bring_up_to_date(connection: &Connection) -> Result<(), rusqlite::Error> {
    let newer = |found| {
        Err(failure(&format!(
            "its tables have version {found}, and this engine knows version {SCHEMA}; use the newer engine that wrote it"
        )))
    };
    match version(connection)? {
        SCHEMA => return Ok(()),
        found if found > SCHEMA => return newer(found),
        _ => {}
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Another process may have made them meanwhile.
    if version(&transaction)? == 0 {
        transaction.execute_batch(TABLES)?;
        transaction.execute_batch(INDEX)?;
        let ids: Vec<String> = transaction
            .prepare("SELECT rollout FROM rollout")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for id in ids {
            // A journal that cannot be read keeps the row of its first entry.
            if let Ok(Some(summary)) = made_again(&transaction, &id) {
                keep_row(&transaction, &summary)?;
            }
        }
        transaction.pragma_update(None, "user_version", SCHEMA)?;
    }
    transaction.commit()
}

/// A connection that writes. Makes the tables if needed.
fn writer(place: &Path, patience: Duration) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(place)?;
    set_up(&connection, patience)?;
    connection.busy_timeout(patience)?;
    Ok(connection)
}

/// A connection that only reads an existing store.
fn reader(place: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_with_flags(place, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(LOOK_TIMEOUT)?;
    connection
        .prepare("SELECT seq FROM journal LIMIT 1")?
        .exists([])?;
    Ok(connection)
}

/// Refuses a file that might keep a reader waiting, such as a pipe.
fn regular(place: &Path) -> Result<(), StoreError> {
    match std::fs::metadata(place) {
        Ok(meta) if !meta.is_file() => Err(StoreError::Database {
            place: place.display().to_string(),
            message: "it is not a regular file".to_owned(),
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

/// An empty store.
fn empty() -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open_in_memory()?;
    bring_up_to_date(&connection)?;
    Ok(connection)
}

/// A connection to read a store. Tables of an older engine are updated, in a copy
/// if the file cannot be written to.
fn looker(place: &Path) -> Result<(Connection, Option<tempfile::TempDir>), StoreError> {
    let failed = |e: &rusqlite::Error| database(place, e);
    let first = match reader(place) {
        Ok(connection) => match version(&connection).map_err(|e| failed(&e))? {
            found if found >= SCHEMA => {
                bring_up_to_date(&connection).map_err(|e| failed(&e))?;
                return Ok((connection, None));
            }
            _ => match writer(place, LOOK_TIMEOUT).and_then(|_| reader(place)) {
                Ok(connection) => return Ok((connection, None)),
                Err(error) => error,
            },
        },
        // The process that made the file was interrupted before its tables.
        Err(_) if has_no_tables(place) => return Ok((empty().map_err(|e| failed(&e))?, None)),
        Err(error) => error,
    };
    let Ok((folder, copy)) = copied(place) else {
        return Err(failed(&first));
    };
    match writer(&copy, LOOK_TIMEOUT) {
        Ok(connection) => Ok((connection, Some(folder))),
        Err(_) => Err(failed(&first)),
    }
}

/// A copy of the store's file and log in a folder that can be written to. SQLite
/// needs that even to read, unless another process has the store open.
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

/// A thread that serves requests on a connection. It opens the connection with
/// the first request.
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

    /// The same, with a limit for how long to wait for another process's lock, now
    /// and at each write.
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

    /// Opens an existing store to read it, which needs neither a lock nor the
    /// permission to write. A write is attempted too, if it can be done at once.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn look(place: &Path) -> Result<Self, StoreError> {
        regular(place)?;
        let (connection, copy) = looker(place)?;
        let writes = place.to_owned();
        Ok(Self {
            writes: thread(
                place,
                "store",
                Box::new(move || writer(&writes, LOOK_TIMEOUT)),
            )?,
            reads: thread(place, "store-reader", Box::new(move || Ok(connection)))?,
            place: place.to_owned(),
            _copy: copy.map(Arc::new),
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
        // Either the work or the refusal uses it.
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

/// The failure of one request. It does not end the transaction: the request has
/// written nothing, or SQLite has undone the statement that failed.
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

/// Who occupies a target: the rollout with its lease, unless that has ended and
/// its process died before it gave the lease back.
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
        .prepare_cached(
            "SELECT rollout, epoch, owner, keeper, due, expires FROM lease WHERE target = ?1",
        )?
        .query_row([target], |row| busy(row, 0))
        .optional()
}

/// A lease from six columns.
fn busy(row: &rusqlite::Row<'_>, first: usize) -> Result<Busy, rusqlite::Error> {
    let owner = |column: usize| -> Result<Option<Owner>, rusqlite::Error> {
        let json: Option<String> = row.get(column)?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    };
    Ok(Busy {
        rollout: row.get(first)?,
        epoch: row.get(first + 1)?,
        owner: owner(first + 2)?,
        keeper: owner(first + 3)?,
        due: row.get::<_, Option<i64>>(first + 4)?.map(unsigned),
        expires: unsigned(row.get(first + 5)?),
    })
}

/// Refuses a lease that another process has claimed since.
fn claimed(transaction: &Transaction<'_>, lease: &Lease) -> Result<Busy, Failure> {
    match leased(transaction, &lease.target)? {
        Some(busy) if busy.rollout == lease.rollout && busy.epoch == lease.epoch => Ok(busy),
        _ => Err(fenced(lease)),
    }
}

/// The same, and refuses a lease that was given up.
fn owned(transaction: &Transaction<'_>, lease: &Lease) -> Result<(), Failure> {
    match claimed(transaction, lease)?.owner {
        Some(_) => Ok(()),
        None => Err(fenced(lease)),
    }
}

fn fenced(lease: &Lease) -> Failure {
    Failure::Store(StoreError::Fenced {
        rollout: lease.rollout.clone(),
    })
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

const ENTRIES: &str =
    "SELECT seq, at, epoch, event FROM journal WHERE rollout = ?1 AND seq >= ?2 ORDER BY seq";

fn entries(connection: &Connection, rollout: &str, from: u32) -> Result<Vec<Entry>, Failure> {
    connection
        .prepare_cached(ENTRIES)?
        .query_map(params![rollout, from], |row| entry(rollout, row))?
        .map(|row| row?)
        .collect()
}

fn header(connection: &Connection, rollout: &str) -> Result<Option<Header>, Failure> {
    let first = connection
        .prepare_cached("SELECT seq, at, epoch, event FROM journal WHERE rollout = ?1 AND seq = 0")?
        .query_row([rollout], |row| entry(rollout, row))
        .optional()?
        .transpose()?;
    Ok(first.and_then(|entry| match entry.event {
        Event::Started(header) => Some(*header),
        _ => None,
    }))
}

/// The row of a rollout, made from its journal. If it has ended, the first and the
/// last entry suffice.
fn made_again(connection: &Connection, rollout: &str) -> Result<Option<Summary>, Failure> {
    let Some(header) = header(connection, rollout)? else {
        return Ok(None);
    };
    let last = connection
        .prepare_cached(
            "SELECT seq, at, epoch, event FROM journal WHERE rollout = ?1 ORDER BY seq DESC LIMIT 1",
        )?
        .query_row([rollout], |row| entry(rollout, row))??;
    let mut status = Status::new(&header);
    if matches!(last.event, Event::Ended { .. }) {
        status.apply(&last);
    } else {
        for entry in entries(connection, rollout, 0)? {
            status.apply(&entry);
        }
    }
    Ok(Some(Summary::of(&header, &status)))
}

/// Updates the row of a rollout. The columns that never change came with its first
/// entry, but for its title: not every kind of rollout has a name in it.
fn keep_row(connection: &Connection, row: &Summary) -> Result<(), rusqlite::Error> {
    let text = |value: Result<String, serde_json::Error>| {
        value.map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
    };
    connection
        .prepare_cached(
            "UPDATE rollout SET updated = ?2, entries = ?3, phase = ?4, note = ?5, title = ?6 WHERE rollout = ?1",
        )?
        .execute(params![
            row.rollout,
            signed(row.updated),
            row.entries,
            text(serde_json::to_string(&row.phase))?,
            row.note,
            row.title
        ])?;
    if let Some(end) = &row.end {
        connection
            .prepare_cached("UPDATE rollout SET ended = ?2 WHERE rollout = ?1")?
            .execute(params![row.rollout, text(serde_json::to_string(end))?])?;
    }
    Ok(())
}

/// The columns of a row, and how many entries the journal has.
const ROW: &str =
    "r.rollout, r.target, r.title, r.plugin, r.created, r.updated, r.entries, r.phase,
    r.note, r.ended, (SELECT max(seq) + 1 FROM journal WHERE journal.rollout = r.rollout)";
/// Number of these columns.
const ROW_COLUMNS: usize = 11;

fn row(found: &rusqlite::Row<'_>) -> Result<(Summary, u32), rusqlite::Error> {
    let phase: String = found.get(7)?;
    let end: Option<String> = found.get(9)?;
    let known_phase = serde_json::from_str(&phase).ok();
    let known_end: Option<Option<End>> = match &end {
        Some(text) => serde_json::from_str(text).ok().map(Some),
        None => Some(None),
    };
    let mut summary = Summary {
        rollout: found.get(0)?,
        target: found.get(1)?,
        title: found.get(2)?,
        plugin: found.get(3)?,
        created: unsigned(found.get(4)?),
        updated: unsigned(found.get(5)?),
        entries: found.get(6)?,
        phase: known_phase.unwrap_or(Phase::Paused),
        note: found.get(8)?,
        end: known_end.unwrap_or(Some(End::Refused)),
    };
    // One row of another version of engine must not hide all others.
    if known_phase.is_none() || known_end.is_none() {
        summary.note = format!(
            "this engine does not know how it stands ({}): another version wrote that",
            end.unwrap_or(phase)
        );
        // Not what its journal adds up to: it is made again if the journal can be read.
        summary.entries = u32::MAX;
    }
    Ok((summary, found.get::<_, Option<u32>>(10)?.unwrap_or(0)))
}

/// The row as the journal says: an older engine that shares the file writes
/// entries without rows.
fn current(connection: &Connection, (row, entries): (Summary, u32)) -> Result<Summary, Failure> {
    if row.entries == entries {
        return Ok(row);
    }
    match made_again(connection, &row.rollout) {
        // A journal that cannot be read keeps its row.
        Ok(None) | Err(Failure::Store(_)) => Ok(row),
        Ok(Some(made)) => Ok(made),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Journals for SqliteStore {
    async fn claim(&self, claim: Claim<'_>) -> Result<Lease, StoreError> {
        let (target, rollout) = (claim.target.to_owned(), claim.rollout.to_owned());
        let also = claim.also.to_vec();
        let owner = claim.owner.clone();
        let (now, ttl_ms, dead_epoch) = (claim.now, claim.ttl_ms, claim.dead_epoch);
        // A power cut ends every owner too, so a lease need not survive it.
        self.within(Durability::Process, move |transaction| {
            let last_epoch: Option<u32> = transaction.query_row(
                "SELECT max(epoch) FROM journal WHERE rollout = ?1",
                [&rollout],
                |row| row.get(0),
            )?;
            let claim = Claim {
                target: &target,
                also: &also,
                rollout: &rollout,
                owner: &owner,
                now,
                ttl_ms,
                dead_epoch,
            };
            let (mut epoch, mut abandoned) = (0, vec![]);
            for identity in claim.identities() {
                let occupant = occupant(transaction, identity)?;
                let began = match &occupant {
                    Some(busy) => has_journal(transaction, &busy.rollout)?,
                    None => false,
                };
                abandoned.extend(occupant.iter().map(|busy| busy.rollout.clone()));
                let known = Known {
                    occupant,
                    began,
                    last_epoch,
                };
                let granted = decide(&claim, known);
                epoch = epoch.max(granted.map_err(|b| Failure::Store(StoreError::Busy(b)))?);
            }
            // Who loses one identity of a target loses all: a lease is whole or gone.
            for gone in abandoned {
                transaction.execute("DELETE FROM lease WHERE rollout = ?1", [gone])?;
            }
            for identity in claim.identities() {
                transaction.execute(
                    "INSERT OR REPLACE INTO lease (target, rollout, epoch, owner, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![identity, rollout, epoch, json::<Owner>(&owner)?, signed(now + ttl_ms)],
                )?;
            }
            Ok(Lease { target, rollout, epoch })
        })
        .await
    }

    async fn renew(&self, lease: &Lease, expires: Millis) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.within(Durability::Process, move |transaction| {
            owned(transaction, &lease)?;
            transaction.execute(
                "UPDATE lease SET expires = ?3 WHERE target = ?1 OR rollout = ?2",
                params![lease.target, lease.rollout, signed(expires)],
            )?;
            Ok(())
        })
        .await
    }

    async fn park(&self, lease: &Lease, until: Option<Millis>) -> Result<(), StoreError> {
        let lease = lease.clone();
        self.within(Durability::Process, move |transaction| {
            claimed(transaction, &lease)?;
            let expires = until.map(|until| signed(until.saturating_add(KEPT_AFTER_WAKE_MS)));
            transaction.execute(
                "UPDATE lease SET owner = NULL, due = ?2, expires = coalesce(?3, expires),
                 keeper = CASE WHEN ?2 IS NULL THEN NULL ELSE coalesce(owner, keeper) END
                 WHERE target = ?1 OR rollout = ?4",
                params![lease.target, until.map(signed), expires, lease.rollout],
            )?;
            Ok(())
        })
        .await
    }

    async fn release(&self, lease: &Lease) -> Result<(), StoreError> {
        let lease = lease.clone();
        // A power cut ends every owner too, so a lease need not survive it.
        self.within(Durability::Process, move |transaction| {
            claimed(transaction, &lease)?;
            transaction.execute(
                "DELETE FROM lease WHERE target = ?1 OR rollout = ?2",
                [&lease.target, &lease.rollout],
            )?;
            Ok(())
        })
        .await
    }

    async fn append(
        &self,
        lease: &Lease,
        entries: Vec<Entry>,
        summary: &Summary,
        durability: Durability,
    ) -> Result<(), StoreError> {
        check_sizes(&lease.rollout, &entries)?;
        let (lease, summary) = (lease.clone(), summary.clone());
        self.within(durability, move |transaction| {
            owned(transaction, &lease)?;
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
            Ok(keep_row(transaction, &summary)?)
        })
        .await
    }

    async fn load(&self, rollout: &str, from: u32) -> Result<Vec<Entry>, StoreError> {
        let rollout = rollout.to_owned();
        self.read(move |transaction| entries(transaction, &rollout, from))
            .await
    }

    async fn header(&self, rollout: &str) -> Result<Option<Header>, StoreError> {
        let rollout = rollout.to_owned();
        self.read(move |transaction| header(transaction, &rollout))
            .await
    }

    /// The file belongs to one machine, whose processes can be looked up.
    fn is_dead(&self, owner: &Owner) -> bool {
        process::is_dead(owner)
    }
}

#[async_trait]
impl Schedule for SqliteStore {
    async fn occupant(&self, target: &str) -> Result<Option<Busy>, StoreError> {
        let target = target.to_owned();
        self.read(move |transaction| Ok(occupant(transaction, &target)?))
            .await
    }

    async fn open(&self, on: Option<&str>) -> Result<Vec<Open>, StoreError> {
        let on = on.map(ToOwned::to_owned);
        self.read(move |transaction| {
            // A rollout has the lease on its target until it ends.
            let found: Vec<((Summary, u32), Busy)> = transaction
                .prepare_cached(&format!(
                    "SELECT {ROW}, l.rollout, l.epoch, l.owner, l.keeper, l.due, l.expires
                     FROM lease l CROSS JOIN rollout r ON r.rollout = l.rollout
                     WHERE r.target = l.target AND r.ended IS NULL AND (?1 IS NULL
                         OR l.rollout IN (SELECT rollout FROM lease WHERE target = ?1))
                     ORDER BY r.created DESC, r.rollout DESC"
                ))?
                .query_map([on], |found| Ok((row(found)?, busy(found, ROW_COLUMNS)?)))?
                .collect::<Result<_, _>>()?;
            let mut open = vec![];
            for (row, busy) in found {
                let summary = current(transaction, row)?;
                if summary.end.is_none() {
                    open.push(Open { summary, busy });
                }
            }
            Ok(open)
        })
        .await
    }

    async fn due(&self, now: Millis, limit: u32) -> Result<Vec<(String, Millis)>, StoreError> {
        self.read(move |transaction| {
            let due = transaction
                .prepare_cached(
                    "SELECT l.rollout, l.expires FROM lease l JOIN rollout r ON r.rollout = l.rollout
                     WHERE CASE WHEN l.owner IS NULL AND l.keeper IS NULL THEN NULL ELSE l.expires END <= ?1
                     AND r.target = l.target AND r.ended IS NULL ORDER BY l.expires LIMIT ?2",
                )?
                .query_map(params![signed(now), limit], |row| {
                    Ok((row.get(0)?, unsigned(row.get(1)?)))
                })?
                .collect::<Result<_, _>>()?;
            Ok(due)
        })
        .await
    }

    async fn history(&self, page: &Page) -> Result<Vec<Summary>, StoreError> {
        let page = page.clone();
        self.read(move |transaction| {
            // One statement for each kind of page, so that each uses its index.
            let mut which = vec!["?1 IS ?1", "?2 IS ?2", "?3 IS ?3", "?5 IS ?5"];
            if let Some(target) = &page.on {
                which.push(of_target(transaction, target)?);
            }
            if page.strategies {
                which.push("r.plugin IS NOT NULL");
            }
            // No LIKE: its letters for any others, and its indifference to capitals.
            if page.part.is_some() {
                which.push(
                    "(substr(r.rollout, 1, length(?5)) = ?5 OR substr(r.rollout, -length(?5)) = ?5
                         OR instr(r.rollout, '-' || ?5) > 0)",
                );
            }
            if page.after.is_some() {
                which.push("(r.created, r.rollout) < (?2, ?3)");
            }
            let (created, rollout) = match page.after {
                Some(after) => (Some(signed(after.created)), Some(after.rollout)),
                None => (None, None),
            };
            let which = which.join(" AND ");
            let found: Vec<(Summary, u32)> = transaction
                .prepare_cached(&format!(
                    "SELECT {ROW} FROM rollout r WHERE {which}
                     ORDER BY r.created DESC, r.rollout DESC LIMIT ?4"
                ))?
                .query_map(
                    params![page.on, created, rollout, page.limit, page.part],
                    row,
                )?
                .collect::<Result<_, _>>()?;
            found
                .into_iter()
                .map(|row| current(transaction, row))
                .collect()
        })
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
                // What another version or a damage has made unreadable is obeyed by nobody,
                // and must not keep others from being heard.
                .filter_map(|row| match row {
                    Ok((number, rollout, text)) => {
                        let (text, rollout): (String, String) = (text, rollout);
                        let signal = serde_json::from_str(&text).ok()?;
                        Some(Ok((number, rollout, signal)))
                    }
                    Err(error) => Some(Err(error.into())),
                })
                .collect()
        })
        .await
    }
}

#[async_trait]
impl Blobs for SqliteStore {
    async fn put(&self, sha256: &str, bytes: &[u8], now: Millis) -> Result<(), StoreError> {
        let (sha256, bytes) = (sha256.to_owned(), bytes.to_vec());
        self.within(Durability::Power, move |transaction| {
            transaction.execute(
                "INSERT OR IGNORE INTO content (sha256, bytes) VALUES (?1, ?2)",
                params![sha256, bytes],
            )?;
            transaction.execute(
                "INSERT OR REPLACE INTO content_put (sha256, at) VALUES (?1, ?2)",
                params![sha256, signed(now)],
            )?;
            Ok(())
        })
        .await
    }

    async fn get(&self, sha256: &str) -> Result<Option<Vec<u8>>, StoreError> {
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

    async fn sweep(&self, now: Millis) -> Result<(), StoreError> {
        let before = signed(now.saturating_sub(BLOB_GRACE_MS));
        self.within(Durability::Process, move |transaction| {
            transaction.execute(
                "DELETE FROM content WHERE sha256 NOT IN
                     (SELECT plugin FROM rollout WHERE ended IS NULL AND plugin IS NOT NULL)
                 AND sha256 NOT IN (SELECT sha256 FROM content_put WHERE at >= ?1)",
                [before],
            )?;
            transaction.execute(
                "DELETE FROM content_put WHERE sha256 NOT IN (SELECT sha256 FROM content)",
                [],
            )?;
            Ok(())
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
}
