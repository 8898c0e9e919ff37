//! The templates of stacks that the engine brings along.

/// A template of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Template {
    /// Arms stable and canary, shared by weights.
    Canary,
    /// Arms blue and green, one of them active.
    BlueGreen,
}

impl Template {
    /// The template itself, YAML.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Canary => include_str!("../../../examples/cloudformation/canary.yaml"),
            Self::BlueGreen => include_str!("../../../examples/cloudformation/blue-green.yaml"),
        }
    }

    /// Parameters that it has and the other one has not: they say of which kind a stack is.
    fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Canary => &[
                "ImageURIStable",
                "ImageURICanary",
                "DesiredCountStable",
                "DesiredCountCanary",
                "StableWeight",
                "CanaryWeight",
            ],
            Self::BlueGreen => &[
                "ImageURIBlue",
                "ImageURIGreen",
                "DesiredCountBlue",
                "DesiredCountGreen",
                "ActiveColor",
            ],
        }
    }

    /// The kind of a stack, or of a template, with parameters of these names; `None` if they
    /// do not tell.
    pub fn of_parameters<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let is = |kind: Self| names.clone().any(|name| kind.marks().contains(&name));
        match (is(Self::Canary), is(Self::BlueGreen)) {
            (true, false) => Some(Self::Canary),
            (false, true) => Some(Self::BlueGreen),
            _ => None,
        }
    }

    /// What it makes, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Canary => "a canary stack (arms stable and canary)",
            Self::BlueGreen => "a blue/green stack (arms blue and green)",
        }
    }

    /// The name of its stack where no other is given.
    #[must_use]
    pub fn stack(self) -> &'static str {
        match self {
            Self::Canary => "ecs-canary-demo-stack",
            Self::BlueGreen => "ecs-blue-green-demo-stack",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each mark is a parameter of its template and of no other.
    #[test]
    fn the_marks_tell_the_templates_apart() {
        let declares = |kind: Template, name: &str| {
            let line = format!("\n  {name}:\n");
            kind.text().contains(&line)
        };
        let kinds = [Template::Canary, Template::BlueGreen];
        for (kind, other) in kinds.into_iter().zip(kinds.into_iter().rev()) {
            for mark in kind.marks() {
                assert!(declares(kind, mark), "{mark}");
                assert!(!declares(other, mark), "{mark}");
            }
            let of = |names: &[&'static str]| Template::of_parameters(names.iter().copied());
            assert_eq!(of(kind.marks()), Some(kind));
            assert_eq!(of(&["TaskCpu", kind.marks()[0]]), Some(kind));
            assert_eq!(of(&["TaskCpu"]), None);
            assert_eq!(of(&[other.marks()[0], kind.marks()[0]]), None);
        }
    }
}
