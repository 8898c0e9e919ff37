//! A journal as one file of JSON lines. The first line says what the file is, and the last
//! has the digest of all lines before it, so that a cut or an edit is noticed. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::status::Status;
use crate::journal::{Entry, Event, FORMAT};
use crate::model::{is_control, is_name, sha256_hex};

/// The kind in the first line.
const KIND: &str = "engine-journal";

/// Why a text is not a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It is not a journal.
    #[error("it is not an exported journal: {0}\n\nhint: `engine export ID` makes one")]
    Kind(String),
    /// A line cannot be read.
    #[error("line {line}: {message}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The digest of the last line does not match, or is missing.
    #[error(
        "it was cut off or changed after it was exported\n  digest in the file: {expected}\n  digest of the file: {found}"
    )]
    Changed {
        /// The digest in the last line.
        expected: String,
        /// The digest of the lines before it.
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
    for (place, entry) in entries.iter().enumerate() {
        match &entry.event {
            // Entries are written as they were stored.
            Event::Started(header) if place == 0 => {
                // Older journals may contain credentials, and the file goes to others.
                let mut header = header.without_secrets();
                // It is a place on this machine, where the file goes to others.
                header.file = None;
                if let Some(identity) = header.identity.strip_prefix(IMPORTED) {
                    header.identity = identity.to_owned();
                }
                let event = Event::Started(Box::new(header));
                text.push_str(&line(&Entry {
                    event,
                    ..entry.clone()
                }));
            }
            _ => text.push_str(&line(entry)),
        }
    }
    let sha256 = sha256_hex(text.as_bytes());
    text.push_str(&line(&Last { sha256 }));
    text
}

fn line(value: &impl Serialize) -> String {
    // Values of these types can always be written as JSON.
    let mut text = serde_json::to_string(value).unwrap_or_default();
    text.push('\n');
    text
}

/// Reads the journal in a file.
///
/// # Errors
/// Why the text is not an exported journal.
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
        let mut value: Value = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        show_plainly(&mut value);
        let entry: Entry = serde_json::from_value(value).map_err(|e| wrong(e.to_string()))?;
        if entry.seq as usize != entries.len() {
            return Err(wrong(format!("entry {} is out of order", entry.seq)));
        }
        match (&entry.event, entries.last().map(|e| &e.event)) {
            (Event::Started(header), None) if !is_name(header.rollout.trim_start_matches('-')) => {
                return Err(wrong(format!(
                    "{:?} is not the id of a rollout, which is made of letters, digits, - and _",
                    header.rollout
                )));
            }
            (Event::Started(_), None) => {}
            (Event::Started(_), Some(_)) => {
                return Err(wrong("it has a second first entry".to_owned()));
            }
            (_, Some(Event::Ended { .. })) => {
                return Err(wrong("it goes on after its end".to_owned()));
            }
            _ => {}
        }
        entries.push(entry);
    }
    if Status::of(&entries).is_none() {
        return Err(FileError::Kind(
            "its first entry, which says what the rollout is, is missing".to_owned(),
        ));
    }
    Ok(entries)
}

/// Replaces control characters by spaces, because a journal is shown on terminals.
fn show_plainly(value: &mut Value) {
    match value {
        Value::String(text) => {
            let bad = |c: char| is_control(c) && !matches!(c, '\n' | '\t');
            if text.contains(bad) {
                *text = text.replace(bad, " ");
            }
        }
        Value::Array(values) => values.iter_mut().for_each(show_plainly),
        Value::Object(values) => values.values_mut().for_each(show_plainly),
        _ => {}
    }
}

/// The journal as the engine that imports it keeps it. Its target gets another identity,
/// because a target of that name here may be another one.
#[must_use]
pub fn imported(mut entries: Vec<Entry>) -> Vec<Entry> {
    if let Some(Event::Started(header)) = entries.first_mut().map(|e| &mut e.event)
        && !header.identity.starts_with(IMPORTED)
    {
        header.identity.insert_str(0, IMPORTED);
    }
    entries
}

/// Prefix of the target's identity in an imported journal.
const IMPORTED: &str = "imported ";

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
    fn nothing_of_it_moves_a_cursor_or_names_a_path() {
        let with = |edit: fn(&mut crate::journal::Header)| {
            let mut entries = journal();
            if let Event::Started(header) = &mut entries[0].event {
                edit(header);
            }
            read(&write(&entries))
        };
        let shown = with(|h| h.engine = "1\u{1b}[2J\u{202e}2".to_owned()).expect("a journal");
        let Event::Started(header) = &shown[0].event else {
            panic!("a beginning");
        };
        assert_eq!(header.engine, "1 [2J 2");
        for id in ["", "../x", "/etc/passwd", "a b"] {
            let id = id.to_owned();
            let mut entries = journal();
            if let Event::Started(header) = &mut entries[0].event {
                header.rollout = id;
            }
            let error = read(&write(&entries)).expect_err("no id").to_string();
            assert!(error.contains("is not the id of a rollout"), "{error}");
        }
    }

    #[test]
    fn an_imported_one_is_about_no_target_of_here() {
        let once = imported(journal());
        let Event::Started(header) = &once[0].event else {
            panic!("a beginning");
        };
        assert!(header.identity.starts_with(IMPORTED), "{}", header.identity);
        assert_eq!(imported(once.clone()), once);
        assert_eq!(write(&once), write(&journal()), "it goes out as it came in");
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
        for (wrong, says) in [
            (vec![0, 1, 1], "after its end"),
            (vec![0, 0], "a second first entry"),
        ] {
            let wrong: Vec<Entry> = (0..)
                .zip(wrong)
                .map(|(seq, i)| Entry {
                    seq,
                    ..journal()[i].clone()
                })
                .collect();
            let error = read(&write(&wrong)).expect_err("wrong").to_string();
            assert!(error.contains(says), "{error}");
        }
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
