"""CloudFormation's operations: stacks and change sets. What an operation does to resources is in stack.py."""

import json

from . import stack as engine
from . import template as templates
from .common import ACCOUNT, ApiError, uuid

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."

# How many DescribeStacks calls see an operation in progress; serve.py and POST /shim/cloudformation set it.
default_polls = 2
# By name of the stack; None stands for all others.
polls = {}

stacks = []


def reset():
    polls.clear()
    stacks.clear()
    engine.fail_resources.clear()


def poll_count(name=None):
    return polls.get(name, polls.get(None, default_polls))


def script(region, request):
    """POST /shim/cloudformation"""
    name = request.get("stack")
    if "polls" in request:
        polls[name] = request["polls"]
        # An operation that is under way does not last longer than that either.
        for stack in stacks:
            if name in (None, stack.name):
                del stack.steps[: max(0, len(stack.steps) - request["polls"] - 1)]
    if "fail" in request:
        engine.fail_resources[name] = request["fail"] or {}
    return {"polls": poll_count(name), "fail": engine.fail_resources.get(name, {})}


def handle(region, action, request):
    handler = OPERATIONS.get(action)
    if handler is None:
        raise ApiError("NotImplemented", f"The emulator has no CloudFormation operation {action}")
    return handler(region, request)


def invalid(message):
    return ApiError("ValidationError", message)


def find(region, name):
    """By name only those that are not deleted, by id all of them, as on AWS."""
    for stack in stacks:
        here = stack.region == region
        if here and (stack.id == name or (stack.name == name and stack.status != "DELETE_COMPLETE")):
            return stack
    return None


def existing(region, name):
    stack = find(region, name)
    if stack is None:
        raise invalid(f"Stack with id {name} does not exist")
    return stack


def body_of(request, stack):
    if request.get("TemplateBody"):
        return request["TemplateBody"]
    if request.get("UsePreviousTemplate") == "true" and stack is not None:
        return stack.body
    raise invalid("Either Template URL or Template Body must be specified.")


def check_capabilities(template, given):
    roles = [r for r in template["Resources"].values() if r["Type"] == "AWS::IAM::Role"]
    if not roles or "CAPABILITY_NAMED_IAM" in given:
        return
    named = any("RoleName" in r.get("Properties", {}) for r in roles)
    needed = "CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM"
    if needed not in given:
        raise ApiError("InsufficientCapabilitiesException", f"Requires capabilities : [{needed}]")


def desired(request, stack):
    """The state that a request asks for, checked."""
    body = body_of(request, stack)
    template = templates.parse(body)
    previous = stack.values if stack is not None else {}
    values = templates.parameter_values(template, request.get("Parameters", []), previous)
    check_capabilities(template, request.get("Capabilities", []))
    # Tags that are not sent stay as they are.
    tags = request.get("Tags", stack.tags if stack is not None else [])
    return engine.Desired(body, template, values, tags, request.get("Capabilities", []))


# Stacks


def create_stack(region, request):
    name = request["StackName"]
    if find(region, name):
        raise ApiError("AlreadyExistsException", f"Stack [{name}] already exists")
    wanted = desired(request, None)
    stack = engine.Stack(region, name)
    stacks.append(stack)
    stack.create(wanted, poll_count(stack.name), request.get("ClientRequestToken"))
    return {"StackId": stack.id}


def must_be_updatable(stack):
    if stack.busy() or stack.status in ("ROLLBACK_COMPLETE", "CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_FAILED"):
        raise invalid(f"Stack:{stack.id} is in {stack.status} state and can not be updated.")


def update_stack(region, request):
    stack = find(region, request["StackName"])
    if stack is None or stack.status == "DELETE_COMPLETE":
        raise invalid(f"Stack [{request['StackName']}] does not exist")
    must_be_updatable(stack)
    wanted = desired(request, stack)
    if not stack.plan(wanted) and not stack.other_changes(wanted):
        raise invalid("No updates are to be performed.")
    stack.update(wanted, poll_count(stack.name), request.get("ClientRequestToken"))
    return {"StackId": stack.id}


def delete_stack(region, request):
    stack = find(region, request["StackName"])
    if stack is not None and stack.status != "DELETE_COMPLETE":
        if stack.status.startswith(("CREATE_IN", "UPDATE_")) and stack.busy():
            # AWS takes a delete during a create; the emulator has done the create long since.
            stack.finish()
        stack.delete(poll_count(stack.name), request.get("ClientRequestToken"))
    return {}


def describe_stacks(region, request):
    if request.get("StackName"):
        stack = existing(region, request["StackName"])
        stack.poll()
        if stack.status == "DELETE_COMPLETE" and request["StackName"] != stack.id:
            raise invalid(f"Stack with id {request['StackName']} does not exist")
        return {"Stacks": [stack_view(stack)]}
    return {"Stacks": [stack_view(s) for s in stacks if s.region == region and s.status != "DELETE_COMPLETE"]}


def stack_view(stack):
    return {
        "StackId": stack.id,
        "StackName": stack.name,
        "ChangeSetId": stack.change_set_id,
        "Description": (stack.template or {}).get("Description"),
        "Parameters": parameters_view(stack.template, stack.values),
        "CreationTime": stack.created,
        "DeletionTime": stack.deleted,
        "LastUpdatedTime": stack.updated,
        "RollbackConfiguration": {},
        "StackStatus": stack.status,
        "StackStatusReason": stack.reason,
        "DisableRollback": False,
        "NotificationARNs": [],
        "Capabilities": stack.capabilities,
        "Outputs": stack.outputs if not stack.creating() else [],
        "Tags": stack.tags,
        "EnableTerminationProtection": False,
        "DriftInformation": {"StackDriftStatus": "NOT_CHECKED"},
    }


def parameters_view(template, values):
    declared = (template or {}).get("Parameters") or {}
    hidden = {name for name, rules in declared.items() if str(rules.get("NoEcho", "")).lower() == "true"}
    return [
        {"ParameterKey": name, "ParameterValue": "****" if name in hidden else value}
        for name, value in values.items()
    ]


def list_stacks(region, request):
    wanted = request.get("StackStatusFilter")
    return {
        "StackSummaries": [
            {
                "StackId": s.id,
                "StackName": s.name,
                "TemplateDescription": (s.template or {}).get("Description"),
                "CreationTime": s.created,
                "LastUpdatedTime": s.updated,
                "DeletionTime": s.deleted,
                "StackStatus": s.status,
            }
            for s in stacks
            if s.region == region and (not wanted or s.status in wanted)
        ]
    }


def resource_view(stack, name, resource, timestamp):
    return {
        "StackName": stack.name,
        "StackId": stack.id,
        "LogicalResourceId": name,
        "PhysicalResourceId": resource.physical,
        "ResourceType": resource.type,
        timestamp: resource.changed,
        "ResourceStatus": resource.status,
        "DriftInformation": {"StackResourceDriftStatus": "NOT_CHECKED"},
    }


def list_stack_resources(region, request):
    stack = existing(region, request["StackName"])
    rows = [resource_view(stack, n, r, "LastUpdatedTimestamp") for n, r in stack.resources.items()]
    for row in rows:
        del row["StackName"], row["StackId"]
    return {"StackResourceSummaries": rows}


def describe_stack_resources(region, request):
    stack = existing(region, request["StackName"])
    wanted = request.get("LogicalResourceId")
    return {
        "StackResources": [
            resource_view(stack, n, r, "Timestamp") for n, r in stack.resources.items() if wanted in (None, n)
        ]
    }


def describe_stack_resource(region, request):
    stack, name = existing(region, request["StackName"]), request["LogicalResourceId"]
    if name not in stack.resources:
        raise invalid(f"Resource {name} does not exist for stack {stack.name}")
    return {"StackResourceDetail": resource_view(stack, name, stack.resources[name], "LastUpdatedTimestamp")}


def describe_stack_events(region, request):
    stack = existing(region, request["StackName"])
    return {"StackEvents": list(reversed(stack.visible_events()))}


def get_template(region, request):
    stack = existing(region, request["StackName"])
    return {"TemplateBody": stack.body, "StagesAvailable": ["Original", "Processed"]}


def validate_template(region, request):
    template = templates.parse(body_of(request, None))
    return {
        "Parameters": [
            {"ParameterKey": n, "DefaultValue": r.get("Default"), "NoEcho": False, "Description": r.get("Description")}
            for n, r in (template.get("Parameters") or {}).items()
        ],
        "Description": template.get("Description"),
    }


def get_template_summary(region, request):
    body = existing(region, request["StackName"]).body if request.get("StackName") else body_of(request, None)
    template = templates.parse(body)
    return {
        "Parameters": [
            {"ParameterKey": n, "DefaultValue": r.get("Default"), "ParameterType": r.get("Type")}
            for n, r in (template.get("Parameters") or {}).items()
        ],
        "ResourceTypes": sorted({r["Type"] for r in template["Resources"].values()}),
    }


# Change sets


class ChangeSet:
    def __init__(self, stack, name, kind, wanted, description):
        self.stack, self.name, self.kind, self.wanted = stack, name, kind, wanted
        self.description = description
        self.id = f"arn:aws:cloudformation:{stack.region}:{ACCOUNT}:changeSet/{name}/{uuid()}"
        self.created = engine.now()
        self.changes = stack.plan(wanted)
        empty = kind == "UPDATE" and not self.changes and not stack.other_changes(wanted)
        self.status = "FAILED" if empty else "CREATE_COMPLETE"
        self.reason = NO_CHANGES if empty else None
        self.execution = "UNAVAILABLE" if empty else "AVAILABLE"


def create_change_set(region, request):
    name, set_name = request["StackName"], request["ChangeSetName"]
    kind = request.get("ChangeSetType", "UPDATE")
    stack = find(region, name)
    if stack is not None and stack.status == "DELETE_COMPLETE":
        stack = None
    if kind == "UPDATE":
        if stack is None:
            raise invalid(f"Stack [{name}] does not exist")
        must_be_updatable(stack)
    elif stack is not None and stack.status != "REVIEW_IN_PROGRESS":
        raise invalid(f"Stack [{name}] already exists and cannot be created again with the changeSet [{set_name}].")
    wanted = desired(request, stack)
    if stack is None:
        stack = engine.Stack(region, name)
        stack.status = "REVIEW_IN_PROGRESS"
        stack.event(name, "AWS::CloudFormation::Stack", stack.id, "REVIEW_IN_PROGRESS", "User Initiated")
        stacks.append(stack)
    old = stack.change_sets.get(set_name)
    # The CLI names change sets by the second. On AWS no operation is over within one, here it may be.
    if old is not None and old.execution != "EXECUTE_COMPLETE":
        raise ApiError("AlreadyExistsException", f"ChangeSet {set_name} already exists")
    stack.change_sets[set_name] = ChangeSet(stack, set_name, kind, wanted, request.get("Description"))
    return {"Id": stack.change_sets[set_name].id, "StackId": stack.id}


def find_change_set(region, request):
    wanted = request["ChangeSetName"]
    for stack in stacks:
        if stack.region != region:
            continue
        for change_set in stack.change_sets.values():
            here = request.get("StackName") in (stack.name, stack.id)
            if change_set.id == wanted or (change_set.name == wanted and here):
                return change_set
    raise ApiError("ChangeSetNotFound", f"ChangeSet [{wanted}] does not exist", 404)


def describe_change_set(region, request):
    change_set = find_change_set(region, request)
    values = request.get("IncludePropertyValues") == "true"
    return {
        "ChangeSetName": change_set.name,
        "ChangeSetId": change_set.id,
        "StackId": change_set.stack.id,
        "StackName": change_set.stack.name,
        "Description": change_set.description,
        "Parameters": parameters_view(change_set.wanted.template, change_set.wanted.values),
        "CreationTime": change_set.created,
        "ExecutionStatus": change_set.execution,
        "Status": change_set.status,
        "StatusReason": change_set.reason,
        "Capabilities": change_set.wanted.capabilities,
        "Tags": change_set.wanted.tags,
        "Changes": [{"Type": "Resource", "ResourceChange": change_view(c, values)} for c in change_set.changes],
        "IncludeNestedStacks": False,
    }


def change_view(change, with_values):
    view = {
        "Action": change.action,
        "LogicalResourceId": change.logical,
        "PhysicalResourceId": change.physical,
        "ResourceType": change.type,
        "Replacement": change.replacement,
        "Scope": ["Properties"] if change.details else [],
        "Details": [detail_view(d, with_values) for d in change.details],
    }
    if with_values and change.details:
        view["BeforeContext"] = json.dumps({"Properties": change.before})
        view["AfterContext"] = json.dumps({"Properties": change.after})
    return view


def detail_view(detail, with_values):
    target = {
        "Attribute": "Properties",
        "Name": detail.name,
        "RequiresRecreation": "Always" if detail.replaces else "Never",
        "Path": f"/Properties/{detail.name}",
    }
    if with_values:
        for key, value in (("BeforeValue", detail.before), ("AfterValue", detail.after)):
            if value is not None:
                target[key] = value if isinstance(value, str) else json.dumps(value)
        target["AttributeChangeType"] = (
            "Add" if detail.before is None else "Remove" if detail.after is None else "Modify"
        )
    return {
        "Target": target,
        "Evaluation": "Dynamic" if detail.source == "ResourceReference" else "Static",
        "ChangeSource": detail.source,
        "CausingEntity": detail.cause,
    }


def execute_change_set(region, request):
    change_set = find_change_set(region, request)
    stack = change_set.stack
    if change_set.execution != "AVAILABLE":
        raise ApiError(
            "InvalidChangeSetStatus",
            f"ChangeSet [{change_set.id}] cannot be executed in its current status of [{change_set.status}]",
        )
    if change_set.kind == "UPDATE":
        must_be_updatable(stack)
    # Every other change set was made for a state of the stack that is now past.
    stack.change_sets = {change_set.name: change_set}
    stack.change_set_id = change_set.id
    change_set.execution = "EXECUTE_COMPLETE"
    start = stack.create if change_set.kind == "CREATE" else stack.update
    start(change_set.wanted, poll_count(stack.name), request.get("ClientRequestToken"))
    return {}


def delete_change_set(region, request):
    try:
        change_set = find_change_set(region, request)
    except ApiError:
        return {}
    del change_set.stack.change_sets[change_set.name]
    return {}


def list_change_sets(region, request):
    stack = existing(region, request["StackName"])
    return {
        "Summaries": [
            {
                "StackId": stack.id,
                "StackName": stack.name,
                "ChangeSetId": c.id,
                "ChangeSetName": c.name,
                "ExecutionStatus": c.execution,
                "Status": c.status,
                "StatusReason": c.reason,
                "Description": c.description,
                "CreationTime": c.created,
            }
            for c in stack.change_sets.values()
        ]
    }


OPERATIONS = {
    "CreateStack": create_stack,
    "UpdateStack": update_stack,
    "DeleteStack": delete_stack,
    "DescribeStacks": describe_stacks,
    "ListStacks": list_stacks,
    "ListStackResources": list_stack_resources,
    "DescribeStackResources": describe_stack_resources,
    "DescribeStackResource": describe_stack_resource,
    "DescribeStackEvents": describe_stack_events,
    "GetTemplate": get_template,
    "GetTemplateSummary": get_template_summary,
    "ValidateTemplate": validate_template,
    "CreateChangeSet": create_change_set,
    "DescribeChangeSet": describe_change_set,
    "ExecuteChangeSet": execute_change_set,
    "DeleteChangeSet": delete_change_set,
    "ListChangeSets": list_change_sets,
}
