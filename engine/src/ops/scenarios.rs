//! Files of scenarios.

use std::path::Path;

use super::{Error, Result};
use crate::simulate::replicate::Subject;
use crate::simulate::scenario::{Corpus, Scenario};
use crate::supply::files;

/// Reads a file of scenarios, and adds what the file says for all of them to the
/// subject.
///
/// # Errors
/// The file cannot be read or has problems.
pub fn read(path: &Path, subject: &mut Subject) -> Result<Vec<Scenario>> {
    let shown = path.display();
    let text = files::read_text(path, files::TEXT_BYTES_MAX)
        .map_err(|e| Error::usage(format!("failed to read scenario {shown}: {e}")))?;
    let corpus = Corpus::parse(&text).map_err(|problems| {
        let all = problems.located_in(&shown.to_string());
        Error::problems(format!("{shown} cannot be read as scenarios:"), all)
    })?;
    for fault in &corpus.faults {
        let fault = fault
            .parse()
            .map_err(|e| Error::usage(format!("{shown}: faults: {e}")))?;
        subject.faults.push(fault);
    }
    subject.values = corpus.queries;
    subject.approvals = corpus.approvals.unwrap_or(subject.approvals);
    Ok(corpus.scenarios)
}
