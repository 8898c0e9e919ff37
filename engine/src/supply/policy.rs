//! The policies of this host, and what a policy demands of bytes before they are
//! parsed.

use std::io;
use std::path::{Path, PathBuf};

use super::{Demands, Rule, SupplyError, files};
use crate::spec::policy::Policy;

/// The policy file of this host.
const HOST: &str = "/etc/engine/policy.toml";

/// The policy files of this host. The one that the environment names is added to
/// the host's own, or whoever sets the variable could remove rules.
fn of_host(named: Option<&Path>) -> impl Iterator<Item = &Path> {
    [Path::new(HOST)].into_iter().chain(named)
}

/// The union of the policies of this host. `named` is the file that the environment
/// names: it must exist, or its absence would allow everything. Paths of keys are
/// relative to the file that has them.
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
        // A broken link, or a folder that may not be read, is not the same as no
        // policy.
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

/// What a policy of the rollout file and of the host demands of a plugin's bytes
/// before they are compiled. `named` is as in [`host`].
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
