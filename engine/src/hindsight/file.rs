//! A journal as one file: JSON lines, the first says what it is, the last has
//! the digest of all before it, so that a cut or an edit is seen. Pure.

use serde::{Deserialize, Serialize};

use crate::journal::status::Status;
use crate::journal::{Entry, Event, FORMAT};
use crate::model::sha256_hex;

/// What the first line says.
const KIND: &str = "engine-journal";

/// Why a text is no journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is something else.
    #[error("it is no exported journal: {0}\n\nhint: `engine export ID` makes one")]
    Kind(String),
    /// A line cannot be read.
    #[error("line {line}: {message}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The digest of the last line is another one, or missing.
    #[error(
        "it was cut off or changed after it was exported\n  digest in the file: {expected}\n  digest of the file: {found}"
    )]
    Changed {
        /// What the last line says.
        expected: String,
        /// What it would have to say.
        found: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    kind: String,
    format: u32,
    rollout: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Last {
    sha256: String,
}

/// The file of a journal.
#[must_use]
pub fn write(entries: &[Entry]) -> String {
    let rollout = match entries.first().map(|e| &e.event) {
        Some(Event::Started(header)) => header.rollout.clone(),
        _ => String::new(),
    };
    let mut text = line(&First {
        kind: KIND.to_owned(),
        format: FORMAT,
        rollout,
    });
    for entry in entries {
        text.push_str(&line(entry));
    }
    let sha256 = sha256_hex(text.as_bytes());
    text.push_str(&line(&Last { sha256 }));
    text
}

fn line(value: &impl Serialize) -> String {
    // Our own values always have a form in JSON.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// The journal of a file.
///
/// # Errors
/// Why it is none.
pub fn read(text: &str) -> Result<Vec<Entry>, FileError> {
    let (first, _) = text.split_once('\n').unwrap_or((text, ""));
    let first: First = serde_json::from_str(first).map_err(|e| FileError::Kind(e.to_string()))?;
    if first.kind != KIND {
        return Err(FileError::Kind(format!("it is {:?}", first.kind)));
    }
    if first.format != FORMAT {
        return Err(FileError::Kind(format!(
            "it has format {}, and this engine reads format {FORMAT}",
            first.format
        )));
    }
    let before = text.trim_end_matches('\n').rfind('\n').map_or(0, |i| i + 1);
    let (body, last) = text.split_at(before);
    let found = sha256_hex(body.as_bytes());
    let expected = match serde_json::from_str::<Last>(last.trim()) {
        Ok(last) => last.sha256,
        Err(_) => "none".to_owned(),
    };
    if expected != found {
        return Err(FileError::Changed { expected, found });
    }
    let mut entries: Vec<Entry> = vec![];
    for (number, text) in (1..).zip(body.lines()).skip(1) {
        let wrong = |message: String| FileError::Line {
            line: number,
            message,
        };
        let entry: Entry = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if entry.seq as usize != entries.len() {
            return Err(wrong(format!("entry {} is out of order", entry.seq)));
        }
        entries.push(entry);
    }
    if Status::of(&entries).is_none() {
        return Err(FileError::Kind("it has no beginning".to_owned()));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::End;
    use crate::rollout::fixture::header;

    fn journal() -> Vec<Entry> {
        let entry = |seq, event| Entry {
            seq,
            at: 1_000_000 + u64::from(seq),
            epoch: 1,
            event,
        };
        vec![
            entry(0, Event::Started(Box::new(header()))),
            entry(
                1,
                Event::Ended {
                    end: End::Promoted,
                    reason: "good\nand new".to_owned(),
                },
            ),
        ]
    }

    #[test]
    fn a_journal_comes_back_as_it_was() {
        let text = write(&journal());
        assert_eq!(text.lines().count(), 4);
        assert_eq!(read(&text), Ok(journal()));
    }

    #[test]
    fn a_cut_and_an_edit_are_seen() {
        let text = write(&journal());
        for cut in [text.len() / 2, text.len() - 20, text.len() - 80] {
            let cut = read(&text[..cut]).expect_err("cut");
            assert!(matches!(cut, FileError::Changed { .. }), "{cut}");
        }
        let edited = text.replace("good", "best");
        assert!(matches!(read(&edited), Err(FileError::Changed { .. })));
        for other in [
            "",
            "{}",
            "[1]\n",
            "{\"kind\":\"engine-journal\",\"format\":9,\"rollout\":\"x\"}",
        ] {
            assert!(matches!(read(other), Err(FileError::Kind(_))), "{other}");
        }
    }
}
