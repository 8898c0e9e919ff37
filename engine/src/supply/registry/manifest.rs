//! The manifests in a registry: which are read as plugins, and which are
//! written. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::Rejected;
use super::reference::is_digest;
use crate::model::sha256_hex;

/// An OCI image manifest, which is also used for everything that is not an image.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Indexes and images are accepted too, because the refusal can then say what is
/// there.
pub(super) const ACCEPTED: &[&str] = &[MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX];

const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const WASM_LAYER: &str = "application/wasm";
const OLDER_CONFIG: &str = "application/vnd.wasm.config.v1+json";
const OLDER_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
/// Configurations that old and new versions of oras write if there is none.
const EMPTY_CONFIGS: [&str; 2] = [
    "application/vnd.oci.empty.v1+json",
    "application/vnd.unknown.config.v1+json",
];
pub(super) const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

const SIGNATURE_LAYER: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Largest payload of a signature, bytes. Real ones have about 250.
const PAYLOAD_BYTES_MAX: u64 = 64 << 10;
const SIGNATURES_MAX: usize = 64;

/// The digest of bytes: `sha256:` and hexadecimal digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256_hex(bytes))
}

/// The format of a plugin in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The format of the CNCF's working group, which wkg reads and writes.
    Cncf,
    /// The format of Spin and Kubewarden, for registries that refuse the other.
    Older,
}

/// A plugin to be pushed. The same content gives the same manifest digest.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The component.
    pub wasm: Vec<u8>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What it imports.
    pub imports: Vec<String>,
    /// The time that it was made, as `2026-01-31T12:00:00Z`.
    pub created: String,
    /// Annotations, which registries and tools show.
    pub annotations: BTreeMap<String, String>,
}

/// The descriptor of a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn new(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: digest(content),
            size: content.len() as u64,
            annotations: BTreeMap::new(),
        }
    }
}

// The structs below are written as well as read, and the order of their fields
// is part of every digest.

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig<'a> {
    created: &'a str,
    architecture: &'a str,
    os: &'a str,
    layer_digests: [&'a str; 1],
    component: Component<'a>,
}

#[derive(Serialize)]
struct Component<'a> {
    exports: &'a [String],
    imports: &'a [String],
}

/// The configuration of an image without platform and date, as cosign writes it.
#[derive(Serialize)]
struct SignatureConfig<'a> {
    architecture: &'a str,
    created: &'a str,
    history: Vec<Step<'a>>,
    os: &'a str,
    rootfs: Rootfs<'a>,
    config: Nothing,
}

#[derive(Serialize)]
struct Step<'a> {
    created: &'a str,
}

#[derive(Serialize)]
struct Rootfs<'a> {
    r#type: &'a str,
    diff_ids: Vec<&'a str>,
}

/// Becomes `{}`.
#[derive(Serialize)]
struct Nothing {}

/// A manifest and the configuration that it names, ready to be sent.
pub(super) struct Written {
    pub(super) manifest: Vec<u8>,
    pub(super) config: Vec<u8>,
}

/// The plugin in a manifest.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) layer: Descriptor,
    pub(super) annotations: BTreeMap<String, String>,
}

fn other(found: impl Into<String>, hint: &'static str) -> Rejected {
    Rejected::Kind {
        found: found.into(),
        hint,
    }
}

fn read(manifest: &[u8]) -> Result<Manifest, Rejected> {
    const PUSH: &str = "push a plugin there, e.g. with `engine plugin push`";
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        schema_version: u32,
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let broken = |e: serde_json::Error| other(format!("its manifest cannot be read: {e}"), PUSH);
    let kind: Kind = serde_json::from_slice(manifest).map_err(broken)?;
    let media_type = kind.media_type.unwrap_or_else(|| MANIFEST.to_owned());
    if kind.manifests.is_some() || [INDEX, DOCKER_INDEX].contains(&media_type.as_str()) {
        return Err(other(
            "it is an index of several manifests, not one plugin",
            "a component runs everywhere, so it needs no index: give the digest of one manifest",
        ));
    }
    if kind.schema_version != 2 || ![MANIFEST, DOCKER_MANIFEST].contains(&media_type.as_str()) {
        return Err(other(
            format!(
                "its manifest is of another kind: {media_type:?}, version {}",
                kind.schema_version
            ),
            PUSH,
        ));
    }
    serde_json::from_slice(manifest).map_err(broken)
}

/// Parses a manifest as that of a plugin and as that of signatures. For the fuzzer,
/// which could not reach these functions otherwise.
#[doc(hidden)]
#[must_use]
pub fn complaints(manifest: &[u8], limit_bytes: u64) -> [Option<Rejected>; 2] {
    [
        plugin(manifest, limit_bytes).err(),
        signatures(manifest).err(),
    ]
}

/// The one WebAssembly layer of a plugin's manifest.
pub(super) fn plugin(manifest: &[u8], limit_bytes: u64) -> Result<Found, Rejected> {
    const PUSH: &str = "push the plugin as a WebAssembly artefact, e.g. with `engine plugin push` or `wkg oci push`";
    let manifest = read(manifest)?;
    let config = manifest.config.media_type.as_str();
    if [IMAGE_CONFIG, DOCKER_CONFIG].contains(&config) {
        return Err(other("it is a container image, not a plugin", PUSH));
    }
    let known = [WASM_CONFIG, OLDER_CONFIG];
    if !known.contains(&config) && !EMPTY_CONFIGS.contains(&config) {
        return Err(other(
            format!("it is not a plugin: its configuration is {config:?}"),
            PUSH,
        ));
    }
    let [layer] = <[Descriptor; 1]>::try_from(manifest.layers).map_err(|layers| {
        other(
            format!("it has {} layers and a plugin has one", layers.len()),
            PUSH,
        )
    })?;
    if ![WASM_LAYER, OLDER_LAYER].contains(&layer.media_type.as_str()) {
        return Err(other(
            format!("it is not a plugin: its layer is {:?}", layer.media_type),
            PUSH,
        ));
    }
    check(&layer, "layer", limit_bytes)?;
    Ok(Found {
        layer,
        annotations: manifest.annotations.unwrap_or_default(),
    })
}

/// Checks a descriptor before anything is downloaded.
fn check(layer: &Descriptor, what: &'static str, max: u64) -> Result<(), Rejected> {
    if !is_digest(&layer.digest) {
        return Err(other(
            format!(
                "the {what} has a digest of another kind: {:?}",
                layer.digest
            ),
            "push it again with a tool that uses sha256",
        ));
    }
    if layer.size > max {
        return Err(Rejected::TooLarge {
            what,
            bytes: layer.size,
            max,
        });
    }
    Ok(())
}

/// The manifest of a plugin.
pub(super) fn write(artifact: &Artifact, layout: Layout) -> Written {
    let (config_type, layer_type) = match layout {
        Layout::Cncf => (WASM_CONFIG, WASM_LAYER),
        Layout::Older => (OLDER_CONFIG, OLDER_LAYER),
    };
    let layer = Descriptor::new(layer_type, &artifact.wasm);
    let config = match layout {
        Layout::Cncf => json(&WasmConfig {
            created: &artifact.created,
            architecture: "wasm",
            os: "wasip2",
            layer_digests: [&layer.digest],
            component: Component {
                exports: &artifact.exports,
                imports: &artifact.imports,
            },
        }),
        Layout::Older => json(&Nothing {}),
    };
    let annotations = Some(artifact.annotations.clone()).filter(|a| !a.is_empty());
    written(config_type, config, vec![layer], annotations)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Strings, numbers and maps of strings can always be written as JSON.
    serde_json::to_vec(value).unwrap_or_else(|e| unreachable!("{e}"))
}

fn written(
    config_type: &str,
    config: Vec<u8>,
    layers: Vec<Descriptor>,
    annotations: Option<BTreeMap<String, String>>,
) -> Written {
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST.to_owned(),
        config: Descriptor::new(config_type, &config),
        layers,
        annotations,
    };
    Written {
        manifest: json(&manifest),
        config,
    }
}

/// The payloads in a manifest of signatures, and their signatures.
pub(super) fn signatures(manifest: &[u8]) -> Result<Vec<(Descriptor, String)>, Rejected> {
    let layers = read(manifest)?.layers;
    if layers.len() > SIGNATURES_MAX {
        return Err(other(
            format!(
                "it has {} signatures and the limit is {SIGNATURES_MAX}",
                layers.len()
            ),
            "delete the tag of the signatures and sign again",
        ));
    }
    let signed = layers.into_iter().filter_map(|layer| {
        let signature = layer.annotations.get(SIGNATURE)?.clone();
        (layer.media_type == SIGNATURE_LAYER).then_some((layer, signature))
    });
    let signed: Vec<_> = signed.collect();
    for (layer, _) in &signed {
        check(layer, "signature", PAYLOAD_BYTES_MAX)?;
    }
    Ok(signed)
}

/// The manifest of signatures with one more; `None` if it has that one already.
pub(super) fn with_signature(
    manifest: Option<&[u8]>,
    payload: &[u8],
    signature: &str,
) -> Result<Option<Written>, Rejected> {
    let before = manifest.map(read).transpose()?;
    let (mut layers, annotations) = before.map_or((vec![], None), |m| (m.layers, m.annotations));
    let mut layer = Descriptor::new(SIGNATURE_LAYER, payload);
    layer
        .annotations
        .insert(SIGNATURE.to_owned(), signature.to_owned());
    let is_same = |l: &Descriptor| {
        l.digest == layer.digest
            && l.annotations.get(SIGNATURE).map(String::as_str) == Some(signature)
    };
    if layers.iter().any(is_same) {
        return Ok(None);
    }
    layers.push(layer);
    const NEVER: &str = "0001-01-01T00:00:00Z";
    let config = json(&SignatureConfig {
        architecture: "",
        created: NEVER,
        history: layers.iter().map(|_| Step { created: NEVER }).collect(),
        os: "",
        rootfs: Rootfs {
            r#type: "layers",
            diff_ids: layers.iter().map(|l| l.digest.as_str()).collect(),
        },
        config: Nothing {},
    });
    Ok(Some(written(IMAGE_CONFIG, config, layers, annotations)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn layer(kind: &str) -> Value {
        json!({"mediaType": kind, "digest": digest(b"x"), "size": 1})
    }

    fn manifest(layers: &[Value]) -> Value {
        json!({
            "schemaVersion": 2,
            "config": {"mediaType": WASM_CONFIG, "digest": digest(b"{}"), "size": 2},
            "layers": layers,
        })
    }

    fn refusal(manifest: &Value) -> String {
        let refused = plugin(manifest.to_string().as_bytes(), 10).expect_err("no plugin");
        refused.to_string()
    }

    #[test]
    fn a_plugin_needs_no_media_type_of_its_own() {
        let mut manifest = manifest(&[layer(WASM_LAYER)]);
        for kind in [None, Some(MANIFEST), Some(DOCKER_MANIFEST)] {
            if let Some(kind) = kind {
                manifest["mediaType"] = json!(kind);
            }
            let found = plugin(manifest.to_string().as_bytes(), 10).expect("a plugin");
            assert_eq!(found.layer.digest, digest(b"x"));
        }
    }

    #[test]
    fn what_no_registry_should_give() {
        let good = manifest(&[layer(WASM_LAYER)]);
        let with = |pointer: &str, value: Value| {
            let mut changed = good.clone();
            *changed.pointer_mut(pointer).expect("it is there") = value;
            refusal(&changed)
        };
        for (says, refused) in [
            ("version 1", with("/schemaVersion", json!(1))),
            ("cannot be read", with("/schemaVersion", json!("2"))),
            ("cannot be read", with("/layers/0/size", json!(-1))),
            ("cannot be read", with("/layers/0/digest", json!(null))),
            (
                "a digest of another kind",
                with("/layers/0/digest", json!("sha512:00")),
            ),
            (
                "a digest of another kind",
                with("/layers/0/digest", json!("sha256:../../x")),
            ),
            (
                "11 bytes and the limit is 10",
                with("/layers/0/size", json!(11)),
            ),
            ("cannot be read", refusal(&json!([]))),
            (
                "index of several",
                refusal(&json!({"schemaVersion": 2, "manifests": []})),
            ),
            (
                "index of several",
                refusal(&json!({"schemaVersion": 2, "mediaType": DOCKER_INDEX})),
            ),
            (
                "of another kind: \"text/plain\"",
                refusal(&json!({"schemaVersion": 2, "mediaType": "text/plain"})),
            ),
        ] {
            assert!(refused.contains(says), "{refused}");
        }
        assert!(plugin(b"\xff", 10).is_err());
    }

    #[test]
    fn there_may_be_so_many_signatures() {
        let many = |count: usize| {
            let mut layer = layer(SIGNATURE_LAYER);
            layer["annotations"] = json!({SIGNATURE: "c2ln"});
            let manifest = manifest(&vec![layer; count]).to_string();
            signatures(manifest.as_bytes()).map(|found| found.len())
        };
        assert_eq!(many(SIGNATURES_MAX), Ok(SIGNATURES_MAX));
        let refused = many(SIGNATURES_MAX + 1).expect_err("too many").to_string();
        assert!(refused.contains("it has 65 signatures"), "{refused}");
    }
}
