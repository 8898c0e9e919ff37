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

    /// The name of its stack where no other is given.
    #[must_use]
    pub fn stack(self) -> &'static str {
        match self {
            Self::Canary => "ecs-canary-demo-stack",
            Self::BlueGreen => "ecs-blue-green-demo-stack",
        }
    }
}
