//! Reads TOML tables key by key and collects every problem with its path.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::model::Millis;
use crate::model::address::socket;
use crate::model::limits::DURATION_MAX;
use crate::model::problem::{Problem, Problems, nearest};
use crate::model::secret::{is_secret_name, redacted};

/// Reads one file, and keeps the problems found so far.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
    found: RefCell<Vec<Problem>>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            found: RefCell::default(),
        }
    }

    /// The file as TOML.
    pub(super) fn table(&self) -> Result<Table, Problems> {
        self.text.parse().map_err(|e: toml::de::Error| {
            let place = e.span().map(|span| Problem::place(self.text, span.start));
            Problems(vec![Problem {
                line: place.map(|(line, _)| line),
                column: place.map(|(_, column)| column),
                // The parser quotes the line, and a credential may be in it.
                ..Problem::new("", redacted(e.to_string().trim_end()))
            }])
        })
    }

    /// The whole file, to be read key by key.
    pub(super) fn section(&self, table: Table) -> Section<'_> {
        Section::new(self, "", table)
    }

    fn add(&self, path: String, message: &str) {
        self.found.borrow_mut().push(Problem::new(path, message));
    }

    /// The value if there were no problems; else all of them, each with its place.
    pub(super) fn into_result<T>(self, value: T) -> Result<T, Problems> {
        match self.into_parts(value) {
            (value, problems) if problems.0.is_empty() => Ok(value),
            (_, problems) => Err(problems),
        }
    }

    /// The value, made of what could be read, and all problems, each with its place.
    pub(super) fn into_parts<T>(self, value: T) -> (T, Problems) {
        (value, located(self.text, self.found.into_inner()))
    }
}

/// Problems with keys of a TOML file, each with its line and column.
#[must_use]
pub fn located(text: &str, problems: Vec<Problem>) -> Problems {
    let mut places = HashMap::new();
    if !problems.is_empty()
        && let Ok(document) = DeTable::parse(text)
    {
        find_keys(document.get_ref(), "", &mut places);
    }
    Problems(problems).located(text, &places, '.')
}

/// Fills `places` with the byte at which each key of a table stands, and each key of
/// the tables and each item of the lists in it.
fn find_keys(table: &DeTable<'_>, path: &str, places: &mut HashMap<String, usize>) {
    for (key, value) in table {
        let path = match path {
            "" => key.get_ref().to_string(),
            path => format!("{path}.{}", key.get_ref()),
        };
        find_values(value.get_ref(), &path, places);
        places.insert(path, key.span().start);
    }
}

fn find_values(value: &DeValue<'_>, path: &str, places: &mut HashMap<String, usize>) {
    match value {
        DeValue::Table(inner) => find_keys(inner, path, places),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}.{index}");
                find_values(item.get_ref(), &path, places);
                places.insert(path, item.span().start);
            }
        }
        _ => {}
    }
}

/// One table of the file. Reading a key takes it out; what is left at the end
/// is unknown.
#[derive(Debug)]
pub(super) struct Section<'p> {
    reader: &'p Reader<'p>,
    path: String,
    /// Keys that the file has.
    present: Vec<String>,
    /// The keys that were not read yet, with their values.
    table: Table,
    missing: bool,
    /// Keys that were read, whether the file has them or not.
    known: Vec<String>,
}

impl<'p> Section<'p> {
    fn new(reader: &'p Reader<'p>, path: &str, table: Table) -> Self {
        Self {
            reader,
            path: path.to_owned(),
            present: table.keys().cloned().collect(),
            table,
            missing: false,
            known: vec![],
        }
    }

    fn at(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            (path, "") => path.to_owned(),
            ("", key) => key.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    pub(super) fn problem(&self, key: &str, message: &str) {
        self.reader.add(self.at(key), message);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.present.iter().any(|k| k == key)
    }

    /// The keys that are left, in order.
    pub(super) fn keys(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    pub(super) fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(Value::is_table)
    }

    /// Whether the file does not have this table at all.
    pub(super) fn is_missing(&self) -> bool {
        self.missing
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.known.push(key.to_owned());
        #[cfg(test)]
        asked(self.at(key));
        self.table.remove(key)
    }

    fn typed<T>(
        &mut self,
        key: &str,
        wanted: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let read = read(&value);
        if read.is_none() {
            let value = if is_secret_name(key) {
                "not a text".to_owned()
            } else {
                redacted(&value.to_string())
            };
            self.problem(key, &format!("is {value}; {wanted}"));
        }
        read
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.typed(key, "it must be a text in quotes", |v| {
            v.as_str().map(ToOwned::to_owned)
        })
    }

    pub(super) fn required_text(&mut self, key: &str) -> String {
        let text = self.required(key, "is missing; it must be a text in quotes", Self::text);
        if text.as_deref() == Some("") {
            self.problem(key, "is empty");
        }
        text.unwrap_or_default()
    }

    pub(super) fn path(&mut self, key: &str) -> Option<String> {
        self.typed(key, "it must be a path such as \"/healthz\"", |v| {
            v.as_str()
                .filter(|p| p.starts_with('/'))
                .map(ToOwned::to_owned)
        })
    }

    pub(super) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        self.typed(key, "it must be a list of texts, not empty", |v| {
            texts(v).filter(|list| !list.is_empty())
        })
    }

    /// A list that must be there and may be empty.
    pub(super) fn texts_or_none(&mut self, key: &str) -> Vec<String> {
        let message = "is missing; it must be a list of texts";
        self.required(key, message, |s, k| {
            s.typed(k, "it must be a list of texts", texts)
        })
        .unwrap_or_default()
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        self.typed(key, "it must be true or false", Value::as_bool)
    }

    pub(super) fn integer(&mut self, key: &str, min: u32, max: u32) -> Option<u32> {
        self.typed(
            key,
            &format!("it must be a whole number from {min} to {max}"),
            |v| {
                u32::try_from(v.as_integer()?)
                    .ok()
                    .filter(|n| (min..=max).contains(n))
            },
        )
    }

    pub(super) fn number(&mut self, key: &str, min: f64, max: f64) -> Option<f64> {
        self.typed(
            key,
            &format!("it must be a number from {min} to {max}"),
            |v| {
                #[expect(clippy::cast_precision_loss, reason = "only small numbers are valid")]
                let number = v.as_float().or_else(|| v.as_integer().map(|n| n as f64))?;
                (min..=max).contains(&number).then_some(number)
            },
        )
    }

    pub(super) fn required_number(&mut self, key: &str, min: f64, max: f64) -> f64 {
        let message = format!("is missing; it must be a number from {min} to {max}");
        self.required(key, &message, |s, k| s.number(k, min, max))
            .unwrap_or_default()
    }

    pub(super) fn duration(&mut self, key: &str) -> Option<Millis> {
        self.typed(
            key,
            "it must be a duration such as \"90s\", \"10m\" or \"2h\"",
            |v| {
                let duration: Duration = humantime::parse_duration(v.as_str()?).ok()?;
                let ms = Millis::try_from(duration.as_millis()).ok()?;
                (ms <= DURATION_MAX).then_some(ms)
            },
        )
    }

    pub(super) fn required_duration(&mut self, key: &str) -> Millis {
        self.required(
            key,
            "is missing; it must be a duration such as \"10m\"",
            Self::duration,
        )
        .unwrap_or_default()
    }

    pub(super) fn address(&mut self, key: &str) -> Option<SocketAddr> {
        self.typed(
            key,
            "it must be an address such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
            |v| socket(v.as_str()?).ok(),
        )
    }

    /// The absolute path of a file: a rollout may be resumed from another folder.
    pub(super) fn file(&mut self, key: &str) -> Option<String> {
        self.typed(
            key,
            "it must be the absolute path of a file, such as \"/etc/ssl/ca.pem\": a rollout may be resumed from another folder",
            |v| v.as_str().filter(|p| p.starts_with('/')).map(ToOwned::to_owned),
        )
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<String> = choices.iter().map(|(n, _)| format!("{n:?}")).collect();
        self.typed(key, &format!("it must be {}", names.join(" or ")), |v| {
            let text = v.as_str()?;
            choices.iter().find(|(n, _)| *n == text).map(|(_, t)| *t)
        })
    }

    pub(super) fn json(&mut self, key: &str) -> serde_json::Map<String, serde_json::Value> {
        let table = self.typed(key, "it must be a table", |v| v.as_table().cloned());
        match table.map(serde_json::to_value) {
            Some(Ok(serde_json::Value::Object(object))) => object,
            _ => serde_json::Map::new(),
        }
    }

    pub(super) fn section(&mut self, key: &str) -> Self {
        let table = self.typed(key, "it must be a table", |v| v.as_table().cloned());
        let missing = table.is_none();
        let mut section = Self::new(self.reader, &self.at(key), table.unwrap_or_default());
        section.missing = missing;
        section
    }

    /// The tables below `key`, each with its name.
    pub(super) fn named(&mut self, key: &str) -> Vec<(String, Self)> {
        let mut section = self.section(key);
        let names = section.keys();
        names
            .into_iter()
            .map(|name| {
                let inner = section.section(&name);
                (name, inner)
            })
            .collect()
    }

    fn required<T>(
        &mut self,
        key: &str,
        message: &str,
        read: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            self.take(key);
            self.problem(key, message);
            return None;
        }
        read(self, key)
    }

    /// Reports the keys that were not read: they are unknown.
    pub(super) fn finish(mut self) {
        self.finish_in_place();
    }

    pub(super) fn finish_in_place(&mut self) {
        for key in self.table.keys() {
            let known = self.known.iter().map(String::as_str);
            let message = match nearest(key, known) {
                Some(near) => format!("there is no such key; did you mean {near}?"),
                None => {
                    format!("there is no such key; there are {}", self.known.join(", "))
                }
            };
            self.problem(key, &message);
        }
        self.table.clear();
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let items = value.as_array()?.iter();
    items
        .map(|item| item.as_str().map(ToOwned::to_owned))
        .collect()
}

#[cfg(test)]
thread_local! {
    static ASKED: RefCell<Vec<String>> = const { RefCell::new(vec![]) };
}

#[cfg(test)]
fn asked(path: String) {
    ASKED.with_borrow_mut(|all| all.push(path));
}

/// The paths of all keys that are asked for meanwhile, whether a file has them or not.
#[cfg(test)]
pub(super) fn asked_in(read: impl FnOnce()) -> Vec<String> {
    ASKED.take();
    read();
    ASKED.take()
}
