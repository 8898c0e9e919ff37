//! A reference to a plugin in a registry: `oci://registry/repository:tag@digest`.

use std::fmt;
use std::str::FromStr;

use super::error::RegistryError;

const SCHEME: &str = "oci://";

/// A place in a registry. It always has a tag or a digest. Without either, `latest` is
/// not assumed, because nobody could say later what was run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Host and port, as `registry.example:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path inside the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. A registry can let it mean other bytes later.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest, which always means the same bytes.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// `registry/repository`, as a signature names it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Whether the registry is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = host(&self.registry);
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = |ip: std::net::IpAddr| ip.is_loopback();
        host == "localhost" || address.parse().is_ok_and(is_loopback)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        parse(text).map_err(|(found, hint)| RegistryError::Reference {
            reference: text.to_owned(),
            found,
            hint,
        })
    }
}

type Complaint = (String, &'static str);

fn parse(text: &str) -> Result<Reference, Complaint> {
    const FORM: &str = "write it as oci://registry/repository:tag";
    let complain = |found: &str| (found.to_owned(), FORM);
    let rest = text
        .strip_prefix(SCHEME)
        .ok_or_else(|| complain("it does not begin with oci://"))?;
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (rest, None),
    };
    let (registry, path) = rest
        .split_once('/')
        .ok_or_else(|| complain("it has no repository"))?;
    let (repository, tag) = match path.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    if !is_registry(registry) {
        return Err(complain(&format!("{registry:?} is not a host and port")));
    }
    if !is_repository(repository) {
        return Err((
            format!("{repository:?} is not a repository"),
            "a repository has lower-case letters and digits, with . _ - between them, and / between its parts",
        ));
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err((
            format!("{tag:?} is not a tag"),
            "a tag has at most 128 letters, digits and . _ -, and begins with a letter, a digit or _",
        ));
    }
    if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
        return Err((
            format!("{digest:?} is not a digest"),
            "a digest is sha256: and 64 lower-case hexadecimal digits",
        ));
    }
    if tag.is_none() && digest.is_none() {
        return Err((
            "it has neither a tag nor a digest".to_owned(),
            "write the version that you mean, such as :1.2.0; \"latest\" is not assumed",
        ));
    }
    Ok(Reference {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        tag: tag.map(ToOwned::to_owned),
        digest: digest.map(ToOwned::to_owned),
    })
}

/// The host of a registry, without the port.
fn host(registry: &str) -> &str {
    match registry.rsplit_once(':') {
        Some((host, _)) if !registry.ends_with(']') => host,
        _ => registry,
    }
}

fn is_registry(text: &str) -> bool {
    let host = host(text);
    let port = text[host.len()..].strip_prefix(':');
    let is_port = |port: &str| {
        port.parse::<u16>()
            .is_ok_and(|p| p > 0 && !port.starts_with('+'))
    };
    let is_label = |label: &str| {
        let ends = |c: char| c.is_ascii_alphanumeric();
        label.len() <= 63
            && label.starts_with(ends)
            && label.ends_with(ends)
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    let is_host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.len() <= 253 && host.split('.').all(is_label),
    };
    is_host && port.is_none_or(is_port)
}

fn is_repository(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    // Between letters: one dot, one or two underscores, or any number of dashes.
    let separates = |s: &str| matches!(s, "" | "." | "_" | "__") || s.chars().all(|c| c == '-');
    let is_part = |part: &str| {
        part.starts_with(alphanumeric)
            && part.ends_with(alphanumeric)
            && part.split(alphanumeric).all(separates)
    };
    text.len() <= 255 && text.split('/').all(is_part)
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.starts_with(word)
        && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// Whether a text is a digest of the only kind that is used here: `sha256:` and 64
/// lower-case hexadecimal digits.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    text.strip_prefix("sha256:")
        .is_some_and(|digits| digits.len() == 64 && digits.chars().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> String {
        format!("sha256:{}", "0a".repeat(32))
    }

    #[test]
    fn a_reference_is_printed_as_it_was_read() {
        let digest = digest();
        for text in [
            "oci://registry.example/team/canary:1.2.0".to_owned(),
            "oci://registry.example:5000/canary:_1".to_owned(),
            format!("oci://registry.example/canary@{digest}"),
            format!("oci://localhost:5000/a/b__c/d-----e.f:v1@{digest}"),
            "oci://[::1]:5000/canary:1".to_owned(),
            "oci://[::1]/canary:1".to_owned(),
            "oci://127.0.0.1/canary:1".to_owned(),
            format!("oci://r/c:{}", "t".repeat(128)),
        ] {
            let read: Reference = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn its_parts() {
        let text = format!("oci://r.example:5000/a/b:1@{}", digest());
        let read: Reference = text.parse().expect("a reference");
        assert_eq!(read.registry(), "r.example:5000");
        assert_eq!(read.repository(), "a/b");
        assert_eq!(read.tag(), Some("1"));
        assert_eq!(read.digest(), Some(digest().as_str()));
        assert_eq!(read.name(), "r.example:5000/a/b");
    }

    #[test]
    fn what_is_no_reference() {
        let short = "oci://r/c@sha256:abc".to_owned();
        let upper = format!("oci://r/c@sha256:{}", "0A".repeat(32));
        let other = format!("oci://r/c@sha512:{}", "0a".repeat(64));
        let long = format!("oci://r/c:{}", "t".repeat(129));
        for (text, says) in [
            ("", "does not begin with oci://"),
            ("canary.wasm", "does not begin with oci://"),
            ("https://r/c:1", "does not begin with oci://"),
            ("oci://", "no repository"),
            ("oci://r", "no repository"),
            ("oci://r/", "\"\" is not a repository"),
            ("oci:///c:1", "\"\" is not a host and port"),
            ("oci://r:0/c:1", "\"r:0\" is not a host"),
            ("oci://r:+5/c:1", "\"r:+5\" is not a host"),
            ("oci://r:65536/c:1", "not a host and port"),
            ("oci://r:/c:1", "not a host and port"),
            ("oci://-r/c:1", "not a host and port"),
            ("oci://r..s/c:1", "not a host and port"),
            ("oci://user:word@r/c:1", "no repository"),
            ("oci://r e/c:1", "not a host and port"),
            ("oci://[::g]/c:1", "not a host and port"),
            ("oci://::1/c:1", "not a host and port"),
            ("oci://r/C:1", "\"C\" is not a repository"),
            ("oci://r/../v2:1", "\"../v2\" is not a repository"),
            ("oci://r/a//b:1", "\"a//b\" is not a repository"),
            ("oci://r/a...b:1", "is not a repository"),
            ("oci://r/a___b:1", "is not a repository"),
            ("oci://r/c?x=1:1", "is not a repository"),
            ("oci://r/c%2f:1", "is not a repository"),
            ("oci://r/c:", "\"\" is not a tag"),
            ("oci://r/c:1:2", "\"1:2\" is not a tag"),
            ("oci://r/c:-1", "\"-1\" is not a tag"),
            ("oci://r/c:1\n", "is not a tag"),
            ("oci://r/c:é", "is not a tag"),
            (&long, "is not a tag"),
            ("oci://r/c", "neither a tag nor a digest"),
            ("oci://r/c@", "\"\" is not a digest"),
            (&short, "is not a digest"),
            (&upper, "is not a digest"),
            (&other, "is not a digest"),
        ] {
            let error = text.parse::<Reference>().expect_err(text).to_string();
            assert!(error.contains(says), "{text:?}: {error}");
            assert!(error.contains("hint: "), "{text:?}: {error}");
        }
    }

    #[test]
    fn which_registries_are_this_machine() {
        let is = |registry: &str| {
            let text = format!("oci://{registry}/c:1");
            let read: Reference = text.parse().expect("a reference");
            read.is_loopback()
        };
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is(registry), "{registry}");
        }
        for registry in [
            "localhost.example",
            "r:5000",
            "128.0.0.1",
            "127.0.0.1.example",
            "[::2]",
            "0.0.0.0",
        ] {
            assert!(!is(registry), "{registry}");
        }
    }
}
