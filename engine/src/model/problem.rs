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
    /// What is wrong and what to write instead, to be read after the key.
    pub message: String,
}

/// All that is wrong with a file, at least one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// One line for each problem, which begins with the file and the line.
    #[must_use]
    pub fn in_file(&self, file: impl fmt::Display) -> String {
        let lines = self.0.iter().map(|problem| match problem.line {
            Some(line) => format!("  {file}:{line}: {problem}"),
            None => format!("  {file}: {problem}"),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// The problems with their lines filled in. `places` says at which byte of the text each key
    /// is, and the parts of a key are joined by `separator`.
    pub(crate) fn located(
        mut self,
        text: &str,
        places: &HashMap<String, usize>,
        separator: char,
    ) -> Self {
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        for problem in &mut self.0 {
            let mut keys = std::iter::successors(Some(problem.path.as_str()), |key| {
                key.rsplit_once(separator).map(|(outer, _)| outer)
            });
            let place = keys.find_map(|key| places.get(key));
            let line = place.map(|at| 1 + ends.partition_point(|end| end < at));
            problem.line = problem.line.or(line);
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
