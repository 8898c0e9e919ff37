//! Pulls plugins from OCI registries, and pushes them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::inspect::annotations;
use super::sign::{self, Ask};
use crate::ops::app::App;
use crate::ops::compile::compile;
use crate::ops::pin::{PinRequest, access, by_name};
use crate::ops::{Error, Input, Result};
use crate::spec::plugins::OCI;
use crate::strategy::{Description, Plugin};
use crate::supply::registry::Registry;
use crate::supply::registry::manifest::{Artifact, Layout};
use crate::supply::registry::reference::Reference;
use crate::supply::{self, SupplyError, cache};

/// The creation time in every manifest, so that the same plugin always has the same
/// digest.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// What to fetch.
#[derive(Debug, Clone)]
pub struct PullRequest {
    /// A name of `plugins.toml`, or an `oci://` reference; `None` for all names.
    pub plugin: Option<String>,
    /// The file to write it to.
    pub output: Option<PathBuf>,
    /// Certificates (PEM) of authorities that this machine does not trust otherwise.
    pub ca_files: Vec<PathBuf>,
    /// What may change about pinned plugins.
    pub pins: PinRequest,
}

/// A plugin that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// Fetched by a name of `plugins.toml`; it is in the cache now.
    Name {
        /// The name.
        name: String,
        /// Digest of its bytes, hex.
        sha256: String,
    },
    /// Fetched by a reference; it is in a file now.
    Reference {
        /// The file.
        file: PathBuf,
        /// Digest of its manifest, `sha256:…`.
        manifest: String,
        /// Digest of its bytes, hex.
        sha256: String,
    },
}

/// Fetches plugins, and calls `pulled` for each. The bytes of a reference are checked
/// against their digests and not compiled.
///
/// # Errors
/// A plugin cannot be fetched, is not what is pinned, or cannot be written.
pub async fn pull(
    app: &App,
    request: PullRequest,
    pulled: &mut (dyn FnMut(Pulled) + Send),
) -> Result<()> {
    let PullRequest {
        plugin,
        output,
        ca_files,
        pins,
    } = request;
    if let Some(source) = plugin.as_ref().filter(|p| p.starts_with(OCI)) {
        let (registry, reference) = open(app, source, ca_files)?;
        pins.must_reach(source)?;
        let fetched = supply::pull(Arc::new(registry), reference, None).await?;
        let Some(file) = output else {
            return Err(Error::usage(format!(
                "{source} exists (sha256:{}), and no file is named to write it to",
                fetched.sha256
            ))
            .name_it(Input::OutputFile));
        };
        cache::write(&file, &fetched.wasm)?;
        pulled(Pulled::Reference {
            file,
            manifest: fetched.manifest.unwrap_or_default(),
            sha256: fetched.sha256,
        });
        return Ok(());
    }
    let supply = pins.supply(app)?;
    let names = match plugin {
        Some(name) => vec![name],
        None if output.is_some() => {
            return Err(Error::argument(
                Input::OutputFile,
                "is for one plugin; name that plugin",
            ));
        }
        None => supply.plugins.plugins.keys().cloned().collect(),
    };
    for name in names {
        let fetched = by_name(&supply, &name).await?;
        if let Some(file) = &output {
            cache::write(file, &fetched.wasm)?;
        }
        pulled(Pulled::Name {
            name,
            sha256: fetched.sha256,
        });
    }
    Ok(())
}

/// A client for a reference, and the reference.
fn open(
    app: &App,
    reference: &str,
    ca_files: Vec<PathBuf>,
) -> Result<(Registry, Reference), SupplyError> {
    let reference: Reference = reference.parse()?;
    let registry = supply::registry(&access(app), ca_files, &reference)?;
    Ok((registry, reference))
}

/// What to push.
#[derive(Debug, Clone)]
pub struct PushRequest {
    /// The component.
    pub file: PathBuf,
    /// `oci://REGISTRY/REPOSITORY:TAG`
    pub reference: String,
    /// Annotations, `KEY=VALUE`, in addition to what the plugin says of itself.
    pub annotations: Vec<String>,
    /// File of the private key that signs it.
    pub key: Option<PathBuf>,
    /// The media types of the manifest.
    pub layout: Layout,
    /// Certificates (PEM) of authorities that this machine does not trust otherwise.
    pub ca_files: Vec<PathBuf>,
}

/// A plugin that is in a registry now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The reference that was given.
    pub reference: String,
    /// The same by digest, which never changes its meaning.
    pub exact: String,
    /// Digest of its manifest, `sha256:…`.
    pub manifest: String,
    /// Digest of its bytes, hex.
    pub sha256: String,
    /// Id of the key that has signed it.
    pub signed_by: Option<String>,
}

/// Pushes a plugin to a registry, and signs it if there is a key. It is compiled first;
/// what it says of itself becomes annotations.
///
/// # Errors
/// It may not run or cannot be read, a key or an annotation is wrong, or the registry
/// refuses it.
pub async fn push(app: &App, request: PushRequest, ask: Ask<'_>) -> Result<Pushed> {
    let (registry, reference) = open(app, &request.reference, request.ca_files)?;
    let key = request.key.as_deref();
    let key = key.map(|file| sign::private_key(app, file, ask));
    let key = key.transpose()?;
    let file = supply::read_file(&request.file)?;
    let plugin = compile(app, &request.file.display().to_string(), &file.wasm).await?;
    let description = plugin.describe().await?;
    let artifact = Artifact {
        annotations: about(&description, &file.wasm, &request.annotations)?,
        exports: vec![plugin.world.clone()],
        imports: interfaces(&plugin),
        created: CREATED.to_owned(),
        wasm: file.wasm,
    };
    let pushed = registry.push(&reference, &artifact, request.layout).await;
    let manifest = pushed.map_err(SupplyError::from)?;
    let signed_by = match &key {
        Some(key) => {
            sign::attach(&registry, &reference, &manifest, key).await?;
            Some(key.public().id())
        }
        None => None,
    };
    Ok(Pushed {
        reference: reference.to_string(),
        exact: format!("{OCI}{}@{manifest}", reference.name()),
        manifest,
        sha256: plugin.sha256.clone(),
        signed_by,
    })
}

/// Annotations: what a plugin says of itself, and those that are given.
fn about(
    description: &Description,
    wasm: &[u8],
    given: &[String],
) -> Result<BTreeMap<String, String>> {
    let mut about = BTreeMap::new();
    for (name, text) in [
        ("title", &description.name),
        ("version", &description.version),
        ("description", &description.summary),
    ] {
        about.insert(format!("org.opencontainers.image.{name}"), text.clone());
    }
    for annotation in annotations(wasm) {
        if let Some(name) = annotation.oci {
            about.insert(format!("org.opencontainers.image.{name}"), annotation.text);
        }
    }
    for annotation in given {
        let (name, text) = annotation.split_once('=').ok_or_else(|| {
            Error::argument(Input::Annotation, format!("{annotation} is not KEY=VALUE"))
        })?;
        about.insert(name.to_owned(), text.to_owned());
    }
    Ok(about)
}

/// The interfaces that a plugin imports.
fn interfaces(plugin: &Plugin) -> Vec<String> {
    let mut imports: Vec<String> = plugin.stubbed.clone();
    for permission in &plugin.permissions {
        let interface = permission.split('#').next().unwrap_or_default().to_owned();
        if !imports.contains(&interface) {
            imports.push(interface);
        }
    }
    imports.sort();
    imports
}
