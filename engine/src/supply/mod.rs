//! Where plugins come from: names in `plugins.toml`, pinned in `plugins.lock`,
//! fetched from files and registries, and checked before they are compiled.
//!
//! [`lock`] and [`trust`] are pure; [`cache`] keeps what was fetched; [`policy`]
//! reads what this host allows; [`registry`] is the client of OCI registries;
//! [`Supply`] joins them.

pub mod cache;
pub mod files;
pub mod lock;
pub mod policy;
pub mod registry;
pub mod signature;
pub mod trust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Clock;
use crate::model::network::Network;
use crate::model::problem::Problems;
use crate::model::sha256_hex;
use crate::spec::plugins::{Plugins, Wanted, lexically};
pub use cache::Cache;
use cache::Damage;
pub use files::TEXT_BYTES_MAX;
use lock::{Lock, Locked};
use registry::error::RegistryError;
use registry::reference::Reference;
use registry::{Pulled, Registry};
use signature::PublicKey;
use trust::{Proof, Signed};

/// Largest plugin that is fetched, bytes: the limit of what the host loads.
pub const BYTES_MAX: u64 = 64 << 20;

/// Why there is no plugin to run.
#[derive(Debug, thiserror::Error)]
pub enum SupplyError {
    /// `plugins.toml` is wrong.
    #[error("{file} has problems:\n{}", problems.in_file(file))]
    Plugins {
        /// The file.
        file: String,
        /// What is wrong.
        problems: Problems,
    },
    /// `plugins.lock` is wrong.
    #[error(
        "{file} cannot be read: {message}\n\nhint: take it from version control, or remove it and run `engine plugin lock`"
    )]
    Lock {
        /// The file.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// The name is not in `plugins.toml`.
    #[error("{file} has no plugin {name:?}; it has {known}")]
    Unknown {
        /// `plugins.toml`.
        file: String,
        /// The name.
        name: String,
        /// The names that it has.
        known: String,
    },
    /// A pin is missing, and `--locked` forbids to add one.
    #[error(
        "{name} is not pinned as {source_now}, and --locked does not add a pin (it is the default where CI=true)\n\nhint: `engine plugin lock` pins it; commit plugins.lock"
    )]
    Unpinned {
        /// The plugin.
        name: String,
        /// Its source now.
        source_now: String,
    },
    /// A file without a name, where only pinned plugins may run.
    #[error(
        "{path} has no name in {file}, so nothing pins it, and --locked runs only what is pinned (it is the default where CI=true)\n\nhint: name it there, and run `engine plugin lock`"
    )]
    Unnamed {
        /// `plugins.toml`.
        file: String,
        /// The plugin.
        path: String,
    },
    /// The lock and the pinned bytes contradict each other.
    #[error(
        "plugins.lock is wrong about {name}:\n{changes}\nhint: take plugins.lock from version control, or run `engine plugin update {name}`"
    )]
    Contradiction {
        /// The plugin.
        name: String,
        /// What differs.
        changes: String,
    },
    /// The bytes are not the pinned ones.
    #[error("{name} is not what is pinned\n  pinned: {pinned}\n  found:  {found}\n\nhint: {hint}")]
    Digest {
        /// The plugin.
        name: String,
        /// The digest in the lock.
        pinned: String,
        /// The digest of the bytes that are there.
        found: String,
        /// What to do.
        hint: String,
    },
    /// A signature is demanded and missing.
    #[error(
        "{name} must be signed: {why}\n  bytes: sha256:{sha256}\n  keys that may sign it: {keys}\n\nhint: `engine plugin sign` signs it; {said_in} says whose signature counts"
    )]
    Unsigned {
        /// The plugin.
        name: String,
        /// Why none of its signatures counts.
        why: String,
        /// Digest of its bytes.
        sha256: String,
        /// The files of the keys.
        keys: String,
        /// The file that demands it.
        said_in: String,
    },
    /// It has more permissions than before.
    #[error(
        "{name} may do more than what is pinned:\n{changes}\nhint: if that is wanted, run `engine plugin update {name} --accept-imports`"
    )]
    NewImports {
        /// The plugin.
        name: String,
        /// What has changed.
        changes: String,
    },
    /// An operator's policy forbids it.
    #[error("the policy forbids {name}: {why}")]
    Denied {
        /// The plugin.
        name: String,
        /// The rule.
        why: String,
    },
    /// A policy of this host is wrong or cannot be read.
    #[error("the policy of this host, {file}, cannot be used: {message}")]
    HostPolicy {
        /// The file.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// It would have to be fetched, and `--offline` forbids that.
    #[error(
        "{name} ({digest}) is neither in the cache nor in {vendor}, and --offline fetches nothing\n\nhint: run `engine plugin vendor` with a network, and commit the folder"
    )]
    Offline {
        /// The plugin.
        name: String,
        /// Its digest.
        digest: String,
        /// The vendor folder.
        vendor: String,
    },
    /// A key file is wrong.
    #[error("{file} cannot be used as a key: {message}")]
    Key {
        /// The file.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// The registry refused or failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file could not be read or written.
    #[error("failed to {what}: {message}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        message: String,
    },
}

impl SupplyError {
    /// Whether the plugin itself was rejected, rather than not found or wrongly
    /// asked for.
    #[must_use]
    pub fn is_rejection(&self) -> bool {
        match self {
            Self::Unpinned { .. }
            | Self::Unnamed { .. }
            | Self::Contradiction { .. }
            | Self::Digest { .. }
            | Self::Unsigned { .. }
            | Self::NewImports { .. }
            | Self::Denied { .. } => true,
            Self::Registry(error) => matches!(error, RegistryError::Rejected { .. }),
            _ => false,
        }
    }

    /// Whether a person has to change a file or a flag.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Registry(error) => !matches!(error, RegistryError::Network { .. }),
            _ => !self.is_rejection(),
        }
    }
}

/// What a verb may change or fetch, as in cargo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// The lock must be complete, and is not changed.
    pub locked: bool,
    /// Nothing is fetched from a network.
    pub offline: bool,
}

/// How registries are reached.
#[derive(Clone)]
pub struct Access {
    /// Folder of Docker's configuration, with its credentials.
    pub docker_config: Option<PathBuf>,
    /// Proxies and certificates.
    pub network: Network,
    /// The clock for time limits.
    pub clock: Arc<dyn Clock>,
}

/// The bytes of a plugin and the proof of who signed them.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The component.
    pub wasm: Vec<u8>,
    /// Its digest, hex.
    pub sha256: String,
    /// Digest of its manifest in a registry, `sha256:…`.
    pub manifest: Option<String>,
    /// The proof of who signed it.
    pub proof: Proof,
    /// Id of the key that signed it, if `plugins.toml` demands one.
    pub signed_by: Option<String>,
}

/// What operators demand of every plugin, besides `plugins.toml`.
#[derive(Debug, Clone, Default)]
pub struct Demands {
    /// The only digests (hex) that may run; `None` means any.
    pub digests: Option<Vec<String>>,
    /// For each of these rules, one of its keys must have signed it.
    pub rules: Vec<Rule>,
}

/// Keys of which one must have signed a plugin.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Files of public keys.
    pub keys: Vec<PathBuf>,
    /// The file that has the rule.
    pub said_in: String,
}

/// The plugins of one `plugins.toml`.
pub struct Supply {
    /// `plugins.toml`.
    pub file: PathBuf,
    /// The content of the file.
    pub plugins: Plugins,
    /// The pins.
    pub lock: Lock,
    /// What may be changed or fetched.
    pub mode: Mode,
    /// What operators demand of every plugin.
    pub demands: Demands,
    /// Pins that were set or removed here and are not saved yet.
    edits: BTreeMap<String, Option<Locked>>,
    cache: Cache,
    vendor: Cache,
    access: Access,
}

impl Supply {
    /// Reads the file and its lock; `None` if the file does not exist.
    ///
    /// # Errors
    /// One of them is wrong.
    pub fn open(
        file: &Path,
        cache: PathBuf,
        access: Access,
        mode: Mode,
    ) -> Result<Option<Self>, SupplyError> {
        let Some(text) = read_if_there(file)? else {
            return Ok(None);
        };
        let plugins = Plugins::parse(&text).map_err(|problems| SupplyError::Plugins {
            file: file.display().to_string(),
            problems,
        })?;
        let lock = read_lock(&file.with_file_name(lock::FILE))?;
        Ok(Some(Self {
            vendor: Cache::new(file.with_file_name(VENDOR)),
            file: file.to_owned(),
            plugins,
            lock,
            mode,
            demands: Demands::default(),
            edits: BTreeMap::new(),
            cache: Cache::new(cache),
            access,
        }))
    }

    /// Path of the lock.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.file.with_file_name(lock::FILE)
    }

    /// Pins a plugin, in memory.
    pub fn pin(&mut self, plugin: Locked) {
        self.edits.insert(plugin.name.clone(), Some(plugin.clone()));
        self.lock.set(plugin);
    }

    /// Removes a pin, in memory.
    pub fn forget(&mut self, name: &str) {
        self.edits.insert(name.to_owned(), None);
        self.lock.remove(name);
    }

    /// Writes the changed pins into the lock. The pins of other plugins stay, because
    /// another process may have written them meanwhile.
    ///
    /// # Errors
    /// The lock cannot be read or written.
    pub fn save(&mut self) -> Result<(), SupplyError> {
        let _held = self.hold()?;
        let mut lock = read_lock(&self.lock_file())?;
        for (name, edit) in std::mem::take(&mut self.edits) {
            match edit {
                Some(plugin) => lock.set(plugin),
                None => lock.remove(&name),
            }
        }
        cache::write(&self.lock_file(), lock.render().as_bytes())?;
        self.lock = lock;
        Ok(())
    }

    /// Keeps other engines from writing the lock while the returned file is open. That
    /// file is in the cache: the lock itself is replaced when it is written, and
    /// anybody could keep a file beside it locked.
    fn hold(&self) -> Result<std::fs::File, SupplyError> {
        let place = self.lock_file();
        let folder = cache::folder_of(&place).canonicalize();
        let key = sha256_hex(folder.unwrap_or_default().as_os_str().as_encoded_bytes());
        let file = self.cache.folder().join(format!("{key}.lock"));
        let held = std::fs::create_dir_all(self.cache.folder())
            .and_then(|()| std::fs::File::create(&file))
            .and_then(|file| file.lock().map(|()| file));
        held.map_err(|e| SupplyError::Io {
            what: format!("lock {}", file.display()),
            message: e.to_string(),
        })
    }

    /// The entry of a name in `plugins.toml`.
    ///
    /// # Errors
    /// There is no such name.
    pub fn wanted(&self, name: &str) -> Result<&Wanted, SupplyError> {
        self.plugins.plugins.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.plugins.plugins.keys().map(String::as_str).collect();
            SupplyError::Unknown {
                file: self.file.display().to_string(),
                name: name.to_owned(),
                known: if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                },
            }
        })
    }

    /// The names of the plugin that comes from that file.
    #[must_use]
    pub fn names_of(&self, path: &Path) -> Vec<&str> {
        let is_it = |wanted: &Wanted| !wanted.is_oci() && same_file(&self.at(&wanted.source), path);
        let all = self.plugins.plugins.iter();
        let these = all.filter(|(_, wanted)| is_it(wanted));
        these.map(|(name, _)| name.as_str()).collect()
    }

    /// The pin of a name, if it is of the source that the name has now.
    #[must_use]
    pub fn pinned(&self, name: &str) -> Option<&Locked> {
        let wanted = self.plugins.plugins.get(name)?;
        self.lock.get(name).filter(|l| l.source == wanted.source)
    }

    /// The error that a name has no pin for its source.
    ///
    /// # Errors
    /// There is no such name.
    pub fn unpinned(&self, name: &str) -> Result<SupplyError, SupplyError> {
        Ok(SupplyError::Unpinned {
            name: name.to_owned(),
            source_now: self.wanted(name)?.source.clone(),
        })
    }

    /// A path that is relative to `plugins.toml`.
    #[must_use]
    pub fn at(&self, path: &str) -> PathBuf {
        self.file.with_file_name("").join(path)
    }

    /// The digest of the manifest that a source in a registry has now.
    ///
    /// # Errors
    /// The registry does not give it.
    pub async fn resolve(&self, source: &str) -> Result<String, SupplyError> {
        let reference: Reference = source.parse()?;
        Ok(self.registry(&reference)?.resolve(&reference).await?)
    }

    /// A client for the registry of a reference.
    ///
    /// # Errors
    /// A certificate cannot be read.
    pub fn registry(&self, reference: &Reference) -> Result<Registry, RegistryError> {
        let files = self.plugins.ca_files.iter().map(|f| self.at(f)).collect();
        registry(&self.access, files, reference)
    }

    /// The bytes that the source has now, whatever is pinned, with their signatures
    /// checked.
    ///
    /// # Errors
    /// They cannot be read, or lack a signature.
    pub async fn fetch_new(&self, name: &str) -> Result<Fetched, SupplyError> {
        let wanted = self.wanted(name)?;
        if !wanted.is_oci() {
            return self.vouched(name, read_file(&self.at(&wanted.source))?);
        }
        if self.mode.offline {
            return Err(self.offline(name, &wanted.source));
        }
        self.vouched(name, self.pull(wanted, None).await?)
    }

    /// The pinned bytes, with their signatures checked.
    ///
    /// # Errors
    /// They cannot be read, lack a signature, or others are there.
    pub async fn fetch_pinned(&self, pinned: &Locked) -> Result<Fetched, SupplyError> {
        self.fetch(pinned, |damage| Err(self.damaged(pinned, damage)))
            .await
    }

    /// The same, without the vendor folder.
    ///
    /// # Errors
    /// As [`Supply::fetch_pinned`].
    pub async fn fetch_anew(&self, pinned: &Locked) -> Result<Fetched, SupplyError> {
        self.fetch(pinned, |_| Ok(())).await
    }

    fn damaged(&self, pinned: &Locked, damage: Damage) -> SupplyError {
        let hint = format!(
            "take {} from version control, or run `engine plugin vendor`",
            self.vendor.folder().display()
        );
        match damage {
            Damage::Bytes { found } => pinned.differs("its vendored file", &found, hint),
            Damage::Proof => SupplyError::Digest {
                name: format!("{} (the proof of its vendored file)", pinned.name),
                pinned: pinned.manifest.clone().unwrap_or_default(),
                found: "nothing that can be read".to_owned(),
                hint,
            },
        }
    }

    async fn fetch(
        &self,
        pinned: &Locked,
        vendor_is_damaged: impl Fn(Damage) -> Result<(), SupplyError>,
    ) -> Result<Fetched, SupplyError> {
        let name = &pinned.name;
        let wanted = self.wanted(name)?;
        let Some(manifest) = &pinned.manifest else {
            let fetched = read_file(&self.at(&wanted.source))?;
            pinned.check(&wanted.source, &fetched.sha256)?;
            return self.vouched(name, fetched);
        };
        let get = |kept: &Cache| kept.get(pinned.sha256(), lock::hex(manifest));
        let vendored = match get(&self.vendor) {
            Ok(vendored) => vendored,
            Err(damage) => {
                vendor_is_damaged(damage)?;
                None
            }
        };
        let mut refused = None;
        // A damaged file in the cache counts as missing.
        let cached = || get(&self.cache).unwrap_or_default();
        for (wasm, proof) in vendored
            .into_iter()
            .chain(std::iter::once_with(cached).flatten())
        {
            let fetched = Fetched {
                sha256: pinned.sha256().to_owned(),
                wasm,
                manifest: Some(manifest.clone()),
                proof,
                signed_by: None,
            };
            match self.vouched(name, fetched) {
                Ok(fetched) => return Ok(fetched),
                // It may have been signed since it was kept.
                Err(error) => refused = Some(error),
            }
        }
        let fetched = if self.mode.offline {
            Err(self.offline(name, &pinned.wasm))
        } else {
            self.pull(wanted, Some(manifest)).await
        };
        let fetched = fetched.map_err(|error| refused.unwrap_or(error))?;
        if fetched.sha256 != pinned.sha256() {
            let hint = format!(
                "the lock contradicts itself; take it from version control, or run `engine plugin update {name}`"
            );
            let source = format!("{}, {manifest}", wanted.source);
            return Err(pinned.differs(&source, &fetched.sha256, hint));
        }
        self.vouched(name, fetched)
    }

    /// The bytes of a file that has no name, with their signatures checked.
    ///
    /// # Errors
    /// It cannot be read, or lacks a signature.
    pub fn read_unnamed(&self, path: &Path) -> Result<Fetched, SupplyError> {
        let fetched = read_file(path)?;
        self.checked(&path.display().to_string(), &self.keys_below(path), fetched)
    }

    /// Checks what is demanded of the plugin of that name.
    fn vouched(&self, name: &str, fetched: Fetched) -> Result<Fetched, SupplyError> {
        let wanted = self.wanted(name)?;
        // Its own list is checked before the rules.
        let keys: Vec<&[String]> = match &wanted.signed_by {
            Some(keys) => vec![keys],
            None if wanted.is_oci() => self.plugins.keys_for(&wanted.source).into_iter().collect(),
            None => self.keys_below(&self.at(&wanted.source)),
        };
        self.checked(name, &keys, fetched)
    }

    /// The keys that rules demand for a file: for its path, and for where links lead.
    fn keys_below(&self, path: &Path) -> Vec<&[String]> {
        let lies = |path: &Path| lexically(&std::path::absolute(path).unwrap_or(path.into()));
        let leads = |path: &Path| path.canonicalize().unwrap_or_else(|_| lies(path));
        let lying = self
            .plugins
            .keys_for_file(&lies(path), |rule| lies(&self.at(rule)));
        let leading = self
            .plugins
            .keys_for_file(&leads(path), |rule| leads(&self.at(rule)));
        lying.into_iter().chain(leading).collect()
    }

    /// Checks that one key of each list has signed it.
    fn checked(
        &self,
        name: &str,
        keys: &[&[String]],
        mut fetched: Fetched,
    ) -> Result<Fetched, SupplyError> {
        for files in keys {
            let rule = Rule {
                keys: files.iter().map(|f| self.at(f)).collect(),
                said_in: self.file.display().to_string(),
            };
            fetched.signed_by = Some(rule.signer(name, &fetched)?);
        }
        self.demands.check(name, &fetched)?;
        Ok(fetched)
    }

    fn offline(&self, name: &str, digest: &str) -> SupplyError {
        SupplyError::Offline {
            name: name.to_owned(),
            digest: digest.to_owned(),
            vendor: self.vendor.folder().display().to_string(),
        }
    }

    async fn pull(&self, wanted: &Wanted, pinned: Option<&str>) -> Result<Fetched, SupplyError> {
        let reference = wanted.source.parse()?;
        let registry = self.registry(&reference)?;
        let fetched = pull(Arc::new(registry), reference, pinned.map(ToOwned::to_owned)).await?;
        if let Some(manifest) = &fetched.manifest {
            let manifest = lock::hex(manifest);
            self.cache.put(&fetched.wasm, manifest, &fetched.proof)?;
        }
        Ok(fetched)
    }

    /// Copies a fetched plugin to the vendor folder, and returns the file's name.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn vendor(&self, fetched: &Fetched) -> Result<Option<PathBuf>, SupplyError> {
        let Some(manifest) = &fetched.manifest else {
            return Ok(None);
        };
        let manifest = lock::hex(manifest);
        self.vendor.put(&fetched.wasm, manifest, &fetched.proof)?;
        Ok(Some(self.vendor.folder().to_owned()))
    }
}

impl Demands {
    /// Whether operators let it run. Checked before its bytes are parsed.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self, name: &str, fetched: &Fetched) -> Result<(), SupplyError> {
        let allowed = |digests: &Vec<String>| digests.contains(&fetched.sha256);
        if !self.digests.as_ref().is_none_or(allowed) {
            return Err(SupplyError::Denied {
                name: name.to_owned(),
                why: format!(
                    "sha256:{} is not in the list of digests that may run",
                    fetched.sha256
                ),
            });
        }
        for rule in &self.rules {
            rule.signer(name, fetched)?;
        }
        Ok(())
    }
}

impl Locked {
    /// Checks that bytes of that digest (hex) are the pinned ones.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, source: &str, found: &str) -> Result<(), SupplyError> {
        if found == self.sha256() {
            return Ok(());
        }
        let hint = format!(
            "if the change is wanted, run `engine plugin update {}`",
            self.name
        );
        Err(self.differs(source, found, hint))
    }

    fn differs(&self, source: &str, found: &str, hint: String) -> SupplyError {
        SupplyError::Digest {
            name: format!("{} ({source})", self.name),
            pinned: self.wasm.clone(),
            found: format!("sha256:{found}"),
            hint,
        }
    }
}

impl Rule {
    /// The id of the first of the keys that has signed the plugin.
    ///
    /// # Errors
    /// None has, or a key cannot be read.
    pub fn signer(&self, name: &str, fetched: &Fetched) -> Result<String, SupplyError> {
        let mut keys = vec![];
        for file in &self.keys {
            keys.push(read_key(file)?);
        }
        match fetched.proof.signer(&fetched.wasm, &keys) {
            Ok(key) => Ok(key.id()),
            Err(why) => {
                let files = self.keys.iter().map(|f| f.display().to_string());
                Err(SupplyError::Unsigned {
                    name: name.to_owned(),
                    why,
                    sha256: fetched.sha256.clone(),
                    keys: files.collect::<Vec<_>>().join(", "),
                    said_in: self.said_in.clone(),
                })
            }
        }
    }
}

/// The folder of vendored plugins, beside `plugins.toml`.
pub const VENDOR: &str = "plugins.vendor";

/// A client for the registry of a reference. A registry on this machine needs no
/// TLS, unless a certificate is given for it.
///
/// # Errors
/// A certificate cannot be read.
pub fn registry(
    access: &Access,
    mut ca_files: Vec<PathBuf>,
    reference: &Reference,
) -> Result<Registry, RegistryError> {
    let plain_http = ca_files.is_empty() && reference.is_loopback();
    ca_files.extend(access.network.ca_bundle.clone());
    let options = registry::Options {
        docker_config: access.docker_config.clone(),
        network: access.network.clone(),
        plain_http,
        ca_files,
        limit_bytes: BYTES_MAX,
        ..registry::Options::default()
    };
    Registry::new(options, access.clock.clone())
}

/// Pulls a plugin with its signatures.
///
/// # Errors
/// The registry has no such plugin, or one that is refused.
pub async fn pull(
    registry: Arc<Registry>,
    reference: Reference,
    pinned: Option<String>,
) -> Result<Fetched, SupplyError> {
    let shown = reference.to_string();
    // A panic of the client at a registry's answer must not end the engine.
    let pulling = tokio::spawn(async move {
        let pulled: Pulled = registry.pull(&reference, pinned.as_deref()).await?;
        let found = registry
            .signatures(&reference, &pulled.manifest_digest)
            .await?;
        Ok::<_, RegistryError>((pulled, found))
    });
    let (pulled, found) = pulling.await.map_err(|e| RegistryError::Network {
        reference: shown,
        found: format!("the client failed at the registry's answer: {e}"),
        hint: "look at the registry's own log",
    })??;
    let signatures = found.into_iter().map(|s| Signed {
        // A payload that is not text names no digest.
        payload: String::from_utf8(s.payload).unwrap_or_default(),
        signature: s.signature,
    });
    Ok(Fetched {
        sha256: lock::hex(&pulled.wasm_digest).to_owned(),
        wasm: pulled.wasm,
        manifest: Some(pulled.manifest_digest),
        proof: Proof {
            manifest: Some(pulled.manifest),
            signatures: signatures.collect(),
        },
        signed_by: None,
    })
}

/// Reads a plugin file, and the signature beside it if there is one.
///
/// # Errors
/// It cannot be read.
pub fn read_file(path: &Path) -> Result<Fetched, SupplyError> {
    let failed = |e: std::io::Error| SupplyError::Io {
        what: format!("read plugin {}", path.display()),
        message: e.to_string(),
    };
    let wasm = cache::read(path).map_err(failed)?;
    let beside = signature_of(path);
    let signatures = match read_if_there(&beside)? {
        Some(text) => vec![Signed {
            payload: String::new(),
            signature: text.trim().to_owned(),
        }],
        None => vec![],
    };
    Ok(Fetched {
        sha256: sha256_hex(&wasm),
        wasm,
        manifest: None,
        proof: Proof {
            manifest: None,
            signatures,
        },
        signed_by: None,
    })
}

/// The signature file of a plugin file: `canary.wasm.sig`.
#[must_use]
pub fn signature_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Reads a public key.
///
/// # Errors
/// It cannot be read, or is not a public key.
pub fn read_key(file: &Path) -> Result<PublicKey, SupplyError> {
    let wrong = |message: String| SupplyError::Key {
        file: file.display().to_string(),
        message,
    };
    let text = files::read_text(file, TEXT_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
    PublicKey::from_pem(&text).map_err(|e| wrong(e.to_string()))
}

fn read_lock(file: &Path) -> Result<Lock, SupplyError> {
    let Some(text) = read_if_there(file)? else {
        return Ok(Lock::default());
    };
    Lock::parse(&text).map_err(|message| SupplyError::Lock {
        file: file.display().to_string(),
        message,
    })
}

fn read_if_there(file: &Path) -> Result<Option<String>, SupplyError> {
    match files::read_text(file, TEXT_BYTES_MAX) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(SupplyError::Io {
            what: format!("read {}", file.display()),
            message: e.to_string(),
        }),
    }
}

/// Whether two paths lead to the same file.
#[must_use]
pub fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
