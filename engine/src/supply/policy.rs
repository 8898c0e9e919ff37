//! The policies of this host, and what a policy asks of bytes that nobody has
//! looked into yet.

use std::io;
use std::path::{Path, PathBuf};

use super::{Demands, Rule, SupplyError, files};
use crate::spec::policy::Policy;

/// Where the policy of this host is.
const HOST: &str = "/etc/engine/policy.toml";

/// The files with the policies of this host. The one that the environment names
/// comes on top of what the host has, or whoever sets it could take rules away.
fn of_host(named: Option<&Path>) -> impl Iterator<Item = &Path> {
    [Path::new(HOST)].into_iter().chain(named)
}

/// What all policies of this host allow. `named` is the file that the environment
/// names: it must be there, or its absence would allow everything. Paths of keys
/// are relative to the file that has them.
///
/// # Errors
/// A policy is wrong or cannot be read.
pub fn host(named: Option<&Path>) -> Result<Policy, SupplyError> {
    let mut all = Policy::default();
    for file in of_host(named) {
        let wrong = |message: String| SupplyError::HostPolicy {
            file: file.display().to_string(),
            message,
        };
        // A link that leads nowhere, or a folder that may not be read, is not the
        // same as no policy.
        let absent = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
        if file == Path::new(HOST) && file.symlink_metadata().is_err_and(absent) {
            continue;
        }
        let text =
            files::read_text(file, files::TEXT_BYTES_MAX).map_err(|e| wrong(e.to_string()))?;
        let mut policy =
            Policy::parse(&text).map_err(|e| wrong(format!("\n{}", e.in_file(file.display()))))?;
        for key in policy.signers.iter_mut().flatten() {
            *key = file.with_file_name("").join(&*key).display().to_string();
        }
        all = all.stricter(policy);
    }
    Ok(all)
}

/// What a policy of the rollout file and of the host asks of the bytes of a plugin,
/// before anything compiles them. `named` is as in [`host`].
#[must_use]
pub fn demands(policy: &Policy, named: Option<&Path>) -> Demands {
    let said_in: Vec<String> = of_host(named).map(|f| f.display().to_string()).collect();
    let groups = policy.signers.iter();
    let rules = groups.map(|group| Rule {
        keys: group.iter().map(PathBuf::from).collect(),
        said_in: format!(
            "the policy of the rollout file or of the host ({})",
            said_in.join(", ")
        ),
    });
    Demands {
        digests: policy.digests.clone(),
        rules: rules.collect(),
    }
}
