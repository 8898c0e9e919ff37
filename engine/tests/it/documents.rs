//! The documents hold together: links lead somewhere, the book lists its pages,
//! and the tables say what the code says.
//! `UPDATE_REFERENCE=1 cargo test -p engine documents` writes the tables anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use engine::cli::Cli;
use engine::cli::exit::Exit;
use engine::view::catalogue::{self, Kind, document};
use serde_json::Value;

use crate::support::guests;
use crate::support::root;

/// Every Markdown file of the repository, templates and examples too.
fn documents() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if path.is_dir() {
                // What is built or fetched has documents of others.
                let foreign = ["target", "node_modules", "corpus"].contains(&&*name);
                if !foreign && !name.starts_with('.') {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|e| e == "md") {
                found.push(path);
            }
        }
    }
    let mut found = vec![];
    let root = root().canonicalize().expect("the repository");
    walk(&root, &mut found);
    assert!(found.len() > 40, "the documents are there");
    found
}

/// The lines outside of code blocks.
fn prose(text: &str) -> Vec<&str> {
    let mut code = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    };
    text.lines().filter(outside).collect()
}

/// The addresses of all links and pictures.
fn links(text: &str) -> Vec<String> {
    let text = prose(text).join("\n");
    let ends = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'));
    ends.map(|(address, _)| address.to_owned()).collect()
}

/// The anchors of the headings, as Git hosts and mdBook make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let titles = prose(text).into_iter().filter(|l| l.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let keeps = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        title
            .chars()
            .filter(keeps)
            .collect::<String>()
            .replace(' ', "-")
    };
    titles.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = vec![];
    let mut checked = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("text");
        for link in links(&text) {
            // Of other places nothing is known here; {{name}} is for templates.
            if link.contains(':') || link.contains("{{") {
                continue;
            }
            checked += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let place = match path {
                "" => document.clone(),
                path => document.parent().expect("a folder").join(path),
            };
            let fits = place.exists()
                && (anchor.is_empty()
                    || std::fs::read_to_string(&place)
                        .is_ok_and(|text| anchors(&text).contains(anchor)));
            if !fits {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(checked > 100, "only {checked} links were found");
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn the_book_lists_each_page_once() {
    let book = root().join("engine/docs").canonicalize().expect("the book");
    let summary = std::fs::read_to_string(book.join("SUMMARY.md")).expect("a summary");
    let mut listed = links(&summary);
    listed.sort();
    let mut pages: Vec<String> = documents()
        .iter()
        .filter_map(|d| d.strip_prefix(&book).ok())
        .map(|d| d.display().to_string())
        .filter(|d| d != "SUMMARY.md")
        .collect();
    pages.sort();
    assert_eq!(listed, pages);
}

/// The decisions are numbered without a gap, and the overview lists them all.
#[test]
fn the_decisions_are_numbered() {
    let folder = root().join("engine/docs/design");
    let overview = std::fs::read_to_string(folder.join("decisions.md")).expect("the overview");
    let decisions = std::fs::read_dir(folder.join("decisions")).expect("a folder");
    let mut names: Vec<String> = decisions
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    for (name, number) in names.iter().zip(1..) {
        assert!(name.starts_with(&format!("{number:04}-")), "{name}");
        let text = std::fs::read_to_string(folder.join("decisions").join(name)).expect("text");
        assert!(text.starts_with(&format!("# {number}. ")), "{name}");
        assert!(overview.contains(&format!("(decisions/{name})")), "{name}");
    }
}

/// Compares what stands between the marks of a document with what is generated.
fn check(document: &str, mark: &str, now: &str) {
    let place = root().join("engine/docs").join(document);
    let written = std::fs::read_to_string(&place).expect("the document");
    let begin = format!("<!-- generated: {mark} -->\n");
    let (head, rest) = written.split_once(&begin).expect("the mark");
    let (kept, tail) = rest.split_once("<!-- end -->").expect("the other mark");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        let new = format!("{head}{begin}{now}<!-- end -->{tail}");
        std::fs::write(&place, new).expect("writable");
        return;
    }
    assert!(
        kept == now,
        "{document} is not up to date; UPDATE_REFERENCE=1 writes it anew. It should say:\n{now}"
    );
}

/// For a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[test]
fn the_exit_codes_are_those_of_the_code() {
    let mut table = "| exit code | means |\n|---|---|\n".to_owned();
    for exit in Exit::ALL {
        let _ = writeln!(table, "| {} | {} |", exit as u8, exit.meaning());
    }
    check("reference/exit-codes.md", "exit-codes", &table);
    let mut command = Cli::command();
    let help = command.render_long_help().to_string();
    let (_, codes) = help.split_once("Exit codes").expect("the codes");
    let words: Vec<&str> = codes.split_whitespace().collect();
    for exit in Exit::ALL {
        let code = (exit as u8).to_string();
        assert!(
            words.contains(&code.as_str()),
            "--help does not list {code}"
        );
    }
}

#[test]
fn the_verbs_are_those_of_the_command_line() {
    fn rows(table: &mut String, path: &str, command: &clap::Command) {
        for verb in command.get_subcommands() {
            if verb.is_hide_set() || verb.get_name() == "help" {
                continue;
            }
            let name = format!("{path} {}", verb.get_name());
            let about = verb
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(!about.is_empty(), "{name} is not explained");
            let _ = writeln!(table, "| `{name}` | {} |", cell(&about));
            rows(table, &name, verb);
        }
    }
    let mut table = "| verb | does |\n|---|---|\n".to_owned();
    rows(&mut table, "engine", &Cli::command());
    check("reference/verbs.md", "verbs", &table);
}

/// What a key may be, in a word or two.
fn kind(node: &Value, shared: &Value) -> String {
    let node = referred(node, shared);
    if let Some(words) = node["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(" or ");
    }
    if let Some(shapes) = node["anyOf"].as_array().filter(|_| node["type"].is_null()) {
        let kinds: Vec<String> = shapes.iter().map(|shape| kind(shape, shared)).collect();
        return kinds.join(" or ");
    }
    let range = match (&node["minimum"], &node["maximum"]) {
        (least, most) if most.is_number() => format!(", {least} to {most}"),
        _ => String::new(),
    };
    match node["type"].as_str() {
        Some("string") if node["examples"].is_array() => "duration".to_owned(),
        Some("string") => "text".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("integer") => format!("whole number{range}"),
        Some("number") => format!("number{range}"),
        Some("array") => format!("list of {}s", kind(&node["items"], shared)),
        _ => "table".to_owned(),
    }
}

fn referred<'a>(node: &'a Value, shared: &'a Value) -> &'a Value {
    let name = node["$ref"]
        .as_str()
        .and_then(|r| r.strip_prefix("#/$defs/"));
    name.map_or(node, |name| &shared[name])
}

/// A row for each key of a file.
fn key_rows(table: &mut String, node: &Value, shared: &Value, path: &str) {
    let whole = referred(node, shared);
    for shapes in ["oneOf", "anyOf"] {
        for shape in whole[shapes].as_array().into_iter().flatten() {
            key_rows(table, shape, shared, path);
        }
    }
    if whole["additionalProperties"].is_object() {
        let inner = format!("{path}NAME.");
        key_rows(table, &whole["additionalProperties"], shared, &inner);
    }
    let required: Vec<&str> = whole["required"]
        .as_array()
        .map(|keys| keys.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    for (key, property) in whole["properties"].as_object().into_iter().flatten() {
        let full = format!("{path}{key}");
        let about = match &property["description"] {
            // Each kind of target names itself.
            Value::Null if property["const"].is_string() => whole["description"].as_str(),
            about => about.as_str(),
        };
        let about = about.unwrap_or_else(|| panic!("{full} is not explained"));
        let default = match &property["default"] {
            _ if required.contains(&key.as_str()) => "must be given".to_owned(),
            Value::Null => String::new(),
            value => format!("`{value}`"),
        };
        let kind = match &property["const"] {
            Value::Null => kind(property, shared),
            only => format!("`{only}`"),
        };
        let _ = writeln!(
            table,
            "| `{full}` | {} | {default} | {} |",
            cell(&kind),
            cell(about)
        );
        key_rows(table, property, shared, &format!("{full}."));
    }
}

#[test]
fn the_keys_of_files_are_those_of_their_schemas() {
    for name in ["rollout.toml", "plugins.toml"] {
        let schema = document(name).expect("a schema").schema();
        let mut table = "| key | what it may be | default | |\n|---|---|---|---|\n".to_owned();
        key_rows(&mut table, &schema, &schema["$defs"], "");
        check("reference/rollout-file.md", name, &table);
    }
}

/// Every answer in JSON has a section, whose example is as its schema says.
#[test]
fn the_answers_in_json_are_described_by_example() {
    let answers = || catalogue::documents().filter(|d| d.kind == Kind::Answer);
    let mut table = "| schema | what `--json` prints |\n|---|---|\n".to_owned();
    for answer in answers() {
        let name = answer.name;
        let _ = writeln!(table, "| [{name}](#{name}) | {} |", cell(answer.about));
    }
    check("reference/json.md", "answers", &table);
    let page = root().join("engine/docs/reference/json.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let mut sections = page.split("\n## ").skip(1);
    for answer in answers() {
        let section = sections.next().unwrap_or_default();
        let (title, text) = section.split_once('\n').unwrap_or_default();
        assert_eq!(title, answer.name, "sections are in the order of the table");
        let (_, example) = text.split_once("```json\n").expect("an example");
        let (example, _) = example.split_once("```").expect("its end");
        let example: Value = serde_json::from_str(example).expect("JSON");
        crate::schemas::fits(answer.name, &example);
    }
    assert_eq!(sections.next(), None);
}

#[tokio::test]
async fn the_parameters_are_those_of_the_plugins() {
    let place = root().join("engine/docs/reference/parameters.md");
    let document = std::fs::read_to_string(place).expect("the document");
    let (by_hand, _) = document.split_once("<!-- generated").expect("the mark");
    let mut out = String::new();
    for name in ["canary", "blue-green"] {
        let plugin = guests::plugin(name).await;
        let description = plugin.describe().await.expect("it describes itself");
        let schema: Value = serde_json::from_str(&description.parameters_schema).expect("JSON");
        let properties = schema["properties"].as_object().expect("an object");
        let mut sorted: Vec<_> = properties.iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| *name);
        let _ = write!(
            out,
            "### {name}\n\n| parameter | default | |\n|---|---|---|\n"
        );
        for (parameter, property) in sorted {
            let default = match &property["default"] {
                Value::Null => String::new(),
                value => format!("`{value}`"),
            };
            let about = property["description"].as_str().unwrap_or_default();
            assert!(!about.is_empty(), "{name} does not explain {parameter}");
            // The first cell of a row: two strategies may have two names for one thing.
            let quoted = format!("`{parameter}`");
            let mut rows = by_hand.lines().filter_map(|l| l.strip_prefix("| "));
            let compared =
                rows.any(|row| row.split('|').next().is_some_and(|c| c.contains(&quoted)));
            assert!(compared, "{name}: {parameter} is not in the table of both");
            let _ = writeln!(
                out,
                "| `{parameter}` | {} | {} |",
                cell(&default),
                cell(about)
            );
        }
        out.push('\n');
    }
    check("reference/parameters.md", "parameters", &out);
}

/// The words of a command line, as a shell takes them; what comes after a comment, a pipe
/// or another command is not its own.
pub fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut quote) = (vec![], None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('|' | '&' | ';' | '>', None) => break,
            ('#', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => all.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    all.extend(word);
    all
}

/// The command lines of `engine` in a text: after a prompt, and after `&&`.
pub fn command_lines(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("$ "));
    let parts = lines.flat_map(|line| line.split("&& "));
    parts
        .filter(|part| part.starts_with("engine "))
        .map(ToOwned::to_owned)
        .collect()
}

/// What is printed can be typed: in the documents, and in the examples of `--help`.
#[test]
fn every_command_line_that_is_printed_is_one() {
    fn examples(command: &clap::Command, found: &mut Vec<(String, String)>) {
        let after = command.get_after_help().map(ToString::to_string);
        for line in after.unwrap_or_default().lines() {
            if let Some(line) = line.strip_prefix("  engine ") {
                // What an example does stands beside it.
                let line = line.split("  ").next().unwrap_or_default();
                found.push((
                    format!("{} --help", command.get_name()),
                    format!("engine {line}"),
                ));
            }
        }
        for verb in command.get_subcommands() {
            examples(verb, found);
        }
    }
    let mut found = vec![];
    for document in documents() {
        let text = std::fs::read_to_string(&document).expect("text");
        for line in command_lines(&text) {
            found.push((document.display().to_string(), line));
        }
    }
    assert!(found.len() > 40, "only {} are in documents", found.len());
    let documented = found.len();
    examples(&Cli::command(), &mut found);
    assert!(found.len() > documented + 40, "the examples are there");
    let wrong: Vec<String> = found
        .iter()
        .filter_map(|(place, line)| {
            let error = Cli::try_parse_from(words(line)).err()?;
            Some(format!("{place}: {line}\n{error}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An option that all verbs have gives its value to whatever has its name, so no verb may
/// have one of that name too.
#[test]
fn no_two_options_of_a_verb_are_one() {
    fn look(
        command: &clap::Command,
        path: &str,
        above: &BTreeSet<String>,
        twice: &mut Vec<String>,
    ) {
        let path = format!("{path} {}", command.get_name());
        let mut global = above.clone();
        for argument in command.get_arguments() {
            let names = argument.get_long().map(|long| format!("--{long}"));
            let names = names.into_iter().chain([argument.get_id().to_string()]);
            for name in names.chain(argument.get_short().map(|short| format!("-{short}"))) {
                // `init` has that of all verbs, where an address may be left out.
                let own = path == " engine init" && name.trim_start_matches('-') == "local";
                if above.contains(&name) && !own {
                    twice.push(format!("{path}: {name}"));
                }
                if argument.is_global_set() {
                    global.insert(name);
                }
            }
        }
        for verb in command.get_subcommands() {
            look(verb, &path, &global, twice);
        }
    }
    let mut twice = vec![];
    look(&Cli::command(), "", &BTreeSet::new(), &mut twice);
    assert!(twice.is_empty(), "{twice:?}");
}
