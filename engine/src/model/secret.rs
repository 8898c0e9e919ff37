//! Secrets in the texts of a rollout file, which may name them and must not contain
//! them.
//!
//! Many people read a rollout file, and what it says goes into journals, exports, logs
//! and messages. So a credential is a reference, `${NAME}` for a variable of the
//! environment or `${file:/PATH}` for a file, and only the code that sends a request
//! reads its value. `spec` refuses a credential that stands in a text itself; one in an
//! older journal is not shown. Pure.

/// What is shown in place of a secret.
const MASK: &str = "***";
/// Words that mark the name of a credential, as the last word of the name.
const NAMES: [&str; 20] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "apikey",
    "signature",
    "credential",
    "credentials",
    "authorization",
    "jwt",
    "api-key",
    "access-key",
    "secret-key",
    "private-key",
    "account-key",
    "cookie",
    "session-id",
    "pass",
];
/// More such words, in the query of a URL and as the name of a header.
const SHORT_NAMES: [&str; 4] = ["key", "sig", "auth", "pw"];
/// What comes before a credential in a header.
const SCHEMES: [&str; 4] = ["bearer ", "basic ", "token ", "apikey "];

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// A text without references, as it is.
    Text(&'a str),
    /// The value of a variable of the environment.
    Env(&'a str),
    /// The contents of a file, by its absolute path.
    File(&'a str),
}

/// The parts of a text with references.
///
/// # Errors
/// What is wrong with a reference.
pub fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = vec![];
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if start > 0 {
            parts.push(Part::Text(&rest[..start]));
        }
        let inner = &rest[start + 2..];
        let end = inner
            .find('}')
            .ok_or("has ${ without its }; write ${NAME} or ${file:/PATH}")?;
        let name = &inner[..end];
        parts.push(match name.strip_prefix("file:") {
            Some(path) if path.starts_with('/') => Part::File(path),
            Some(_) => {
                return Err(
                    "names a file by a relative path; a rollout may be resumed from another folder, so write ${file:/PATH}"
                        .to_owned(),
                );
            }
            None if is_variable(name) => Part::Env(name),
            None => {
                return Err(
                    "has a reference that is neither ${NAME}, a variable of the environment, nor ${file:/PATH}"
                        .to_owned(),
                );
            }
        });
        rest = &inner[end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    Ok(parts)
}

fn is_variable(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(word) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Whether what has this name is a credential.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = plain(name);
    let fits = |known: &str| {
        name.strip_suffix(known).is_some_and(|before| {
            // `accessToken` is one, and `tokens` or `sub-token-count` is not.
            before.is_empty() || before.ends_with('-') || known.len() > 4
        })
    };
    NAMES.iter().any(|known| fits(known))
}

/// Whether a credential has this name in the query of a URL or as a header, where short
/// names are usual too.
pub(crate) fn is_secret_key(name: &str) -> bool {
    let last = plain(name);
    let last = last.rsplit('-').next().unwrap_or_default();
    SHORT_NAMES.contains(&last) || is_secret_name(name)
}

/// A name in words: `DB_PASS`, `db.pass` and `dbPass` are `db-pass`.
fn plain(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 4);
    let mut before = '-';
    for c in name.trim_start_matches('-').chars() {
        if before.is_ascii_lowercase() && c.is_ascii_uppercase() {
            words.push('-');
        }
        words.push(match c {
            '_' | '.' => '-',
            c => c.to_ascii_lowercase(),
        });
        before = c;
    }
    words
}

/// Where a text contains a credential instead of a reference to one: ranges of bytes, in
/// order.
pub(crate) fn literals(text: &str) -> Vec<std::ops::Range<usize>> {
    let hidden = without_references(text);
    let is_literal = |range: &std::ops::Range<usize>| {
        let value = &hidden[range.clone()];
        let named = is_filled_in(value) || value == MASK;
        !named && value.chars().any(|c| c != '\0')
    };
    let mut found: Vec<_> = user_infos(&hidden)
        .into_iter()
        .chain(assignments(&hidden))
        .chain(schemes(&hidden))
        .filter(is_literal)
        .collect();
    found.sort_by_key(|range| (range.start, range.end));
    found
}

/// Whether an address names a user, which the engine does not send with a request.
#[must_use]
pub fn has_user(address: &str) -> bool {
    !user_infos(&without_references(address)).is_empty()
}

/// The text with each byte of its references replaced by a zero, so that positions stay.
fn without_references(text: &str) -> String {
    let mut hidden = text.to_owned();
    let mut from = 0;
    while let Some(start) = hidden[from..].find("${").map(|i| i + from) {
        let Some(end) = hidden[start..].find('}').map(|i| i + start + 1) else {
            break;
        };
        hidden.replace_range(start..end, &"\0".repeat(end - start));
        from = end;
    }
    hidden
}

/// What stands between `://` and `@`: the password, or all of it.
fn user_infos(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = vec![];
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let end = text[start..].find(|c: char| "/?#\"'<> \n\t\\".contains(c));
        let authority = &text[start..end.map_or(text.len(), |i| i + start)];
        if let Some(at) = authority.rfind('@') {
            let password = authority[..at].find(':').map_or(0, |i| i + 1);
            found.push(start + password..start + at);
        }
    }
    found
}

/// Values of `name=value`, `name = "value"` and `"name": "value"`.
fn assignments(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = vec![];
    for (at, sign) in text.char_indices().filter(|(_, c)| matches!(c, '=' | ':')) {
        let before = text[..at].trim_end_matches([' ', '"', '\'']);
        let start = before.rfind(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
        let name = &before[start.map_or(0, |i| {
            i + before[i..].chars().next().map_or(1, char::len_utf8)
        })..];
        let in_url = start.is_some_and(|i| before[i..].starts_with(['?', '&', ';']));
        // The colon of `http://` does not assign a value.
        let known = if in_url {
            is_secret_key(name)
        } else {
            is_secret_name(name)
        };
        if name.is_empty() || !known || sign == ':' && text[at..].starts_with("://") {
            continue;
        }
        let after = &text[at + 1..];
        let value = after.trim_start_matches([' ', '"', '\'']);
        let start = at + 1 + (after.len() - value.len());
        let end = value.find(|c: char| "&;#\"'<> \n\t,\\".contains(c));
        let end = end.map_or(text.len(), |i| i + start);
        if start < end {
            found.push(start..end);
        }
    }
    found
}

/// What follows `Bearer` and its like.
fn schemes(text: &str) -> Vec<std::ops::Range<usize>> {
    let lower = text.to_ascii_lowercase();
    let mut found = vec![];
    for scheme in SCHEMES {
        for (at, _) in lower.match_indices(scheme) {
            let starts = lower[..at]
                .chars()
                .next_back()
                .is_none_or(|c| !c.is_alphanumeric());
            let start = at + scheme.len();
            let end = text[start..].find(|c: char| "\"'<> \n\t,;\\".contains(c));
            let end = end.map_or(text.len(), |i| i + start);
            // In a sentence, `basic` is followed by a shorter word, or by nothing.
            if starts && end - start >= 8 {
                found.push(start..end);
            }
        }
    }
    found
}

/// The text without its credentials, for people.
#[must_use]
pub fn redacted(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    for range in literals(text) {
        if range.start >= from {
            shown.push_str(&text[from..range.start]);
            shown.push_str(MASK);
            from = range.end;
        } else if range.end > from {
            from = range.end;
        }
    }
    shown.push_str(&text[from..]);
    shown
}

/// A list of arguments without its credentials.
#[must_use]
pub fn redacted_arguments(arguments: &[String]) -> Vec<String> {
    let mut shown: Vec<String> = arguments.iter().map(|a| redacted(a)).collect();
    for index in 1..arguments.len() {
        if is_value_of(&arguments[index - 1], &arguments[index]) {
            MASK.clone_into(&mut shown[index]);
        }
    }
    shown
}

/// Whether `value` is the credential that the flag before it asks for.
pub(crate) fn is_value_of(flag: &str, value: &str) -> bool {
    flag.starts_with('-')
        && !flag.contains('=')
        && is_secret_name(flag)
        && !value.starts_with('-')
        && is_plain(value)
}

/// Whether a text is a value itself and not a reference to one.
pub(crate) fn is_plain(text: &str) -> bool {
    let hidden = without_references(text);
    // A scheme before the reference, as in `Bearer ${TOKEN}`, is not a secret itself.
    let rest = hidden.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let referred = hidden.contains('\0') && rest.chars().all(|c| c == '\0' || c == ' ');
    !text.is_empty() && !referred && !is_filled_in(text)
}

/// A shell's variable, `$NAME` and no more, or a word that is filled in, `{name}`.
fn is_filled_in(text: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    let filled = text.strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    text.strip_prefix('$').or(filled).is_some_and(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_words() {
        for name in [
            "DB_PASS",
            "dbPass",
            "--pass",
            "AccountKey",
            "secretKey",
            "x-session-id",
            "apiKey",
            "APIKey",
            "access.token",
            "PGPASSWORD",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "bypass",
            "compass",
            "tokens",
            "max-tokens",
            "passes",
            "session",
            "keyboard",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
        for name in ["x-auth", "sig", "x-functions-key"] {
            assert!(is_secret_key(name), "{name}");
        }
        for name in ["author", "monkey", "design"] {
            assert!(!is_secret_key(name), "{name}");
        }
    }

    #[test]
    fn credentials_are_masked_wherever_they_stand() {
        for (text, shown) in [
            ("http://user:S3CRET@h:1/x?a=b", "http://user:***@h:1/x?a=b"),
            ("https://S3CRET@h/x", "https://***@h/x"),
            ("http://u:a@S3CRET@h/", "http://u:***@h/"),
            (
                "http://h/x?token=S3CRET&arm={arm}",
                "http://h/x?token=***&arm={arm}",
            ),
            (
                "http://h/x?a=1&api_key=S3CRET",
                "http://h/x?a=1&api_key=***",
            ),
            ("/x?X-Amz-Signature=S3CRET#y", "/x?X-Amz-Signature=***#y"),
            ("/x?sig=S3CRET", "/x?sig=***"),
            ("/x?key=S3CRET", "/x?key=***"),
            ("?accessToken=S3CRET", "?accessToken=***"),
            ("Bearer S3CRET-TOKEN", "Bearer ***"),
            (
                "authorization = \"Basic S3CRETS3CRET\"",
                "authorization = \"***\"",
            ),
            ("password = 'S3CRET'", "password = '***'"),
            ("{\"token\": \"S3CRET\"}", "{\"token\": \"***\"}"),
            ("--db-password=S3CRET", "--db-password=***"),
            ("API_TOKEN=S3CRET", "API_TOKEN=***"),
        ] {
            let found = redacted(text);
            assert!(!found.contains("S3CRET"), "{text}: {found}");
            if !text.starts_with("authorization") {
                assert_eq!(found, shown, "{text}");
            }
            assert_eq!(redacted(&found), found, "twice is once");
        }
    }

    #[test]
    fn what_is_none_stays_as_it_is() {
        for text in [
            "http://h:9090/x?arm={arm}&since={since}",
            "https://${USER}:${PW}@h/x?token=${TOKEN}",
            "https://user:${file:/run/pw}@h/",
            "http://h/?token={version}",
            "Bearer ${TOKEN}",
            "sum(rate(tokens_total{service=\"{service}\"}[5m]))",
            "max-tokens=5",
            "the token bucket",
            "./server --token $API_TOKEN",
            "python3 serve.py --port {port}",
            "a@b",
            "größe=1 ü:token",
        ] {
            assert_eq!(redacted(text), text);
        }
    }

    #[test]
    fn references_are_read_strictly() {
        assert_eq!(
            parts("a${B_1}c${file:/d e}"),
            Ok(vec![
                Part::Text("a"),
                Part::Env("B_1"),
                Part::Text("c"),
                Part::File("/d e")
            ])
        );
        assert_eq!(parts("$x {arm}"), Ok(vec![Part::Text("$x {arm}")]));
        for wrong in [
            "${",
            "${}",
            "${1A}",
            "${A-B}",
            "${file:x}",
            "${env:A}",
            "${A",
        ] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments_after_a_flag_are_masked() {
        let given = ["run", "--token", "S3CRET", "--password", "$PW", "-v"];
        let given = given.map(ToOwned::to_owned);
        let shown = redacted_arguments(&given);
        assert_eq!(shown, ["run", "--token", "***", "--password", "$PW", "-v"]);
    }
}
