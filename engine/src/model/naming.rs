//! What a name looks like, and what the names of arms say about their roles. Nothing
//! else may conclude a role from a name.

/// Whether a text can be the name of an arm, a plugin or a rollout. Names stand in
/// addresses, cookies, headers and arguments, and must not be taken for a path.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // On a command line what begins with a dash is an option.
    !text.is_empty() && !text.starts_with('-') && text.chars().all(fits)
}

/// Words that name arms, by pairs; the one that serves first comes first.
pub const ROLES: [[&str; 2]; 2] = [["stable", "canary"], ["blue", "green"]];

/// What the names of two arms say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// One arm is called stable. It stays the stable one, so it gets the new release
    /// when a version is promoted.
    Roles {
        /// Whether the other name says its role too.
        both: bool,
    },
    /// The names are colours: the arms change places, and the order of the
    /// colours is known.
    Colours,
    /// The names say nothing about roles.
    Silent,
}

impl Naming {
    /// The name that says of an arm that it is the stable one.
    const STABLE: &str = ROLES[0][0];

    /// Reads the names of a target's arms.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        let are = |pair: [&str; 2]| names.len() == 2 && pair.iter().all(|w| names.contains(w));
        if names.contains(&Self::STABLE) {
            return Self::Roles {
                both: are(ROLES[0]),
            };
        }
        if are(ROLES[1]) {
            Self::Colours
        } else {
            Self::Silent
        }
    }

    /// The name of the stable arm, if it is stable by name.
    #[must_use]
    pub fn stable(self) -> Option<&'static str> {
        matches!(self, Self::Roles { .. }).then_some(Self::STABLE)
    }

    /// Whether both names are known, so that an order of the arms has a meaning.
    #[must_use]
    pub fn has_an_order(self) -> bool {
        matches!(self, Self::Roles { both: true } | Self::Colours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_roles_or_colours_or_silent() {
        let read = |a, b| Naming::of([a, b]);
        assert_eq!(read("canary", "stable"), Naming::Roles { both: true });
        assert_eq!(read("stable", "next"), Naming::Roles { both: false });
        assert_eq!(read("green", "blue"), Naming::Colours);
        for (a, b) in [("left", "right"), ("blue", "canary"), ("stable2", "x")] {
            assert_eq!(read(a, b), Naming::Silent, "{a} {b}");
        }
        assert_eq!(read("stable", "next").stable(), Some("stable"));
        assert_eq!(read("blue", "green").stable(), None);
        assert!(read("blue", "green").has_an_order() && !read("stable", "x").has_an_order());
    }
}
