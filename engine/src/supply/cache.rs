//! Plugins that were fetched before, by digest, in a folder of our own.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::trust::Proof;
use super::{BYTES_MAX, SupplyError};
use crate::model::sha256_hex;

/// A folder of `DIGEST.wasm` files, and beside each what proves who signed it.
#[derive(Debug, Clone)]
pub struct Cache(PathBuf);

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

    /// The bytes of that digest (hex) with the proof of that manifest (hex).
    /// Whatever is not as it was put is as good as not there.
    #[must_use]
    pub fn get(&self, sha256: &str, manifest: &str) -> Option<(Vec<u8>, Proof)> {
        let proof = read(&self.proof(manifest)).ok()?;
        let proof = serde_json::from_slice(&proof).ok()?;
        Some((self.bytes(sha256)?, proof))
    }

    /// The bytes of that digest (hex), whoever has signed them.
    #[must_use]
    pub fn bytes(&self, sha256: &str) -> Option<Vec<u8>> {
        let bytes = read(&self.wasm(sha256)).ok()?;
        (sha256_hex(&bytes) == sha256).then_some(bytes)
    }

    /// The digest of what lies in the place of that one, if it is another one.
    #[must_use]
    pub fn damaged(&self, sha256: &str) -> Option<String> {
        let found = sha256_hex(&read(&self.wasm(sha256)).ok()?);
        (found != sha256).then_some(found)
    }

    /// Keeps bytes and their proof.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn put(&self, bytes: &[u8], manifest: &str, proof: &Proof) -> Result<(), SupplyError> {
        write(&self.wasm(&sha256_hex(bytes)), bytes)?;
        let proof = serde_json::to_vec(proof).unwrap_or_default();
        write(&self.proof(manifest), &proof)
    }
}

/// Reads a file, and not more of it than needed to see that it is too much: a
/// device has no end.
///
/// # Errors
/// It cannot be read.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    let file = std::fs::File::open(path)?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file whole or not at all.
///
/// # Errors
/// The folder cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), SupplyError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(folder).and_then(|()| {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // As any file that a person writes; a temporary one is private.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_was_put_is_not_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path().join("plugins"));
        let (manifest, proof) = ("ab".repeat(32), Proof::default());
        let sha256 = sha256_hex(b"bytes");
        assert!(cache.get(&sha256, &manifest).is_none());
        cache.put(b"bytes", &manifest, &proof).expect("written");
        assert_eq!(
            cache.get(&sha256, &manifest).map(|(bytes, _)| bytes),
            Some(b"bytes".to_vec())
        );
        assert!(cache.get(&sha256, &"cd".repeat(32)).is_none());
        std::fs::write(cache.wasm(&sha256), b"other").expect("written");
        assert!(cache.get(&sha256, &manifest).is_none());
    }
}
