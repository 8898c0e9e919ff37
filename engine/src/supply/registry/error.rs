//! What can go wrong between here and a registry.

/// Why a plugin was not pulled or pushed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The reference is invalid; nothing was sent.
    #[error("{reference:?} cannot be used: {found}\n\nhint: {hint}")]
    Reference {
        /// The reference.
        reference: String,
        /// What is wrong with it.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file on this machine is invalid or missing; nothing was sent.
    #[error("{file}: {found}\n\nhint: {hint}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong with it.
        found: String,
        /// What to do.
        hint: String,
    },
    /// The registry has no such repository, tag, manifest or blob.
    #[error(
        "{reference}: the registry does not have it ({answer})\n\nhint: check the repository and the tag; some registries give this answer also if the credentials do not permit reading"
    )]
    NotFound {
        /// What was asked for.
        reference: String,
        /// What the registry said.
        answer: String,
    },
    /// The registry demands credentials, or does not permit this with those given.
    #[error(
        "{reference}: the registry does not allow this ({answer}); it was asked {asked}\n\nhint: docker login {registry}"
    )]
    Denied {
        /// What was asked for.
        reference: String,
        /// What the registry said.
        answer: String,
        /// The credentials that were used.
        asked: String,
        /// The registry's host.
        registry: String,
    },
    /// The registry's answer was refused.
    #[error("{reference}: {content}")]
    Rejected {
        /// Where it came from.
        reference: String,
        /// What is wrong with it.
        content: Rejected,
    },
    /// The registry could not be reached, stopped answering, or failed.
    #[error("{reference}: {found}\n\nhint: {hint}")]
    Network {
        /// What was asked for.
        reference: String,
        /// What happened.
        found: String,
        /// What to do.
        hint: &'static str,
    },
}

/// Why an answer of a registry is refused. Trying again would not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The bytes are not the ones that were asked for.
    #[error(
        "the digest of the {what} is not the expected one\n  expected: {expected}\n  found:    {found}\n\nhint: the registry, or a proxy before it, changed the bytes; do not use them"
    )]
    Digest {
        /// "manifest" or "layer".
        what: &'static str,
        /// The digest that was expected.
        expected: String,
        /// The digest of the bytes.
        found: String,
    },
    /// The declared size is above the limit.
    #[error(
        "the {what} has {bytes} bytes and the limit is {max}\n\nhint: check that this is a plugin, or raise the limit"
    )]
    TooLarge {
        /// "manifest", "layer" and so on.
        what: &'static str,
        /// The size that the manifest declares.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The answer is longer than the limit.
    #[error(
        "the {what} has more than {max} bytes\n\nhint: the registry, or a proxy before it, is broken or hostile"
    )]
    Endless {
        /// "manifest".
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// There are more bytes than the manifest declares.
    #[error(
        "the {what} goes on after the {expected} bytes that its manifest declares\n\nhint: the registry, or a proxy before it, is broken or hostile"
    )]
    Overlong {
        /// "layer" or "signature".
        what: &'static str,
        /// The size that the manifest declares.
        expected: u64,
    },
    /// There are fewer bytes than the manifest declares.
    #[error(
        "the {what} ends after {found} of {expected} bytes\n\nhint: the registry, or a proxy before it, is broken; push the plugin again"
    )]
    Truncated {
        /// "layer" or "signature".
        what: &'static str,
        /// The size that the manifest declares.
        expected: u64,
        /// The bytes that came.
        found: u64,
    },
    /// It is not a plugin.
    #[error("{found}\n\nhint: {hint}")]
    Kind {
        /// What it is.
        found: String,
        /// What to do.
        hint: &'static str,
    },
}
