//! Reads the names of what a component imports and exports, for the contract,
//! policies, locks and people alike. A name that cannot be read is refused, because
//! a linker may still find something by it.

use semver::Version;

/// An interface, `namespace:package/interface@1.2.3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface<'a> {
    /// `rollout:traffic`
    pub package: &'a str,
    /// `traffic`
    pub name: &'a str,
    /// Its version: three numbers and no more.
    pub version: Version,
}

impl<'a> Interface<'a> {
    /// Reads a name.
    ///
    /// # Errors
    /// Why it is not the name of an interface: it is of another form, or its version is
    /// not three numbers.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let form = || "a name is namespace:package/interface@1.2.3".to_owned();
        let (place, version) = text.split_once('@').ok_or_else(form)?;
        let (package, name) = place.split_once('/').ok_or_else(form)?;
        let (namespace, short) = package.split_once(':').ok_or_else(form)?;
        if ![namespace, short, name].into_iter().all(is_word) {
            return Err(form());
        }
        // Linkers ignore what follows the three numbers, and compare them as numbers, so
        // only one spelling of each version is accepted.
        let release = |v: &Version| v.pre.is_empty() && v.build.is_empty();
        let version = Version::parse(version).ok().filter(release);
        let version = version.ok_or("a version is three numbers, such as 0.1.0")?;
        Ok(Self {
            package,
            name,
            version,
        })
    }

    /// Whether a linker gives `offered` to whoever imports this: the same name, and
    /// the same major version, or the same minor version below 1.0.
    #[must_use]
    pub fn links(&self, offered: &Self) -> bool {
        let track = |v: &Version| match (v.major, v.minor) {
            (0, 0) => (0, 0, v.patch),
            (0, minor) => (0, minor, 0),
            (major, _) => (major, 0, 0),
        };
        self.is_like(offered) && track(&self.version) == track(&offered.version)
    }

    /// Whether it is the same interface, of whatever version.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (self.package, self.name) == (other.package, other.name)
    }
}

/// A function of an interface, or all of it: `rollout:traffic/traffic@0.1.0#set-weights`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import<'a> {
    /// The interface.
    pub interface: Interface<'a>,
    /// `set-weights`; `None` for the whole interface.
    pub function: Option<&'a str>,
}

impl<'a> Import<'a> {
    /// Reads an import as [`crate::strategy::Plugin::permissions`] and locks spell it.
    ///
    /// # Errors
    /// Why the text is not an import, and how one is written.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let (interface, function) = match text.split_once('#') {
            Some((interface, function)) => (interface, Some(function)),
            None => (text, None),
        };
        if !function.is_none_or(is_word) {
            return Err("a function is a name in lower case, such as set-weights".to_owned());
        }
        Ok(Self {
            interface: Interface::parse(interface)?,
            function,
        })
    }
}

/// A label in lower case: words of letters and digits with `-` between them.
pub(super) fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.split('-')
        .all(|part| !part.is_empty() && part.chars().all(fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_spelling() {
        let read = Interface::parse("rollout:traffic/traffic@0.1.0").expect("a name");
        assert_eq!((read.package, read.name), ("rollout:traffic", "traffic"));
        for text in [
            "",
            "traffic",
            "rollout:traffic",
            "rollout:traffic/traffic",
            "rollout:traffic/traffic@",
            "rollout:traffic/traffic@0.1",
            "rollout:traffic/traffic@0.1.00",
            "rollout:traffic/traffic@00.1.0",
            "rollout:traffic/traffic@0.1.0.0",
            "rollout:traffic/traffic@0.1.0+x",
            "rollout:traffic/traffic@0.1.0-rc.1",
            "rollout:traffic/traffic@0.1.0-rc.1+x",
            "rollout:traffic/traffic@v0.1.0",
            "rollout:traffic/traffic@ 0.1.0",
            "rollout:traffic/traffic@0.1.0 ",
            "rollout:traffic/traffic@0.1.0@0.1.0",
            "rollout:traffic/Traffic@0.1.0",
            "rollout:traffic/traf_fic@0.1.0",
            "rollout:traffic/-traffic@0.1.0",
            "rollout:traffic/tra--ffic@0.1.0",
            "rollout:traffic/traffic/traffic@0.1.0",
            "a:rollout:traffic/traffic@0.1.0",
            ":traffic/traffic@0.1.0",
            "rollout:/traffic@0.1.0",
            "locked-dep=<rollout:traffic/traffic@0.1.0>",
            "unlocked-dep=<rollout:traffic@{>=0.1.0}>",
            "url=<https://example.com/traffic@0.1.0>",
            "integrity=<sha256-abc>",
            "[method]rollout:traffic/traffic@0.1.0",
            "röllout:traffic/traffic@0.1.0",
            "rollout:traffic/traffic\u{200b}@0.1.0",
        ] {
            assert!(Interface::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn versions_of_one_track_link() {
        let links = |a: &str, b: &str| {
            let read = |text| Interface::parse(text).expect("a name");
            read(a).links(&read(b))
        };
        assert!(links("a:b/c@0.1.0", "a:b/c@0.1.7"));
        assert!(!links("a:b/c@0.1.0", "a:b/c@0.2.0"));
        assert!(links("a:b/c@1.0.0", "a:b/c@1.9.0"));
        assert!(!links("a:b/c@1.0.0", "a:b/d@1.0.0"));
        assert!(!links("a:b/c@1.0.0", "a:c/c@1.0.0"));
        // Nothing is compatible with these.
        assert!(!links("a:b/c@0.0.1", "a:b/c@0.0.2"));
        assert!(links("a:b/c@0.0.1", "a:b/c@0.0.1"));
    }

    #[test]
    fn functions_are_plain_words() {
        let read = Import::parse("rollout:traffic/traffic@0.1.0#set-weights").expect("one");
        assert_eq!(read.function, Some("set-weights"));
        assert!(Import::parse("rollout:traffic/traffic@0.1.0").is_ok());
        for text in ["", "[method]r.set", "Set", "set#weights", "set weights"] {
            let text = format!("rollout:traffic/traffic@0.1.0#{text}");
            assert!(Import::parse(&text).is_err(), "{text}");
        }
    }
}
