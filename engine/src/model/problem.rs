//! What is wrong with a file that people write, in one form for all such files.

use std::collections::HashMap;
use std::fmt;

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, such as `guardrails.largest-step`, or in a JSON file
    /// `/scenarios/3/canary/minTasks`; empty for the file as a whole.
    pub path: String,
    /// The line of that key, from 1, or of the innermost table around it that the
    /// file has; `None` if the file has none of these tables.
    pub line: Option<usize>,
    /// The column at which that key begins, in characters from 1; `None` as with the line.
    pub column: Option<usize>,
    /// What is wrong and what to write instead, to be read after the key.
    pub message: String,
}

impl Problem {
    /// A problem whose place in the file is not known yet.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            line: None,
            column: None,
            message: message.into(),
        }
    }

    /// Whether it is about that key of a TOML file, or about one within it.
    #[must_use]
    pub fn is_within(&self, key: &str) -> bool {
        let rest = self.path.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The line and the column of a byte of a text, both from 1.
    #[must_use]
    pub fn place(text: &str, at: usize) -> (usize, usize) {
        let before = text.get(..at).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or(before);
        (1 + before.matches('\n').count(), 1 + line.chars().count())
    }
}

/// A problem, and the file that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The file, as a person names it; `None` if what is wrong was not given by a file.
    pub file: Option<String>,
    /// What is wrong.
    pub problem: Problem,
}

impl From<Problem> for Located {
    /// One that no file has given.
    fn from(problem: Problem) -> Self {
        let file = None;
        Self { file, problem }
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            for number in [self.problem.line, self.problem.column].iter().flatten() {
                write!(f, "{number}:")?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{}", self.problem)
    }
}

/// All that is wrong with a file, at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// One line for each problem, which begins with the file, the line and the column.
    #[must_use]
    pub fn in_file(&self, file: impl fmt::Display) -> String {
        let all = self.clone().located_in(&file.to_string());
        let lines = all.iter().map(|problem| format!("  {problem}"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The problems, with the name of their file.
    #[must_use]
    pub fn located_in(self, file: &str) -> Vec<Located> {
        let located = |problem| Located {
            file: Some(file.to_owned()),
            problem,
        };
        self.0.into_iter().map(located).collect()
    }

    /// The problems with their lines and columns filled in. `places` says at which byte of
    /// the text each key is, and the parts of a key are joined by `separator`.
    pub(crate) fn located(
        mut self,
        text: &str,
        places: &HashMap<String, usize>,
        separator: char,
    ) -> Self {
        let mut found = vec![];
        for problem in self.0.iter_mut().filter(|problem| problem.line.is_none()) {
            let mut keys = std::iter::successors(Some(problem.path.as_str()), |key| {
                key.rsplit_once(separator).map(|(outer, _)| outer)
            });
            if let Some(at) = keys.find_map(|key| places.get(key)) {
                found.push((*at, problem));
            }
        }
        // In the order of the text, which is then read once, however many problems there are.
        found.sort_by_key(|(at, _)| *at);
        let (mut line, mut column, mut read) = (1, 1, 0);
        for (at, problem) in found {
            for character in text.get(read..at).unwrap_or_default().chars() {
                (line, column) = match character {
                    '\n' => (line + 1, 1),
                    _ => (line, column + 1),
                };
            }
            read = at;
            (problem.line, problem.column) = (Some(line), Some(column));
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known word that somebody may have meant: the nearest one, if no more than two
/// letters differ.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known
        .map(|known| (strsim::levenshtein(word, known), known))
        .min();
    near.filter(|(d, _)| *d <= 2).map(|(_, near)| near)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each problem has the place of its key, in whichever order they were found, and also
    /// where all are in one line.
    #[test]
    fn each_problem_gets_the_place_of_its_key() {
        for text in [
            "a = 1\n\u{e4}b = 2\n\nc = 3",
            "a = 1, \u{e4}b = 2, c = 3",
            "",
        ] {
            let keys: HashMap<String, usize> = text
                .char_indices()
                .map(|(at, _)| (at.to_string(), at))
                .collect();
            let mut problems: Vec<Problem> = keys
                .keys()
                .flat_map(|key| [key.clone(), format!("{key}.inner")])
                .map(|path| Problem::new(path, "wrong"))
                .collect();
            problems.push(Problem::new("nowhere", "wrong"));
            problems.push(Problem {
                line: Some(7),
                ..Problem::new("0", "known")
            });
            let located = Problems(problems).located(text, &keys, '.');
            for problem in located.0 {
                let key = problem.path.split('.').next().and_then(|key| keys.get(key));
                let place = match key {
                    _ if problem.message == "known" => (Some(7), None),
                    Some(at) => {
                        let (line, column) = Problem::place(text, *at);
                        (Some(line), Some(column))
                    }
                    None => (None, None),
                };
                assert_eq!((problem.line, problem.column), place, "{}", problem.path);
            }
        }
    }
}
