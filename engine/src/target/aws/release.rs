//! What the arms run: their task definitions, the container that is the version, and
//! what a rollout makes of them.

use std::fmt;
use std::sync::Arc;

use aws_sdk_ecs::types::Service;

use super::client::Clients;
use super::definition::Definition;
use super::{AwsTarget, locked, services};
use crate::model::aws::{AwsSpec, Changes, Difference, FoundArm};
use crate::model::{ErrorKind, HostError, Promotion, Release, Source};

/// What a rollout changes in what an arm runs.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskChange {
    /// The arm.
    pub arm: String,
    /// The container that gets the new image; `None` where only a whole task definition
    /// is named.
    pub container: Option<String>,
    /// What runs now, `FAMILY:REVISION`.
    pub before: String,
    /// What runs then, `FAMILY:REVISION`; `FAMILY` alone if the revision is still to be
    /// registered.
    pub after: String,
    /// What differs between the two, sorted by path.
    pub differences: Vec<Difference>,
}

impl fmt::Display for TaskChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.arm)?;
        if let Some(container) = &self.container {
            write!(f, ", container {container}")?;
        }
        if self.after.contains(':') {
            write!(f, ": {} instead of {}", self.after, self.before)
        } else {
            write!(
                f,
                ": a new revision of {} instead of {}",
                self.after, self.before
            )
        }
    }
}

/// What is rolled out, for [`AwsTarget::task_changes`].
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Name of the arm that serves users.
    pub stable: &'a str,
    /// Name of the arm that gets the new version.
    pub candidate: &'a str,
    /// What it gets; `None` if it runs already.
    pub release: Option<&'a Release>,
    /// How it takes over.
    pub promotion: Promotion,
}

/// The release of a task definition by ARN or `FAMILY:REVISION`, with its full ARN.
///
/// # Errors
/// There is no such task definition, or AWS does not answer.
pub async fn release_of_task_definition(
    clients: &Clients,
    name: &str,
    container: Option<&str>,
) -> Result<Release, HostError> {
    let definition = services::task_definition(clients, name).await?;
    if let Some(name) = container {
        definition.for_image(Some(name), None)?;
    }
    Ok(Release {
        version: definition.version(container),
        source: Source::TaskDefinition(definition.arn().to_owned()),
    })
}

impl AwsTarget {
    /// A task definition by its ARN. A revision never changes, so it is read once.
    async fn definition(&self, arn: &str) -> Result<Arc<Definition>, HostError> {
        let known = locked(&self.definitions).get(arn).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let definition = Arc::new(services::task_definition(&self.clients, arn).await?);
        locked(&self.definitions).insert(arn.to_owned(), definition.clone());
        Ok(definition)
    }

    /// Families of the arms' task definitions, and ARNs of the roles that their
    /// tasks run as: registering a revision needs the permission to pass these.
    ///
    /// # Errors
    /// AWS does not answer.
    pub async fn families_and_roles(&self) -> Result<(Vec<String>, Vec<String>), HostError> {
        let (mut families, mut roles) = (vec![], vec![]);
        for service in self.services().await?.iter().flatten() {
            let arn = service.task_definition().unwrap_or_default();
            let definition = self.definition(arn).await?;
            families.push(definition.family().to_owned());
            roles.extend(definition.roles());
        }
        for list in [&mut families, &mut roles] {
            list.sort();
            list.dedup();
        }
        Ok((families, roles))
    }

    /// The release that a service is set to run.
    pub(super) async fn release(&self, service: &Service) -> Result<Release, HostError> {
        let arn = service.task_definition().unwrap_or_default();
        let definition = self.definition(arn).await?;
        let image = definition.version(self.spec.container.as_deref());
        let version = match &self.spec.changes {
            Some(changes) if self.has(&definition, changes).await? => changes.version.clone(),
            // It has the image, and not what else belongs to the new version.
            Some(changes) if changes.version == image => {
                format!("{image} ({})", definition.short())
            }
            _ => image,
        };
        Ok(Release {
            version,
            source: Source::TaskDefinition(arn.to_owned()),
        })
    }

    /// Whether a definition has these changes already.
    async fn has(&self, definition: &Definition, changes: &Changes) -> Result<bool, HostError> {
        if definition.arn() == changes.to {
            return Ok(true);
        }
        if definition.arn() == changes.of {
            return Ok(false);
        }
        let (of, to) = (
            self.definition(&changes.of).await?,
            self.definition(&changes.to).await?,
        );
        Ok(definition.with_changes(&of, &to).says_the_same(definition))
    }

    /// ARN of the task definition with which a service runs that release; a revision is
    /// registered if there is none.
    pub(super) async fn definition_for(
        &self,
        service: &Service,
        release: &Release,
    ) -> Result<String, HostError> {
        let runs = service.task_definition().unwrap_or_default();
        if let Source::TaskDefinition(arn) = &release.source {
            return Ok(arn.clone());
        }
        // Whether it is still active may have changed since it was read.
        let base = services::task_definition(&self.clients, runs).await?;
        let wanted = self.made_of(&base, &release.source).await?;
        services::revision(&self.clients, &base, &wanted).await
    }

    /// The definition that an arm gets which runs `base`.
    async fn made_of(&self, base: &Definition, source: &Source) -> Result<Definition, HostError> {
        match source {
            Source::Image(image) => {
                let container = self.container_of(base, image)?;
                Ok(base.with_image(container, image))
            }
            Source::Changes(changes) => {
                let of = self.definition(&changes.of).await?;
                let to = self.definition(&changes.to).await?;
                Ok(base.with_changes(&of, &to))
            }
            Source::TaskDefinition(arn) => Ok((*self.definition(arn).await?).clone()),
            other => Err(HostError::new(
                ErrorKind::Invalid,
                "not-an-image",
                format!("{other:?} cannot run in an ECS service; give an image"),
            )),
        }
    }

    fn container_of<'a>(
        &self,
        definition: &'a Definition,
        image: &str,
    ) -> Result<&'a str, HostError> {
        // A name was chosen for the arm that has several.
        match definition.containers()[..] {
            [only] => Ok(only.name),
            _ => definition.for_image(self.spec.container.as_deref(), Some(image)),
        }
    }

    /// What both arms run, the stable one first; `None` for an arm without a service.
    async fn of_arms(&self, wanted: Wanted<'_>) -> Result<[Option<Arc<Definition>>; 2], HostError> {
        let services = self.services().await?;
        let mut found = [None, None];
        for (place, name) in found.iter_mut().zip([wanted.stable, wanted.candidate]) {
            let mut arms = self.found.arms.iter().zip(&services);
            let own = arms.find(|(arm, _): &(&FoundArm, _)| arm.name == name);
            if let Some(service) = own.and_then(|(_, service)| service.as_ref()) {
                let arn = service.task_definition().unwrap_or_default();
                *place = Some(self.definition(arn).await?);
            }
        }
        Ok(found)
    }

    /// `spec` of this target with what a rollout is pinned to: the container that is
    /// the version, where a task has several, and what a new task definition changes.
    /// `before` is what the candidate ran before `release`, if it runs that already.
    ///
    /// # Errors
    /// It cannot be told which container gets the image.
    pub async fn pinned(
        &self,
        spec: &AwsSpec,
        wanted: Wanted<'_>,
        before: Option<&str>,
    ) -> Result<AwsSpec, HostError> {
        let mut spec = spec.clone();
        spec.changes = None;
        let [stable, Some(runs)] = self.of_arms(wanted).await? else {
            return Ok(spec);
        };
        let named = self.spec.container.as_deref();
        let source = wanted.release.map(|release| &release.source);
        spec.container = match source {
            Some(Source::Image(image)) => {
                let name = runs.for_image(named, Some(image))?;
                let receives = stable
                    .as_ref()
                    .filter(|_| wanted.promotion == Promotion::Copy);
                if let Some(stable) = receives.filter(|s| s.containers().len() > 1) {
                    stable.for_image(Some(name), Some(image))?;
                }
                let several = |d: &Definition| d.containers().len() > 1;
                let needed =
                    named.is_some() || several(&runs) || stable.as_deref().is_some_and(several);
                needed.then(|| name.to_owned())
            }
            Some(Source::TaskDefinition(arn)) => {
                let new = self.definition(arn).await?;
                named
                    .map(ToOwned::to_owned)
                    .or_else(|| only_change(&runs, &new))
            }
            _ => match (named, &stable) {
                (Some(name), _) => Some(runs.for_image(Some(name), None)?.to_owned()),
                (None, Some(stable)) => only_change(stable, &runs),
                (None, None) => None,
            },
        };
        if wanted.promotion != Promotion::Copy {
            return Ok(spec);
        }
        let container = spec.container.as_deref();
        match source {
            Some(Source::TaskDefinition(arn)) => {
                let before = if runs.arn() == arn {
                    before
                } else {
                    Some(runs.arn())
                };
                let new = self.definition(arn).await?;
                spec.changes = match before {
                    Some(before) => {
                        let of = self.definition(before).await?;
                        Some(changes(&of, &new, container))
                    }
                    // Then the image is all that can be copied, and must be known.
                    None => {
                        new.for_image(container, None)?;
                        None
                    }
                };
            }
            // The image of the candidate is what is copied, so it must be known.
            None if stable.is_some_and(|s| s.version(container) != runs.version(container)) => {
                runs.for_image(container, None)?;
            }
            _ => {}
        }
        Ok(spec)
    }

    /// What a rollout would change in the task definitions of the arms; nothing is
    /// registered.
    ///
    /// # Errors
    /// AWS does not answer, or it cannot be told which container gets the image.
    pub async fn task_changes(&self, wanted: Wanted<'_>) -> Result<Vec<TaskChange>, HostError> {
        let [stable, runs] = self.of_arms(wanted).await?;
        let mut all = vec![];
        let mut new = runs.as_deref().cloned();
        if let (Some(runs), Some(release)) = (&runs, wanted.release) {
            let then = self.made_of(runs, &release.source).await?;
            all.push(self.task_change(wanted.candidate, runs, &then, &release.source)?);
            new = Some(then);
        }
        let (Some(stable), Some(new), true) = (stable, new, wanted.promotion.copies()) else {
            return Ok(all);
        };
        let source = match (
            wanted.promotion,
            wanted.release.map(|r| &r.source),
            &self.spec.changes,
        ) {
            (Promotion::CopyWhole, ..) => Source::TaskDefinition(new.arn().to_owned()),
            (_, Some(Source::TaskDefinition(_)), Some(changes)) => {
                Source::Changes(Box::new(changes.clone()))
            }
            (_, Some(Source::Image(image)), _) => Source::Image(image.clone()),
            _ => Source::Image(new.version(self.spec.container.as_deref())),
        };
        let then = match (&source, wanted.promotion) {
            // It may be a revision that is still to be registered.
            (_, Promotion::CopyWhole) => new,
            // Nothing of it is copied if the image is the same.
            (Source::Image(image), _)
                if stable.version(self.spec.container.as_deref()) == *image =>
            {
                return Ok(all);
            }
            _ => self.made_of(&stable, &source).await?,
        };
        all.push(self.task_change(wanted.stable, &stable, &then, &source)?);
        Ok(all)
    }

    fn task_change(
        &self,
        arm: &str,
        before: &Definition,
        after: &Definition,
        source: &Source,
    ) -> Result<TaskChange, HostError> {
        let differences = before.differences(after);
        let container = match source {
            Source::Image(image) => Some(self.container_of(before, image)?.to_owned()),
            _ => None,
        };
        Ok(TaskChange {
            arm: arm.to_owned(),
            container,
            before: before.short().to_owned(),
            after: after.short().to_owned(),
            differences,
        })
    }
}

fn changes(of: &Definition, to: &Definition, container: Option<&str>) -> Changes {
    let image = to.version(container);
    let version = if of.version(container) == image {
        format!("{image} ({})", to.short())
    } else {
        image
    };
    Changes {
        of: of.arn().to_owned(),
        to: to.arn().to_owned(),
        version,
    }
}

/// The container whose image is the only one that differs, where there are several.
fn only_change(before: &Definition, after: &Definition) -> Option<String> {
    let all = after.containers();
    let mut changed = all.iter().filter(|c| {
        let old = before.container(c.name);
        old.is_none_or(|old| old.image != c.image)
    });
    match (changed.next(), changed.next()) {
        (Some(one), None) if all.len() > 1 => Some(one.name.to_owned()),
        _ => None,
    }
}
