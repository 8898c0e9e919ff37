//! References to container images, as Docker, ECR and ECS read them.

/// A reference to a container image: `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageReference {
    /// Registry and repository, written out: `nginx` is `docker.io/library/nginx`.
    pub repository: String,
    /// The tag, which a registry can let mean another image later.
    pub tag: Option<String>,
    /// The digest, such as `sha256:…`, which always means the same image.
    pub digest: Option<String>,
}

/// The image of that name by its digest, without the tag.
#[must_use]
pub fn by_digest(image: &str, digest: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let end = name[last..].find(':').map_or(name.len(), |at| last + at);
    format!("{}@{digest}", &name[..end])
}

/// The registry of names that name none.
const DOCKER_HUB: &str = "docker.io";

/// Longest name of a repository with its registry that registries accept.
const NAME_MAX: usize = 255;

impl ImageReference {
    /// Reads a reference.
    ///
    /// # Errors
    /// Says what no registry would accept, to be read after the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it is empty".to_owned());
        }
        if text.contains(char::is_whitespace) {
            return Err("there is a space in it".to_owned());
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(format!(
                "an image has no {scheme}:// before it; write {rest}"
            ));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash is the one of a port.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (name, tag) = match rest[last..].split_once(':') {
            Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
            None => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(if tag.is_empty() {
                "no tag follows the colon".to_owned()
            } else {
                format!(
                    "{tag:?} is not a tag: that is at most 128 letters, digits and . _ -, and begins with a letter, a digit or _"
                )
            });
        }
        if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
            return Err(format!(
                "{digest:?} is not a digest: that is sha256: and 64 hexadecimal digits in lower case"
            ));
        }
        let repository = written_out(name)?;
        Ok(Self {
            repository,
            tag: tag.map(ToOwned::to_owned),
            digest: digest.map(ToOwned::to_owned),
        })
    }

    /// Whether the image comes from a public library, where anybody gets it: most
    /// services run an image of their own beside such helpers.
    #[must_use]
    pub fn is_public(&self) -> bool {
        let registry = self.repository.split('/').next().unwrap_or_default();
        [
            DOCKER_HUB,
            "public.ecr.aws",
            "quay.io",
            "registry.k8s.io",
            "mcr.microsoft.com",
        ]
        .contains(&registry)
    }
}

fn written_out(name: &str) -> Result<String, String> {
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => {
            (first.to_ascii_lowercase(), path)
        }
        _ => (DOCKER_HUB.to_owned(), name),
    };
    if !is_registry(&registry) {
        return Err(format!("{registry:?} is not a host and port"));
    }
    if path.is_empty() || !path.split('/').all(is_part) {
        return Err(format!(
            "{path:?} is not a repository: that has letters in lower case and digits, with . _ - between them, and / between its parts"
        ));
    }
    if name.len() > NAME_MAX {
        return Err(format!(
            "its name has {} letters, and {NAME_MAX} is the most that registries accept",
            name.len()
        ));
    }
    let registry = match registry.as_str() {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        other => other,
    };
    let library = if registry == DOCKER_HUB && !path.contains('/') {
        "library/"
    } else {
        ""
    };
    Ok(format!("{registry}/{library}{path}"))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_host = |host: &str| {
        host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    let is_address = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
    (is_host(host) || is_address) && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// Whether a text is one part of a repository's path: lower-case letters and digits,
/// with `.`, `_`, `__` or any number of `-` between them.
fn is_part(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().zip(bytes.last());
    let fits = ends.is_some_and(|(a, b)| inside(*a) && inside(*b));
    fits && bytes
        .split(|b| inside(*b))
        .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|b| *b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&text.len())
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_digest(text: &str) -> bool {
    let hex = |digits: &str, length: usize| {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        digits.len() == length && digits.bytes().all(lower)
    };
    match text.split_once(':') {
        Some(("sha256", digits)) => hex(digits, 64),
        Some(("sha512", digits)) => hex(digits, 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_its_digest() {
        for (image, name) in [
            ("app", "app@sha256:1"),
            ("app:v1", "app@sha256:1"),
            ("app:v1@sha256:0", "app@sha256:1"),
            ("r.example:5000/a/app", "r.example:5000/a/app@sha256:1"),
            ("r.example:5000/app:v1", "r.example:5000/app@sha256:1"),
        ] {
            assert_eq!(by_digest(image, "sha256:1"), name);
        }
    }

    #[test]
    fn names_that_registries_have_are_read() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, repository, tag) in [
            ("nginx", "docker.io/library/nginx", None),
            ("nginx:1.27", "docker.io/library/nginx", Some("1.27")),
            (
                "docker.io/library/nginx:1.27",
                "docker.io/library/nginx",
                Some("1.27"),
            ),
            (
                "envoyproxy/envoy:v1.31-latest",
                "docker.io/envoyproxy/envoy",
                Some("v1.31-latest"),
            ),
            (
                "localhost:5000/a/b__c.d-e",
                "localhost:5000/a/b__c.d-e",
                None,
            ),
            (
                "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop:v1",
                "123456789012.dkr.ecr.eu-central-1.amazonaws.com/shop",
                Some("v1"),
            ),
            ("REG.example/shop:V1_x", "reg.example/shop", Some("V1_x")),
        ] {
            for with_digest in [false, true] {
                let text = if with_digest {
                    format!("{text}@{digest}")
                } else {
                    text.to_owned()
                };
                let read = ImageReference::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
                assert_eq!(read.repository, repository, "{text}");
                assert_eq!(read.tag.as_deref(), tag, "{text}");
                let found = read.digest.as_deref();
                assert_eq!(found, with_digest.then_some(digest.as_str()), "{text}");
            }
        }
    }

    #[test]
    fn names_that_no_registry_has_are_refused() {
        for (text, says) in [
            ("", "empty"),
            (" ", "empty"),
            ("app :v1", "space"),
            ("app:", "no tag"),
            ("app:v1:v2", "not a tag"),
            ("app:-x", "not a tag"),
            ("https://registry/app:v2", "write registry/app:v2"),
            ("app@sha256:12", "not a digest"),
            ("app@", "not a digest"),
            ("app@v1", "not a digest"),
            ("App:v1", "not a repository"),
            ("reg.example/:v1", "not a repository"),
            ("reg.example//shop", "not a repository"),
            ("shop/", "not a repository"),
            (":v1", "not a repository"),
            ("a..b", "not a repository"),
            ("reg.example:port/shop", "not a host and port"),
            ("-reg.example/shop", "not a host and port"),
        ] {
            let error = ImageReference::parse(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(ImageReference::parse(&"a".repeat(256)).is_err());
    }

    #[test]
    fn public_libraries_are_known() {
        let public = |text: &str| ImageReference::parse(text).expect(text).is_public();
        for text in [
            "nginx",
            "envoyproxy/envoy:v1",
            "public.ecr.aws/aws-observability/aws-for-fluent-bit:stable",
        ] {
            assert!(public(text), "{text}");
        }
        for text in ["reg.example/shop", "ghcr.io/us/shop", "localhost:5000/shop"] {
            assert!(!public(text), "{text}");
        }
    }
}
