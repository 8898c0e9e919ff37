//! The key to a balancer's admin API: a random token in a file that only its owner
//! can read, found by the address of the API.
//!
//! Whoever can change the release of an arm can start a program as the balancer's
//! owner, and every user of the machine can connect to loopback. The file is not
//! in the state folder: other engines of the same owner may use another one, and
//! it may be full or gone when traffic must be taken back.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;

/// Random bytes of a token.
const RANDOM_BYTES: usize = 32;
/// A longer file does not hold a key.
const FILE_BYTES_MAX: u64 = 256;

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key(String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    fn random() -> Result<Self, std::io::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| std::io::Error::other("the system has no random numbers"))?;
        Ok(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    /// The value of the `authorization` header.
    pub(super) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether the `authorization` header has this key; takes as long for a wrong one.
    pub(super) fn opens(&self, header: &[u8]) -> bool {
        self.header().as_bytes().ct_eq(header).into()
    }
}

/// A key whose file is written. Dropping it removes the file.
#[derive(Debug)]
pub(super) struct Laid {
    pub(super) key: Key,
    admin: SocketAddr,
    folders: Vec<PathBuf>,
}

impl Laid {
    /// Makes a new key for the admin API at `admin` and writes its file.
    pub(super) fn new(admin: SocketAddr) -> Result<Self, std::io::Error> {
        Self::within(admin, folders())
    }

    fn within(admin: SocketAddr, folders: Vec<PathBuf>) -> Result<Self, std::io::Error> {
        let laid = Self {
            key: Key::random()?,
            admin,
            folders,
        };
        laid.lay()?;
        Ok(laid)
    }

    /// Writes the file unless it is there. Somebody may have removed it, and without
    /// it nobody can take traffic back.
    pub(super) fn lay(&self) -> Result<(), std::io::Error> {
        let mut failed = None;
        for folder in &self.folders {
            let place = place(folder, self.admin);
            if read(&place).as_ref() == Some(&self.key) {
                return Ok(());
            }
            match make(folder).and_then(|()| write(&place, &self.key)) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let error =
                        std::io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
                    failed.get_or_insert(error);
                }
            }
        }
        Err(failed.unwrap_or_else(|| std::io::ErrorKind::NotFound.into()))
    }
}

impl Drop for Laid {
    fn drop(&mut self) {
        for folder in &self.folders {
            let place = place(folder, self.admin);
            if read(&place).as_ref() == Some(&self.key) {
                let _ = std::fs::remove_file(place);
            }
        }
    }
}

/// The keys that this user has for an admin API: usually one.
pub(super) fn keys(admin: SocketAddr) -> Vec<Key> {
    let mut keys = vec![];
    for folder in folders() {
        if is_private(&folder)
            && let Some(key) = read(&place(&folder, admin))
            && !keys.contains(&key)
        {
            keys.push(key);
        }
    }
    keys
}

/// The files that may hold the key of an admin API, for a message.
pub(super) fn places(admin: SocketAddr) -> String {
    let places = folders()
        .into_iter()
        .map(|folder| place(&folder, admin).display().to_string());
    places.collect::<Vec<_>>().join(" or ")
}

/// The folders of this user, best first. They do not depend on the environment,
/// so a process that cron starts has the same.
fn folders() -> Vec<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let mut folders = vec![];
    // The system makes it, and removes it with the user's last session.
    let runtime = PathBuf::from(format!("/run/user/{user}"));
    if is_private(&runtime) {
        folders.push(runtime.join("engine"));
    }
    for parent in [PathBuf::from("/tmp"), std::env::temp_dir()] {
        let folder = parent.join(format!("engine-{user}"));
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

fn place(folder: &Path, admin: SocketAddr) -> PathBuf {
    let name: String = admin
        .to_string()
        .chars()
        .map(|c| {
            if c.is_ascii_hexdigit() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    folder.join(format!("{name}.key"))
}

/// Whether it is a folder of this user that nobody else can read: not a link, and
/// not one that somebody else has made first.
fn is_private(folder: &Path) -> bool {
    std::fs::symlink_metadata(folder).is_ok_and(|meta| {
        meta.is_dir()
            && meta.uid() == rustix::process::getuid().as_raw()
            && meta.mode() & 0o077 == 0
    })
}

fn make(folder: &Path) -> Result<(), std::io::Error> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ if is_private(folder) => Ok(()),
        _ => Err(std::io::Error::new(
            std::io::ErrorKind::PermissionDenied,
            "it is not a folder that only you may read (mode 0700)",
        )),
    }
}

/// Writes a new file and renames it over the old one.
fn write(place: &Path, key: &Key) -> Result<(), std::io::Error> {
    let fresh = place.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(key.0.as_bytes())?;
    std::fs::rename(&fresh, place)
}

fn read(place: &Path) -> Option<Key> {
    // Reading a pipe might never end.
    if !std::fs::symlink_metadata(place).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    let file = std::fs::File::open(place).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    let fits = text.len() == 2 * RANDOM_BYTES && text.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then_some(Key(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn admin() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 7900))
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("there").mode() & 0o777
    }

    #[test]
    fn a_key_is_laid_out_for_its_owner_alone_and_taken_away() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("keys");
        let laid = Laid::within(admin(), vec![folder.clone()]).expect("laid");
        let place = place(&folder, admin());
        assert_eq!((mode(&folder), mode(&place)), (0o700, 0o600));
        assert_eq!(read(&place), Some(laid.key.clone()));
        std::fs::remove_dir_all(&folder).expect("tidied up");
        laid.lay().expect("laid again");
        assert_eq!(read(&place), Some(laid.key.clone()));
        drop(laid);
        assert!(!place.exists());
    }

    #[test]
    fn a_newer_key_is_left_alone() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("keys");
        let folders = vec![folder.clone()];
        let old = Laid::within(admin(), folders.clone()).expect("laid");
        let new = Laid::within(admin(), folders).expect("laid");
        assert_ne!(old.key, new.key);
        drop(old);
        assert_eq!(read(&place(&folder, admin())), Some(new.key.clone()));
    }

    #[test]
    fn a_folder_that_others_can_reach_is_not_used() {
        let parent = tempfile::tempdir().expect("a folder");
        let (open, link) = (parent.path().join("open"), parent.path().join("link"));
        std::fs::create_dir(&open).expect("made");
        let lax = std::fs::Permissions::from_mode(0o777);
        std::fs::set_permissions(&open, lax).expect("mine");
        let closed = parent.path().join("closed");
        DirBuilder::new().mode(0o700).create(&closed).expect("made");
        std::os::unix::fs::symlink(&closed, &link).expect("made");
        for folder in [open, link] {
            let refused = Laid::within(admin(), vec![folder.clone()]).expect_err("not private");
            assert!(refused.to_string().contains("only you may read"), "{refused}");
            let second = parent.path().join("second");
            let laid = Laid::within(admin(), vec![folder, second.clone()]).expect("the next");
            assert_eq!(read(&place(&second, admin())), Some(laid.key.clone()));
        }
    }

    #[test]
    fn only_the_whole_key_opens() {
        let key = Key::random().expect("random");
        let right = key.header();
        assert!(key.opens(right.as_bytes()));
        for wrong in ["", "Bearer ", &right[..right.len() - 1], &right[7..]] {
            assert!(!key.opens(wrong.as_bytes()), "{wrong}");
        }
        assert!(!key.opens(format!("{right} ").as_bytes()));
        assert_eq!(format!("{key:?}"), "Key(…)");
    }
}
