//! Writes to a terminal or a pipe. Names, messages and metrics come from plugins,
//! journals, registries and targets, so whatever they contain must be shown and must
//! not control the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::model::is_hidden;

/// The styles of [`console`] that the engine uses. They are the only escape sequences
/// that are printed.
const STYLES: [&str; 9] = [
    "\u{1b}[0m",
    "\u{1b}[1m",
    "\u{1b}[2m",
    "\u{1b}[31m",
    "\u{1b}[32m",
    "\u{1b}[33m",
    "\u{1b}[34m",
    "\u{1b}[35m",
    "\u{1b}[36m",
];

/// A text in which nothing moves a cursor, turns words around or cannot be seen:
/// such characters are spelt as JSON does, so JSON stays JSON. `styled` leaves our
/// own styles, where there can be some.
#[must_use]
pub fn plain(text: &str, styled: bool) -> Cow<'_, str> {
    let harmless = |c: char| !is_hidden(c) || matches!(c, '\n' | '\t');
    if text.chars().all(harmless) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let style = STYLES
            .iter()
            .find(|style| styled && rest.starts_with(**style));
        if let Some(style) = style {
            shown.push_str(style);
            rest = &rest[style.len()..];
            continue;
        }
        if harmless(c) {
            shown.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
        rest = &rest[c.len_utf8()..];
    }
    shown.into()
}

/// The columns that a line of data may have; without limit where no terminal shows it.
pub fn width() -> usize {
    use std::io::IsTerminal as _;
    match std::io::stdout().is_terminal() {
        true => usize::from(console::Term::stdout().size().1),
        false => usize::MAX,
    }
}

/// Whether something was printed to stdout.
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Whether something was printed to stdout, which then has its one answer.
pub(super) fn has_answered() -> bool {
    ANSWERED.load(Ordering::Relaxed)
}

/// Writes to stdout. Whoever has closed the other end (`| head`) does not want the
/// rest, so a failed write is not an error.
pub(super) fn data(text: &str) {
    ANSWERED.store(true, Ordering::Relaxed);
    let text = plain(text, console::colors_enabled());
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A text for stderr, made harmless by [`plain`]. Its styles may have been made for
/// stdout, so they stay if either of the two shows colours.
pub(super) fn plain_news(text: &str) -> Cow<'_, str> {
    let styled = console::colors_enabled() || console::colors_enabled_stderr();
    plain(text, styled)
}

/// Writes to stderr.
pub(super) fn news(text: &str) {
    let text = plain_news(text);
    let _ = std::io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_harmless_stays() {
        for text in ["", "50 % äöü — █░ 日本 …\n\tnext", "a\\b \"c\""] {
            assert!(matches!(plain(text, false), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_does_something_is_spelt() {
        for (text, shown) in [
            ("\u{1b}[2J", "\\u001b[2J"),
            ("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007"),
            ("\u{9b}2J", "\\u009b2J"),
            ("a\rb\u{8}\u{7f}\0", "a\\u000db\\u0008\\u007f\\u0000"),
            ("\u{202e}abc\u{2066}", "\\u202eabc\\u2066"),
            ("a\u{200b}b\u{200f}\u{61c}", "a\\u200bb\\u200f\\u061c"),
            ("\u{feff}x\u{ad}y\u{2060}", "\\ufeffx\\u00ady\\u2060"),
            ("\u{2028}\u{2029}\u{85}", "\\u2028\\u2029\\u0085"),
            ("\u{e0041}", "\\udb40\\udc41"),
            ("\u{e0100}\u{fe0f}", "\\udb40\\udd00\\ufe0f"),
            ("\u{3164}\u{115f}", "\\u3164\\u115f"),
        ] {
            assert_eq!(plain(text, false), shown);
            assert_eq!(plain(text, true), shown);
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let all: String = ('\0'..=char::MAX).filter(|c| is_hidden(*c)).collect();
        let json = serde_json::json!({ "text": all }).to_string();
        let shown = plain(&json, false);
        assert!(!shown.contains(is_hidden));
        let read: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(read["text"], all);
    }

    #[test]
    fn only_our_own_styles_are_left() {
        let red = "\u{1b}[31mbad\u{1b}[0m";
        assert_eq!(plain(red, true), red);
        assert_eq!(plain(red, false), "\\u001b[31mbad\\u001b[0m");
        // Conceals what follows.
        assert_eq!(plain("\u{1b}[8mx", true), "\\u001b[8mx");
        assert_eq!(plain("\u{1b}[31", true), "\\u001b[31");
        assert_eq!(plain("\u{1b}", true), "\\u001b");
    }
}
