//! Where plugins come from: names in `plugins.toml`, pinned in `plugins.lock`,
//! fetched from files and registries, checked before anything compiles them.
//!
//! [`lock`] and [`trust`] are pure; [`cache`] keeps what was fetched; [`policy`]
//! reads what this host allows;
//! [`registry`] speaks to OCI registries; [`Supply`] is all of it together.

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

/// Largest plugin that is fetched: as large as one may be to be loaded.
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
        "{file} cannot be read: {message}\n\nhint: take it from version control, or remove it and write it anew with `engine plugin lock`"
    )]
    Lock {
        /// The file.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// A name that nothing is known by.
    #[error("{file} has no plugin {name:?}; it has {known}")]
    Unknown {
        /// `plugins.toml`.
        file: String,
        /// The name.
        name: String,
        /// The names there are.
        known: String,
    },
    /// Nothing may be pinned now, and something would have to be.
    #[error(
        "{name} is not pinned as {source_now}, and --locked pins nothing new (it is the default where CI=true)\n\nhint: `engine plugin lock` pins it; commit plugins.lock"
    )]
    Unpinned {
        /// The plugin.
        name: String,
        /// Its source now.
        source_now: String,
    },
    /// A file without a name, where only what is pinned may run.
    #[error(
        "{path} has no name in {file}, so nothing pins it, and --locked runs only what is pinned (it is the default where CI=true)\n\nhint: name it there, and run `engine plugin lock`"
    )]
    Unnamed {
        /// `plugins.toml`.
        file: String,
        /// The plugin.
        path: String,
    },
    /// The lock says of the pinned bytes what is not so.
    #[error(
        "plugins.lock does not say of {name} what is so:\n{changes}\nhint: take plugins.lock from version control, or `engine plugin update {name}`"
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
        /// The digest of what is there.
        found: String,
        /// What to do.
        hint: String,
    },
    /// A signature is asked for and not there.
    #[error(
        "{name} must be signed: {why}\n  bytes: sha256:{sha256}\n  keys that may sign it: {keys}\n\nhint: `engine plugin sign` signs it; whose signature counts is said in {said_in}"
    )]
    Unsigned {
        /// The plugin.
        name: String,
        /// Why no signature counts.
        why: String,
        /// Digest of its bytes.
        sha256: String,
        /// The files of the keys.
        keys: String,
        /// Which file asks for it.
        said_in: String,
    },
    /// It may do more than before.
    #[error(
        "{name} may do more than what is pinned:\n{changes}\nhint: if that is wanted, `engine plugin update {name} --accept-imports`"
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
    /// It would have to be fetched, and nothing may be.
    #[error(
        "{name} ({digest}) is neither in the cache nor in {vendor}, and --offline fetches nothing\n\nhint: run `engine plugin vendor` where there is a network, and commit the folder"
    )]
    Offline {
        /// The plugin.
        name: String,
        /// What was looked for.
        digest: String,
        /// The vendor folder.
        vendor: String,
    },
    /// A key file is wrong.
    #[error("{file} is no key that can be used: {message}")]
    Key {
        /// The file.
        file: String,
        /// What is wrong.
        message: String,
    },
    /// The registry said no.
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
    /// Whether the plugin was rejected, rather than not found or not asked for
    /// rightly.
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

/// What may change, as cargo users know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mode {
    /// The lock must have everything, and stays as it is.
    pub locked: bool,
    /// Nothing is fetched.
    pub offline: bool,
}

/// How registries are reached.
#[derive(Clone)]
pub struct Access {
    /// Folder of Docker's configuration, with its credentials.
    pub docker_config: Option<PathBuf>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// Bytes of a plugin and what proves who signed them.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The component.
    pub wasm: Vec<u8>,
    /// Its digest, hex.
    pub sha256: String,
    /// Digest of its manifest in a registry, `sha256:…`.
    pub manifest: Option<String>,
    /// What shows who signed it.
    pub proof: Proof,
    /// Id of the key that has, where `plugins.toml` asks for one.
    pub signed_by: Option<String>,
}

/// What operators ask of every plugin, beside what `plugins.toml` says.
#[derive(Debug, Clone, Default)]
pub struct Demands {
    /// The only digests (hex) that may run; none means any.
    pub digests: Option<Vec<String>>,
    /// Of each of these a key must have signed it.
    pub rules: Vec<Rule>,
}

/// Keys of which one must have signed a plugin.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Files of public keys.
    pub keys: Vec<PathBuf>,
    /// Which file says so.
    pub said_in: String,
}

/// The plugins of one `plugins.toml`.
pub struct Supply {
    /// `plugins.toml`.
    pub file: PathBuf,
    /// What it says.
    pub plugins: Plugins,
    /// What is pinned.
    pub lock: Lock,
    /// What may change.
    pub mode: Mode,
    /// What operators ask of every plugin.
    pub demands: Demands,
    /// What is pinned or forgotten here and not saved yet.
    edits: BTreeMap<String, Option<Locked>>,
    cache: Cache,
    vendor: Cache,
    access: Access,
}

impl Supply {
    /// Reads the file and its lock; none if there is no such file.
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

    /// Where the lock is.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.file.with_file_name(lock::FILE)
    }

    /// Pins a plugin in memory.
    pub fn pin(&mut self, plugin: Locked) {
        self.edits.insert(plugin.name.clone(), Some(plugin.clone()));
        self.lock.set(plugin);
    }

    /// Forgets a plugin in memory.
    pub fn forget(&mut self, name: &str) {
        self.edits.insert(name.to_owned(), None);
        self.lock.remove(name);
    }

    /// Writes what was pinned and forgotten into the lock. Others may have
    /// written it meanwhile; what they did to other plugins stays.
    ///
    /// # Errors
    /// It cannot be read or written.
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

    /// Keeps other engines from writing the lock, as long as the file is open. It
    /// lies among our own files: the lock itself is replaced when it is written,
    /// and anybody could hold what lies beside it.
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

    /// What `plugins.toml` says of a name.
    ///
    /// # Errors
    /// It says nothing.
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

    /// What is pinned for a name, if it is pinned to the source that it has now.
    #[must_use]
    pub fn pinned(&self, name: &str) -> Option<&Locked> {
        let wanted = self.plugins.plugins.get(name)?;
        self.lock.get(name).filter(|l| l.source == wanted.source)
    }

    /// That a name has no pin for its source.
    ///
    /// # Errors
    /// There is no such name.
    pub fn unpinned(&self, name: &str) -> Result<SupplyError, SupplyError> {
        Ok(SupplyError::Unpinned {
            name: name.to_owned(),
            source_now: self.wanted(name)?.source.clone(),
        })
    }

    /// Paths are those of the file that has them.
    #[must_use]
    pub fn at(&self, path: &str) -> PathBuf {
        self.file.with_file_name("").join(path)
    }

    /// The manifest digest that a source in a registry has now.
    ///
    /// # Errors
    /// The registry does not say.
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

    /// The bytes that the source has now, whatever is pinned, once whoever must
    /// has signed them.
    ///
    /// # Errors
    /// They cannot be had, or are not signed.
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

    /// The pinned bytes, once whoever must has signed them.
    ///
    /// # Errors
    /// They cannot be had, are not signed, or something else is there.
    pub async fn fetch_pinned(&self, pinned: &Locked) -> Result<Fetched, SupplyError> {
        self.fetch(pinned, |damage| Err(self.damaged(pinned, damage)))
            .await
    }

    /// The same, whatever has become of the vendor folder.
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
                name: format!("{} (what proves its vendored file)", pinned.name),
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
        // What is damaged in our own cache is as good as not there.
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
                "the lock contradicts itself; take it from version control, or `engine plugin update {name}`"
            );
            let source = format!("{}, {manifest}", wanted.source);
            return Err(pinned.differs(&source, &fetched.sha256, hint));
        }
        self.vouched(name, fetched)
    }

    /// A file that has no name, once whoever must has signed it.
    ///
    /// # Errors
    /// It cannot be had, or is not signed.
    pub fn read_unnamed(&self, path: &Path) -> Result<Fetched, SupplyError> {
        let fetched = read_file(path)?;
        self.checked(&path.display().to_string(), &self.keys_below(path), fetched)
    }

    /// Checks what is asked of the plugin of that name.
    fn vouched(&self, name: &str, fetched: Fetched) -> Result<Fetched, SupplyError> {
        let wanted = self.wanted(name)?;
        // Its own list counts before the rules.
        let keys: Vec<&[String]> = match &wanted.signed_by {
            Some(keys) => vec![keys],
            None if wanted.is_oci() => self.plugins.keys_for(&wanted.source).into_iter().collect(),
            None => self.keys_below(&self.at(&wanted.source)),
        };
        self.checked(name, &keys, fetched)
    }

    /// The keys that rules ask for a file: where it lies, and where links lead to.
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

    /// One of each list must have signed it.
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

    /// Copies a fetched plugin to the vendor folder; the file's name.
    ///
    /// # Errors
    /// The folder cannot be written.
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
    /// Whether operators let it run. Nobody has looked into its bytes yet.
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
    /// Whether bytes of that digest (hex) are the pinned ones.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, source: &str, found: &str) -> Result<(), SupplyError> {
        if found == self.sha256() {
            return Ok(());
        }
        let hint = format!(
            "if the change is wanted, `engine plugin update {}`",
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

/// A client for the registry of a reference. One on this machine needs no TLS,
/// unless a certificate is given for it.
///
/// # Errors
/// A certificate cannot be read.
pub fn registry(
    access: &Access,
    ca_files: Vec<PathBuf>,
    reference: &Reference,
) -> Result<Registry, RegistryError> {
    let options = registry::Options {
        docker_config: access.docker_config.clone(),
        plain_http: ca_files.is_empty() && reference.is_loopback(),
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
    // A client that panics at what a registry says must not take the engine
    // with it.
    let pulling = tokio::spawn(async move {
        let pulled: Pulled = registry.pull(&reference, pinned.as_deref()).await?;
        let found = registry
            .signatures(&reference, &pulled.manifest_digest)
            .await?;
        Ok::<_, RegistryError>((pulled, found))
    });
    let (pulled, found) = pulling.await.map_err(|e| RegistryError::Network {
        reference: shown,
        found: format!("the registry said something that the client cannot take: {e}"),
        hint: "look at the registry's own log",
    })??;
    let signatures = found.into_iter().map(|s| Signed {
        // A payload that is no text is no claim about a digest either.
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

/// Where the signature of a plugin file is: `canary.wasm.sig`.
#[must_use]
pub fn signature_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Reads a public key.
///
/// # Errors
/// It cannot be read, or is none.
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

/// Whether two paths lead to one file.
#[must_use]
pub fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
