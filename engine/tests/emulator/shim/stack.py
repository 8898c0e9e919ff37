"""One stack: what would change, making it so, and going back when it fails.

The work is done at once when an operation starts. Clients see it in steps: each DescribeStacks call shows the next
status and some more events.
"""

from dataclasses import dataclass, field
from datetime import datetime, timezone

from . import resources, template as templates
from .common import ACCOUNT, ApiError, uuid

STACK = "AWS::CloudFormation::Stack"

# Stack (None stands for all) -> logical id -> reason, set by POST /shim/cloudformation: these resources fail when they
# are made or changed.
fail_resources = {}


def now():
    return datetime.now(timezone.utc)


def reason_of(error):
    return str(getattr(error, "message", None) or error)


@dataclass
class Desired:
    body: str
    template: dict
    values: dict
    tags: list
    capabilities: list


@dataclass
class Made:
    """A resource that exists, with its properties as they were resolved when it was last written."""

    type: str
    physical: str
    properties: dict
    status: str = "CREATE_COMPLETE"
    changed: datetime = field(default_factory=now)


@dataclass
class Detail:
    name: str
    replaces: bool
    before: object
    after: object
    source: str
    cause: str | None


@dataclass
class Change:
    action: str
    logical: str
    type: str
    physical: str | None = None
    replacement: str | None = None
    before: dict | None = None
    after: dict | None = None
    details: list = field(default_factory=list)


class Stack:
    def __init__(self, region, name):
        self.region, self.name = region, name
        self.id = f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/{name}/{uuid()}"
        self.context = resources.Context(region, name)
        self.body, self.template, self.values, self.tags, self.capabilities = None, None, {}, [], []
        self.resources = {}
        self.outputs = []
        self.status, self.reason = None, None
        self.created, self.updated, self.deleted = now(), None, None
        self.change_sets, self.change_set_id = {}, None
        self.events = []
        # Statuses that the next DescribeStacks calls show, each with how many events are visible by then.
        self.steps = []
        self.visible = None
        self.token = None

    # What clients see of an operation

    def busy(self):
        return bool(self.steps)

    def creating(self):
        return self.busy() and self.status == "CREATE_IN_PROGRESS"

    def poll(self):
        if self.steps:
            self.status, self.reason, self.visible = self.steps.pop(0)

    def finish(self):
        while self.steps:
            self.poll()

    def visible_events(self):
        return self.events if self.visible is None else self.events[: self.visible]

    def event(self, logical, kind, physical, status, reason=None):
        self.events.append(
            {
                "StackId": self.id,
                "EventId": uuid(),
                "StackName": self.name,
                "LogicalResourceId": logical,
                "PhysicalResourceId": physical or "",
                "ResourceType": kind,
                "Timestamp": now(),
                "ResourceStatus": status,
                "ResourceStatusReason": reason,
                "ClientRequestToken": self.token,
            }
        )

    def own_event(self, status, reason=None):
        self.event(self.name, STACK, self.id, status, reason)

    def _show_in_steps(self, first_event, in_progress, final, polls, reason=None):
        """Spreads the events since `first_event` over `polls` calls; the last event comes with the final status."""
        count = len(self.events) - first_event
        steps = []
        for poll in range(polls):
            status = in_progress[min(poll * len(in_progress) // polls, len(in_progress) - 1)]
            steps.append((status, None, first_event + 1 + (count - 2) * (poll + 1) // polls))
        steps.append((final, reason, None))
        self.steps = steps
        # What a caller sees who looks at events before the first poll.
        self.status, self.reason, self.visible = in_progress[0], None, first_event + 1
        if not polls:
            self.poll()

    # What would change

    def _resolver(self, wanted, physical=None, attribute=None):
        return templates.Resolver(
            wanted.template, wanted.values, self.name, self.id, self.region,
            physical or self._physical, attribute or self._attribute,
        )

    def _physical(self, name):
        if name not in self.resources:
            raise ApiError("ValidationError", f"Template format error: Unresolved resource dependencies [{name}]")
        return self.resources[name].physical

    def _attribute(self, name, attribute):
        made = self.resources.get(name)
        if made is None:
            raise ApiError("ValidationError", f"Template error: instance of Fn::GetAtt references undefined resource {name}")
        return resources.type_of(made.type).attribute(self.context, made.physical, made.properties, attribute)

    def plan(self, wanted):
        """The changes that `wanted` means, found by comparing resolved properties as a change set does."""
        declared = wanted.template["Resources"]
        # Resources that have no name yet, as they are new or will be replaced.
        unknown = set()

        def physical(name):
            if name not in declared:
                raise ApiError("ValidationError", f"Template format error: Unresolved resource dependencies [{name}] in the Resources block of the template")
            return f"{{{{changeSet:{name}}}}}" if name in unknown or name not in self.resources else self._physical(name)

        def attribute(name, key):
            if name in unknown or name not in self.resources:
                return f"{physical(name)[:-2]}.{key}}}}}"
            return self._attribute(name, key)

        resolver = self._resolver(wanted, physical, attribute)
        moved = {name for name, value in wanted.values.items() if self.values.get(name) != value}
        changed_conditions = {
            name for name, body in (wanted.template.get("Conditions") or {}).items() if templates.names_in(body) & moved
        }
        changes = []
        ordered = resolver.resources()
        for name, resource in ordered.items():
            kind = resources.type_of(resource["Type"])
            properties = resolver.resolve(resource.get("Properties") or {})
            made = self.resources.get(name)
            if made is None:
                unknown.add(name)
                changes.append(Change("Add", name, resource["Type"], after=properties))
                continue
            details = []
            for key in sorted(made.properties.keys() | properties.keys()):
                before, after = made.properties.get(key), properties.get(key)
                if before == after:
                    continue
                used = templates.names_in((resource.get("Properties") or {}).get(key))
                if used & unknown:
                    source, cause = "ResourceReference", sorted(used & unknown)[0]
                elif used & (moved | changed_conditions):
                    source, cause = "ParameterReference", (sorted(used & moved) or [None])[0]
                else:
                    source, cause = "DirectModification", None
                details.append(Detail(key, key in kind.REPLACES, before, after, source, cause))
            if details or made.type != resource["Type"]:
                replaced = made.type != resource["Type"] or any(d.replaces for d in details)
                if replaced:
                    unknown.add(name)
                changes.append(
                    Change("Modify", name, resource["Type"], made.physical, str(replaced), made.properties, properties, details)
                )
        for name, made in self.resources.items():
            if name not in ordered:
                changes.append(Change("Remove", name, made.type, made.physical, before=made.properties))
        return changes

    def other_changes(self, wanted):
        """Changes that touch no resource but are changes all the same."""
        return (
            wanted.tags != self.tags
            or (wanted.template.get("Outputs") or {}) != ((self.template or {}).get("Outputs") or {})
        )

    def _accept(self, wanted):
        self.body, self.template, self.values = wanted.body, wanted.template, wanted.values
        self.tags, self.capabilities = wanted.tags, wanted.capabilities
        resolver = self._resolver(wanted)
        self.outputs = []
        for name, output in (wanted.template.get("Outputs") or {}).items():
            if "Condition" in output and not resolver.condition(output["Condition"]):
                continue
            row = {"OutputKey": name, "OutputValue": str(resolver.resolve(output["Value"])), "Description": output.get("Description")}
            if "Export" in output:
                row["ExportName"] = resolver.resolve(output["Export"]["Name"])
            self.outputs.append(row)

    # Making it so

    def create(self, wanted, polls, token=None):
        first, self.token = len(self.events), token
        self.created = now()
        self.own_event("CREATE_IN_PROGRESS", "User Initiated")
        failed = self._apply(wanted)
        if not failed:
            self._accept(wanted)
            self.own_event("CREATE_COMPLETE")
            self._show_in_steps(first, ["CREATE_IN_PROGRESS"], "CREATE_COMPLETE", polls)
            return
        # The parameters stay visible on the ruin.
        self.body, self.template, self.values = wanted.body, wanted.template, wanted.values
        self.tags, self.capabilities = wanted.tags, wanted.capabilities
        reason = f"The following resource(s) failed to create: [{', '.join(failed)}]. Rollback requested by user."
        self.own_event("ROLLBACK_IN_PROGRESS", reason)
        for name in reversed(list(self.resources)):
            self._delete(name, self.resources.pop(name))
        self.own_event("ROLLBACK_COMPLETE")
        self._show_in_steps(first, ["CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"], "ROLLBACK_COMPLETE", polls)

    def update(self, wanted, polls, token=None):
        first, self.token = len(self.events), token
        self.updated = now()
        before = {name: Made(m.type, m.physical, m.properties, m.status, m.changed) for name, m in self.resources.items()}
        self.own_event("UPDATE_IN_PROGRESS", "User Initiated")
        failed = self._apply(wanted)
        if not failed:
            self._accept(wanted)
            self.own_event("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
            self._clean_up(keep=self.resources, other=before)
            self.own_event("UPDATE_COMPLETE")
            self._show_in_steps(
                first, ["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"], "UPDATE_COMPLETE", polls
            )
            return
        reason = f"The following resource(s) failed to update: [{', '.join(failed)}]. "
        self.own_event("UPDATE_ROLLBACK_IN_PROGRESS", reason)
        self._restore(before)
        self.own_event("UPDATE_ROLLBACK_COMPLETE")
        self._show_in_steps(
            first, ["UPDATE_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS"], "UPDATE_ROLLBACK_COMPLETE", polls
        )

    def delete(self, polls, token=None):
        first, self.token = len(self.events), token
        self.own_event("DELETE_IN_PROGRESS", "User Initiated")
        kept = [name for name in reversed(list(self.resources)) if not self._delete(name, self.resources[name])]
        self.resources = {name: made for name, made in self.resources.items() if name in kept}
        if kept:
            reason = f"The following resource(s) failed to delete: [{', '.join(kept)}]. "
            self.own_event("DELETE_FAILED", reason)
            self._show_in_steps(first, ["DELETE_IN_PROGRESS"], "DELETE_FAILED", polls, reason)
            return
        self.deleted = now()
        self.outputs = []
        self.own_event("DELETE_COMPLETE")
        self._show_in_steps(first, ["DELETE_IN_PROGRESS"], "DELETE_COMPLETE", polls)

    def _apply(self, wanted):
        """Makes and changes resources in the order of their needs; returns the names of those that failed."""
        resolver = self._resolver(wanted)
        ordered = resolver.resources()
        for name, resource in ordered.items():
            properties = resolver.resolve(resource.get("Properties") or {})
            made = self.resources.get(name)
            if made is not None and made.type == resource["Type"] and made.properties == properties:
                continue
            verb = "CREATE" if made is None else "UPDATE"
            try:
                self._write(name, resource["Type"], properties)
            except Exception as error:  # whatever a back end objects to is a failed resource
                text = reason_of(error)
                current = self.resources.get(name)
                self.event(name, resource["Type"], current and current.physical, f"{verb}_FAILED", text)
                return [name] + self._cancel_siblings(resolver, ordered, name, verb)
        # In the order of their needs, for the way back, and without those that are wanted no more.
        self.resources = {name: self.resources[name] for name in ordered}
        return []

    def _write(self, name, type_name, properties):
        kind = resources.type_of(type_name)
        made = self.resources.get(name)
        replaced = made is not None and (
            made.type != type_name
            or any(made.properties.get(k) != properties.get(k) and k in kind.REPLACES for k in made.properties.keys() | properties.keys())
        )
        verb = "CREATE" if made is None else "UPDATE"
        reason = "Requested update requires the creation of a new physical resource; hence creating one." if replaced else None
        self.event(name, type_name, made and made.physical, f"{verb}_IN_PROGRESS", reason)
        for scripted in (fail_resources.get(self.name), fail_resources.get(None)):
            if scripted and name in scripted:
                raise resources.Failed(scripted[name])
        if made is None or replaced:
            physical = kind.create(self.context, name, properties)
            self.resources[name] = Made(type_name, physical, properties, f"{verb}_COMPLETE")
            self.event(name, type_name, physical, f"{verb}_IN_PROGRESS", "Resource creation Initiated")
        else:
            before = made.properties
            made.properties, made.status, made.changed = properties, "UPDATE_COMPLETE", now()
            kind.update(self.context, made.physical, before, properties)
        if hasattr(kind, "settle"):
            kind.settle(self.context, self.resources[name].physical, properties)
        self.event(name, type_name, self.resources[name].physical, f"{verb}_COMPLETE")

    def _cancel_siblings(self, resolver, ordered, failed, verb):
        """Resources that AWS would have been working on at that moment: all their needs are met."""
        cancelled = []
        names = list(ordered)
        for name in names[names.index(failed) + 1 :]:
            needs = resolver.needs(ordered[name]) & ordered.keys()
            changed = name not in self.resources
            if changed and all(need in self.resources and need != failed for need in needs):
                self.event(name, ordered[name]["Type"], None, "CREATE_IN_PROGRESS")
                self.event(name, ordered[name]["Type"], None, "CREATE_FAILED", "Resource creation cancelled")
                cancelled.append(name)
        return cancelled

    def _restore(self, before):
        """Back to the resources of before: in place where they still are, by name where they were replaced."""
        # Old resources go first, since others refer to them by name.
        current = self.resources
        self.resources = dict(before)
        for name, old in before.items():
            new = current.get(name)
            if new is None or new.physical != old.physical:
                continue
            if new.properties != old.properties:
                kind = resources.type_of(old.type)
                self.event(name, old.type, old.physical, "UPDATE_IN_PROGRESS")
                kind.update(self.context, old.physical, new.properties, old.properties)
                if hasattr(kind, "settle"):
                    kind.settle(self.context, old.physical, old.properties)
                self.event(name, old.type, old.physical, "UPDATE_COMPLETE")
        self.own_event("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS")
        self._clean_up(keep=self.resources, other=current)

    def _clean_up(self, keep, other):
        """Deletes what only the other state has: resources that were replaced or are not wanted any more."""
        for name in reversed(list(other)):
            made = other[name]
            if name in keep and keep[name].physical == made.physical:
                continue
            self._delete(name, made)

    def _delete(self, name, made):
        """Tells whether it is gone."""
        self.event(name, made.type, made.physical, "DELETE_IN_PROGRESS")
        try:
            resources.type_of(made.type).delete(self.context, made.physical, made.properties)
        except Exception as error:  # as in _apply
            self.event(name, made.type, made.physical, "DELETE_FAILED", reason_of(error))
            return False
        self.event(name, made.type, made.physical, "DELETE_COMPLETE")
        return True
