//! Plugins that were fetched before, by digest, in a folder.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::trust::Proof;
use super::{BYTES_MAX, SupplyError, files};
use crate::model::sha256_hex;

/// A folder of `DIGEST.wasm` files, each with the proof of its signatures beside it.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

/// What has changed since it was put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// The bytes.
    Bytes {
        /// Their digest, hex.
        found: String,
    },
    /// The proof of who signed them.
    Proof,
}

impl Cache {
    /// A cache in that folder, which is made when it is first needed.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0
    }

    fn wasm(&self, sha256: &str) -> PathBuf {
        self.0.join(format!("{sha256}.wasm"))
    }

    fn proof(&self, manifest: &str) -> PathBuf {
        self.0.join(format!("{manifest}.proof.json"))
    }

    /// The bytes of that digest (hex) with the proof of that manifest (hex); `None`
    /// if there are no such bytes.
    ///
    /// # Errors
    /// They have changed since they were put there.
    pub fn get(&self, sha256: &str, manifest: &str) -> Result<Option<(Vec<u8>, Proof)>, Damage> {
        let Ok(bytes) = read(&self.wasm(sha256)) else {
            return Ok(None);
        };
        let found = sha256_hex(&bytes);
        if found != sha256 {
            return Err(Damage::Bytes { found });
        }
        let proof = read(&self.proof(manifest)).map_err(|_| Damage::Proof)?;
        let proof = serde_json::from_slice(&proof).map_err(|_| Damage::Proof)?;
        Ok(Some((bytes, proof)))
    }

    /// The bytes of that digest (hex), without their proof.
    #[must_use]
    pub fn bytes(&self, sha256: &str) -> Option<Vec<u8>> {
        let bytes = read(&self.wasm(sha256)).ok()?;
        (sha256_hex(&bytes) == sha256).then_some(bytes)
    }

    /// Keeps bytes and their proof.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn put(&self, bytes: &[u8], manifest: &str, proof: &Proof) -> Result<(), SupplyError> {
        write(&self.wasm(&sha256_hex(bytes)), bytes)?;
        let proof = serde_json::to_vec(proof).unwrap_or_default();
        write(&self.proof(manifest), &proof)
    }
}

/// Reads a file, but no more of it than shows that it is too large; whoever takes
/// the bytes refuses them.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    let file = files::open(path)?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file whole or not at all.
///
/// # Errors
/// The folder cannot be written to.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), SupplyError> {
    let folder = folder_of(path);
    let written = std::fs::create_dir_all(folder).and_then(|()| {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // A temporary file is private, and this one is to be like any other.
            let mode = std::fs::Permissions::from_mode(0o644);
            file.as_file().set_permissions(mode)?;
        }
        file.persist(path).map_err(|e| e.error)?;
        Ok(())
    });
    written.map_err(|e| SupplyError::Io {
        what: format!("write {}", path.display()),
        message: e.to_string(),
    })
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_was_put_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path().join("plugins"));
        let (manifest, proof) = ("ab".repeat(32), Proof::default());
        let sha256 = sha256_hex(b"bytes");
        assert_eq!(cache.get(&sha256, &manifest), Ok(None));
        cache.put(b"bytes", &manifest, &proof).expect("written");
        assert_eq!(
            cache.get(&sha256, &manifest),
            Ok(Some((b"bytes".to_vec(), proof)))
        );
        assert_eq!(cache.get(&sha256, &"cd".repeat(32)), Err(Damage::Proof));
        std::fs::write(cache.wasm(&sha256), b"other").expect("written");
        let found = sha256_hex(b"other");
        assert_eq!(cache.get(&sha256, &manifest), Err(Damage::Bytes { found }));
    }
}
