//! Finds credentials that stand in a rollout file itself, where only references to
//! them may stand.

use toml::{Table, Value};

use crate::model::secret::{is_plain, is_secret_key, is_secret_name, is_value_of, literals};

/// Paths of the texts in a table that contain a credential instead of a reference to
/// one.
#[must_use]
pub fn in_table(table: &Table) -> Vec<String> {
    let mut found = vec![];
    for (key, value) in table {
        walk(key, key, value, &mut found);
    }
    found
}

fn walk(path: &str, key: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let in_headers = path.split('.').nth_back(1) == Some("headers");
            let named = if in_headers {
                is_secret_key(key)
            } else {
                is_secret_name(key)
            };
            if named && is_plain(text) || !literals(text).is_empty() {
                found.push(path.to_owned());
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let at = format!("{path}.{index}");
                let before = index.checked_sub(1).and_then(|i| items[i].as_str());
                match (before, item.as_str()) {
                    (Some(flag), Some(text)) if is_value_of(flag, text) => found.push(at),
                    _ => walk(&at, key, item, found),
                }
            }
        }
        Value::Table(table) => {
            for (key, value) in table {
                walk(&format!("{path}.{key}"), key, value, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_searched_whole() {
        let table: Table = r#"
            [a.headers]
            authorization = "whatever"
            x-key = "S3CRET"
            accept = "text/plain"
            cookie = "${C}"
            [b]
            command = ["x", "--token", "S3CRET", "--url=http://u:S3CRET@h"]
            list = [{ password = "S3CRET" }]
            max-tokens = "5"
        "#
        .parse()
        .expect("TOML");
        let mut found = in_table(&table);
        found.sort();
        let paths = [
            "a.headers.authorization",
            "a.headers.x-key",
            "b.command.2",
            "b.command.3",
            "b.list.0.password",
        ];
        assert_eq!(found, paths);
    }
}
