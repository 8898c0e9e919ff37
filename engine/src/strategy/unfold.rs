//! How large a component becomes when it is compiled. One that makes two
//! instances of another one, which makes two of a third, and so on, is small, but
//! the compiler expands all of them, and wasmtime has no limit for that.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Parser, Payload,
};

use super::contract::Rejected;

/// Most instances, aliases and the like. Plugins of all toolchains have some hundreds.
pub(super) const STEPS_MAX: u64 = 100_000;
/// Steps of a component that is passed as an argument, which no toolchain writes.
const UNKNOWN: u64 = u64::MAX;

/// Refuses a component that expands to more than any toolchain writes.
pub(super) fn check(bytes: &[u8]) -> Result<(), Rejected> {
    let steps = steps(bytes);
    if steps > STEPS_MAX {
        return Err(Rejected::Compile(format!(
            "its parts instantiate each other too often: it expands to more than {STEPS_MAX} steps"
        )));
    }
    Ok(())
}

/// A module, or a component that is being read.
#[derive(Default)]
struct Open {
    is_module: bool,
    /// Steps of each component in its index space.
    components: Vec<u64>,
    steps: u64,
}

impl Open {
    fn named(&self, index: u32) -> u64 {
        // The compiler refuses an index that does not exist.
        self.components.get(index as usize).copied().unwrap_or(0)
    }

    fn add(&mut self, steps: u64) {
        self.steps = self.steps.saturating_add(steps);
    }
}

fn steps(bytes: &[u8]) -> u64 {
    let mut outer: Vec<Open> = vec![];
    let mut open = Open::default();
    // The compiler explains errors in the rest better, and before it expands anything.
    for payload in Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                let is_module = matches!(payload, Payload::ModuleSection { .. });
                let inner = Open {
                    is_module,
                    ..Open::default()
                };
                outer.push(std::mem::replace(&mut open, inner));
            }
            Payload::End(_) => {
                let Some(before) = outer.pop() else { break };
                let done = std::mem::replace(&mut open, before);
                if !done.is_module {
                    open.components.push(done.steps);
                }
            }
            _ => read(payload, &mut open, &outer),
        }
    }
    open.steps
}

fn read(payload: Payload<'_>, open: &mut Open, outer: &[Open]) {
    match payload {
        Payload::InstanceSection(all) => open.add(u64::from(all.count())),
        Payload::ComponentCanonicalSection(all) => open.add(u64::from(all.count())),
        Payload::ComponentInstanceSection(all) => {
            for instance in all.into_iter().map_while(Result::ok) {
                open.add(1);
                if let ComponentInstance::Instantiate {
                    component_index, ..
                } = instance
                {
                    open.add(open.named(component_index));
                }
            }
        }
        Payload::ComponentAliasSection(all) => {
            for alias in all.into_iter().map_while(Result::ok) {
                open.add(1);
                match alias {
                    ComponentAlias::Outer {
                        kind: ComponentOuterAliasKind::Component,
                        count,
                        index,
                    } => {
                        let mut scopes = std::iter::once(&*open).chain(outer.iter().rev());
                        let scope = scopes.nth(count as usize);
                        let steps = scope.map_or(0, |s| s.named(index));
                        open.components.push(steps);
                    }
                    ComponentAlias::InstanceExport {
                        kind: ComponentExternalKind::Component,
                        ..
                    } => open.components.push(UNKNOWN),
                    _ => {}
                }
            }
        }
        Payload::ComponentImportSection(all) => {
            for import in all.into_iter().map_while(Result::ok) {
                open.add(1);
                if let ComponentTypeRef::Component(_) = import.ty {
                    open.components.push(UNKNOWN);
                }
            }
        }
        Payload::ComponentExportSection(all) => {
            for export in all.into_iter().map_while(Result::ok) {
                open.add(1);
                if export.kind == ComponentExternalKind::Component {
                    open.components.push(open.named(export.index));
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps_of(text: &str) -> u64 {
        steps(&wat::parse_str(text).expect("the test's own text is right"))
    }

    #[test]
    fn every_instance_counts_with_all_that_it_makes() {
        assert_eq!(steps_of("(component)"), 0);
        let twice = "(component $a
            (core module $m) (core instance (instantiate $m)) (core instance (instantiate $m)))";
        let text = format!("(component {twice} (instance (instantiate $a)))");
        assert_eq!(steps_of(&text), 3);
        let outer = format!(
            "(component {twice}
                (component $b (alias outer 1 $a (component $c))
                    (instance (instantiate $c)) (instance (instantiate $c)))
                (instance (instantiate $b)))"
        );
        assert_eq!(steps_of(&outer), 1 + 1 + 2 * 3);
    }

    #[test]
    fn what_doubles_at_each_level_is_refused() {
        let doubled = |levels: u32| {
            let inner = "(component $c (core module $m) (core instance (instantiate $m)))";
            (0..levels).fold(inner.to_owned(), |inner, _| {
                format!(
                    "(component $c {inner} (instance (instantiate $c)) (instance (instantiate $c)))"
                )
            })
        };
        let check = |text: &str| check(&wat::parse_str(text).expect("right"));
        assert_eq!(check(&doubled(10)), Ok(()));
        assert!(check(&doubled(40)).is_err());
        assert!(check(&doubled(80)).is_err());
    }

    #[test]
    fn a_component_from_elsewhere_may_be_of_any_size() {
        let handed_over = "(component (import \"a\" (component $a)) (instance (instantiate $a)))";
        assert_eq!(steps_of(handed_over), UNKNOWN);
        assert_eq!(steps_of("(component (import \"a\" (component $a)))"), 1);
    }
}
