//! Folders and files that only their owner can read, because journals contain
//! addresses, commands and texts of people.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use tempfile::NamedTempFile;

/// The entries of a state folder.
const OURS: [&str; 7] = [
    "engine.db",
    "engine.db-wal",
    "engine.db-shm",
    "embedded",
    "logs",
    "compiled",
    "plugins",
];
/// Most entries that are checked, because the folder may contain anything.
const ENTRIES_MAX: usize = 100_000;

/// Makes a folder that nobody else can read, or corrects its mode.
pub fn folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            tighten(path, 0o700).map(|_| ())
        }
        made => made,
    }
}

/// Makes the state folder, and the file of its store, for its owner alone. Corrects the
/// modes of what exists, and returns how many files and folders others could read. A
/// folder with other entries keeps its mode, because it may be for others too.
pub fn state_folder(path: &Path) -> io::Result<usize> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // SQLite gives its other files the mode of this one. If it cannot be made, the
    // store says what is wrong.
    let mut options = OpenOptions::new();
    let _ = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path.join(OURS[0]));
    // A closed folder protects its content, whose modes are corrected all the same.
    let closed = std::fs::metadata(path)?.permissions().mode() & 0o077 == 0;
    let mut mended = 0;
    let names = std::fs::read_dir(path)?.take(ENTRIES_MAX).flatten();
    let foreign = names.filter(|e| !OURS.iter().any(|ours| e.file_name() == *ours));
    if foreign.count() == 0 {
        mended += usize::from(tighten(path, 0o700)?);
    }
    let mut left = ENTRIES_MAX;
    for name in OURS {
        mended += mend(&path.join(name), &mut left)?;
    }
    Ok(if closed { 0 } else { mended })
}

/// Corrects the mode of a file, or of a folder and all in it.
fn mend(path: &Path, left: &mut usize) -> io::Result<usize> {
    let Ok(meta) = std::fs::symlink_metadata(path) else {
        return Ok(0);
    };
    if meta.is_file() {
        return tighten(path, 0o600).map(usize::from);
    }
    // A closed folder protects its content.
    if !meta.is_dir() || !tighten(path, 0o700)? {
        return Ok(0);
    }
    let mut mended = 1;
    for entry in std::fs::read_dir(path)?.flatten() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        mended += mend(&entry.path(), left)?;
    }
    Ok(mended)
}

/// Removes the permissions of others from a path; returns whether there were any.
fn tighten(path: &Path, most: u32) -> io::Result<bool> {
    let mode = match std::fs::metadata(path) {
        Ok(meta) => meta.permissions().mode() & 0o7777,
        // Another engine has removed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if mode & 0o077 == 0 {
        return Ok(false);
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode & most))?;
    Ok(true)
}

/// Writes a file for its owner alone, completely or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    beside(path, bytes)?.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// A file with these bytes, beside a path that it can take at once.
pub(super) fn beside(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    use std::io::Write as _;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    // A temporary file is readable for its owner alone.
    let mut file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        let meta = std::fs::metadata(path).expect("there");
        meta.permissions().mode() & 0o777
    }

    fn lax(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
    }

    #[test]
    fn a_new_folder_is_private_and_an_old_one_is_mended_once() {
        let parent = tempfile::tempdir().expect("a folder");
        let state = parent.path().join("a/state");
        assert_eq!(state_folder(&state).expect("made"), 0);
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join("engine.db")), 0o600);
        let logs = state.join("logs");
        std::fs::create_dir(&logs).expect("made");
        std::fs::write(logs.join("x.log"), "x").expect("written");
        std::fs::write(state.join("engine.db-wal"), "x").expect("written");
        for (path, wide) in [
            ("", 0o755),
            ("logs", 0o775),
            ("logs/x.log", 0o644),
            ("engine.db-wal", 0o666),
        ] {
            lax(&state.join(path), wide);
        }
        assert_eq!(state_folder(&state).expect("mended"), 4);
        assert_eq!((mode(&state), mode(&logs)), (0o700, 0o700));
        assert_eq!(mode(&logs.join("x.log")), 0o600);
        assert_eq!(mode(&state.join("engine.db-wal")), 0o600);
        assert_eq!(state_folder(&state).expect("as it is"), 0);
    }

    #[test]
    fn what_is_not_ours_keeps_its_mode() {
        let parent = tempfile::tempdir().expect("a folder");
        let (state, elsewhere) = (
            parent.path().join("project"),
            parent.path().join("elsewhere"),
        );
        std::fs::create_dir(&state).expect("made");
        std::fs::create_dir(&elsewhere).expect("made");
        std::fs::write(state.join("main.rs"), "x").expect("written");
        std::os::unix::fs::symlink(&elsewhere, state.join("logs")).expect("linked");
        for (path, wide) in [
            (&state, 0o755),
            (&elsewhere, 0o755),
            (&state.join("main.rs"), 0o644),
        ] {
            lax(path, wide);
        }
        assert_eq!(state_folder(&state).expect("used"), 0);
        assert_eq!((mode(&state), mode(&elsewhere)), (0o755, 0o755));
        assert_eq!(mode(&state.join("main.rs")), 0o644);
        assert_eq!(mode(&state.join("engine.db")), 0o600);
    }
}
