//! What can go wrong between here and a registry.

/// Why a plugin was not pulled or pushed. The variants are what a caller sorts
/// by; the texts are for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The request makes no sense; nothing was sent.
    #[error("{reference:?} cannot be used: {found}\n\nhint: {hint}")]
    Reference {
        /// What was given.
        reference: String,
        /// What is wrong with it.
        found: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file on this machine is at fault; nothing was sent.
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
        "{reference}: the registry does not have it ({answer})\n\nhint: check the repository and the tag; some registries also say this to those who may not read"
    )]
    NotFound {
        /// What was looked for.
        reference: String,
        /// What the registry said.
        answer: String,
    },
    /// The registry wants to know who asks, or does not let them.
    #[error(
        "{reference}: the registry does not allow this ({answer}); it was asked {asked}\n\nhint: docker login {registry}"
    )]
    Denied {
        /// What was asked for.
        reference: String,
        /// What the registry said.
        answer: String,
        /// With which credentials.
        asked: String,
        /// Its host.
        registry: String,
    },
    /// The registry gave something that is not used.
    #[error("{reference}: {content}")]
    Rejected {
        /// Where it came from.
        reference: String,
        /// What is wrong with it.
        content: Rejected,
    },
    /// The registry was not reached, fell silent, or failed.
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

/// Why what a registry gave is not used. Trying again would not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The bytes are not the ones that were asked for.
    #[error(
        "the digest of the {what} is not the expected one\n  expected: {expected}\n  found:    {found}\n\nhint: the registry, or something before it, changed the bytes; do not use them"
    )]
    Digest {
        /// "manifest" or "layer".
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What the bytes have.
        found: String,
    },
    /// It says of itself that it is too big.
    #[error(
        "the {what} has {bytes} bytes and the limit is {max}\n\nhint: check that this is a plugin, or raise the limit"
    )]
    TooLarge {
        /// "manifest", "layer"...
        what: &'static str,
        /// What the manifest says.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// It does not end where such things end.
    #[error(
        "the {what} has more than {max} bytes\n\nhint: the registry, or something before it, is broken or hostile"
    )]
    Endless {
        /// "manifest".
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// There are more bytes than the manifest says.
    #[error(
        "the {what} goes on after the {expected} bytes that its manifest declares\n\nhint: the registry, or something before it, is broken or hostile"
    )]
    Overlong {
        /// "layer" or "signature".
        what: &'static str,
        /// What the manifest says.
        expected: u64,
    },
    /// There are fewer bytes than the manifest says.
    #[error(
        "the {what} ends after {found} of {expected} bytes\n\nhint: the registry, or something before it, is broken; push the plugin again"
    )]
    Truncated {
        /// "layer" or "signature".
        what: &'static str,
        /// What the manifest says.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// It is something else than a plugin.
    #[error("{found}\n\nhint: {hint}")]
    Kind {
        /// What it is.
        found: String,
        /// What to do.
        hint: &'static str,
    },
}
