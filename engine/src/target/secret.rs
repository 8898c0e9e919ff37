//! Replaces the references to secrets in a rollout file, when a request is sent.

use std::io::Read as _;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::model::secret::{Part, parts, redacted};

/// Longest secret in a file, bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A text with its secrets filled in. It is sent, and never shown.
pub struct Filled {
    /// What to send.
    pub text: String,
    /// What to show instead.
    pub shown: String,
    secrets: Vec<(String, String)>,
}

impl Filled {
    /// The value of a header that sends this name with that password (RFC 7617).
    pub(super) fn login(&self, password: &Self) -> Self {
        let together = format!("{}:{}", self.text, password.text);
        let encoded = BASE64_STANDARD.encode(together);
        Self {
            text: format!("Basic {encoded}"),
            shown: "Basic ***".to_owned(),
            secrets: vec![(encoded, "***".to_owned())],
        }
    }

    /// A message without the secrets, in case the other side has repeated them.
    pub(super) fn scrub(&self, message: &str) -> String {
        let scrub = |text: String, (secret, name): &(String, String)| text.replace(secret, name);
        self.secrets.iter().fold(message.to_owned(), scrub)
    }
}

/// Replaces the references of `text`; `words` replaces its other placeholders.
///
/// # Errors
/// Names the secret that cannot be read.
pub fn fill(text: &str, words: impl Fn(&str) -> String) -> Result<Filled, String> {
    let mut filled = Filled {
        text: String::new(),
        shown: String::new(),
        secrets: vec![],
    };
    for part in parts(text)? {
        let (secret, name) = match part {
            Part::Text(text) => {
                let text = words(text);
                filled.text.push_str(&text);
                filled.shown.push_str(&text);
                continue;
            }
            Part::Env(name) => (variable(name)?, format!("${{{name}}}")),
            Part::File(path) => (contents(path)?, format!("${{file:{path}}}")),
        };
        filled.text.push_str(&secret);
        filled.shown.push_str(&name);
        filled.secrets.push((secret, name));
    }
    filled.shown = redacted(&filled.shown);
    Ok(filled)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the rollout file names the variable"
)]
fn variable(name: &str) -> Result<String, String> {
    let missing = || {
        format!(
            "the environment of this process has no {name}, which it names; set it, also for `engine resume`"
        )
    };
    let value = std::env::var(name).map_err(|_| missing())?;
    checked(&value, missing)
}

fn contents(path: &str) -> Result<String, String> {
    let failed = |why: &str| format!("the file {path}, which it names, {why}");
    // Reading a pipe or a device might never end.
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => return Err(failed("is not a file")),
        Err(error) => return Err(failed(&format!("cannot be read: {error}"))),
    }
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| failed(&format!("cannot be read: {error}")))?;
    checked(text.trim_end_matches(['\r', '\n']), || {
        failed("does not hold exactly one line of text")
    })
}

/// The value is put into a URL or a header, so it must be one line and not empty.
fn checked(value: &str, wrong: impl Fn() -> String) -> Result<String, String> {
    if value.is_empty() || value.chars().any(char::is_control) {
        return Err(wrong());
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_filled_in_and_never_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pw");
        std::fs::write(&path, "S3CRET\n").expect("writable");
        let text = format!(
            "http://u:${{file:{}}}@{{arm}}/?token=LITERAL",
            path.display()
        );
        let filled = fill(&text, |t| t.replace("{arm}", "canary")).expect("there");
        assert_eq!(filled.text, "http://u:S3CRET@canary/?token=LITERAL");
        assert!(
            filled.shown.ends_with("@canary/?token=***"),
            "{}",
            filled.shown
        );
        assert!(!filled.shown.contains("S3CRET"), "{}", filled.shown);
        assert!(!filled.scrub("you said S3CRET").contains("S3CRET"));
        for (wrong, says) in [
            ("".to_owned(), "exactly one line of text"),
            ("a\nb".to_owned(), "exactly one line of text"),
        ] {
            std::fs::write(&path, wrong).expect("writable");
            let error = fill(&text, str::to_owned).err().expect("no secret");
            assert!(error.contains(says), "{error}");
        }
        let error = fill("${file:/dev/zero}", str::to_owned)
            .err()
            .expect("a device");
        assert!(error.contains("is not a file"), "{error}");
        let error = fill("${ENGINE_TEST_NO_SUCH}", str::to_owned)
            .err()
            .expect("not set");
        assert!(error.contains("has no ENGINE_TEST_NO_SUCH"), "{error}");
    }
}
