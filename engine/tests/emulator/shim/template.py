"""CloudFormation templates: reading them, their parameters and conditions, and resolving their functions."""

import datetime
import json
import re

import yaml

from .common import ACCOUNT, ApiError


def invalid(message):
    return ApiError("ValidationError", message)


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short functions, and with dates left as the text they are."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _short_function(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_function)


def parse(body):
    if len(body.encode()) > 51200:
        raise invalid("1 validation error detected: Value at 'templateBody' failed to satisfy constraint: "
                      "Member must have length less than or equal to 51200")
    try:
        template = json.loads(body) if body.lstrip().startswith("{") else yaml.load(body, _Loader)
    except (ValueError, yaml.YAMLError) as error:
        raise invalid(f"Template format error: {error}") from None
    if not isinstance(template, dict) or not template.get("Resources"):
        raise invalid("Template format error: At least one Resources member must be defined.")
    return template


# Parameters


def parameter_values(template, given, previous):
    """The value of every parameter of the template, checked as CloudFormation checks them."""
    declared = template.get("Parameters") or {}
    unknown = [entry["ParameterKey"] for entry in given if entry["ParameterKey"] not in declared]
    if unknown:
        raise invalid(f"Parameters: [{', '.join(unknown)}] do not exist in the template")
    values = {name: _text(rules["Default"]) for name, rules in declared.items() if "Default" in rules}
    for entry in given:
        name = entry["ParameterKey"]
        if entry.get("UsePreviousValue") == "true":
            if name not in previous:
                raise invalid(f"Invalid input for parameter key {name}. Cannot specify usePreviousValue as true for a parameter key not in the previous template")
            values[name] = previous[name]
        else:
            values[name] = entry.get("ParameterValue", "")
    missing = [name for name in declared if name not in values]
    if missing:
        raise invalid(f"Parameters: [{', '.join(missing)}] must have values")
    for name, rules in declared.items():
        _check(name, values[name], rules)
    return values


def _text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _check(name, value, rules):
    allowed = [_text(v) for v in rules.get("AllowedValues", [])]
    note = rules.get("ConstraintDescription")
    if allowed and value not in allowed:
        raise invalid(note and f"Parameter '{name}' failed to satisfy constraint: {note}"
                      or f"Parameter '{name}' must be one of AllowedValues")
    if rules.get("Type") == "Number":
        try:
            number = float(value)
        except ValueError:
            raise invalid(f"Parameter '{name}' must be a number.") from None
        if number < float(rules.get("MinValue", number)):
            raise invalid(f"Parameter '{name}' must be a number not less than {rules['MinValue']}")
        if number > float(rules.get("MaxValue", number)):
            raise invalid(f"Parameter '{name}' must be a number not greater than {rules['MaxValue']}")
    if "MinLength" in rules and len(value) < int(rules["MinLength"]):
        raise invalid(f"Parameter '{name}' must contain at least {rules['MinLength']} characters")
    if "AllowedPattern" in rules and not re.fullmatch(rules["AllowedPattern"], value):
        raise invalid(f"Parameter '{name}' {note or 'must match pattern ' + rules['AllowedPattern']}")


# Functions

NO_VALUE = object()


class Resolver:
    """Resolves functions; `physical` and `attribute` tell what the resources of the stack are called."""

    def __init__(self, template, values, stack_name, stack_id, region, physical, attribute):
        self.template = template
        self.values = values
        self.physical = physical
        self.attribute = attribute
        self.region = region
        self.pseudo = {
            "AWS::Region": region,
            "AWS::AccountId": ACCOUNT,
            "AWS::StackName": stack_name,
            "AWS::StackId": stack_id,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NotificationARNs": [],
            "AWS::NoValue": NO_VALUE,
        }

    def condition(self, name):
        return self.resolve(self.template["Conditions"][name])

    def resources(self):
        """The resources whose condition holds, each after those that it needs."""
        active = {
            name: resource
            for name, resource in self.template["Resources"].items()
            if "Condition" not in resource or self.condition(resource["Condition"])
        }
        ordered, state = {}, {}

        def visit(name):
            if state.get(name) == "open":
                raise invalid(f"Circular dependency between resources: [{name}]")
            if name in ordered:
                return
            state[name] = "open"
            for needed in sorted(self.needs(active[name])):
                if needed in active:
                    visit(needed)
            state[name] = "done"
            ordered[name] = active[name]

        for name in active:
            visit(name)
        return ordered

    def needs(self, resource):
        explicit = resource.get("DependsOn", [])
        explicit = {explicit} if isinstance(explicit, str) else set(explicit)
        return explicit | names_in(resource.get("Properties")) | names_in(resource.get("Metadata"))

    def resolve(self, node):
        if isinstance(node, list):
            items = [self.resolve(item) for item in node]
            return [item for item in items if item is not NO_VALUE]
        if isinstance(node, datetime.date):
            return node.isoformat()
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            name, argument = next(iter(node.items()))
            if name == "Ref":
                return self.ref(argument)
            if name == "Condition" and isinstance(argument, str):
                return self.condition(argument)
            if name.startswith("Fn::"):
                return self.function(name[4:], argument)
        items = {key: self.resolve(value) for key, value in node.items()}
        return {key: value for key, value in items.items() if value is not NO_VALUE}

    def ref(self, name):
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.values:
            kind = self.template["Parameters"][name].get("Type", "String")
            value = self.values[name]
            if kind == "CommaDelimitedList" or kind.startswith("List<"):
                return [item.strip() for item in value.split(",")] if value else []
            return value
        return self.physical(name)

    def function(self, name, argument):
        if name == "If":
            chosen = argument[1] if self.condition(argument[0]) else argument[2]
            return self.resolve(chosen)
        if name == "Sub":
            return self.substitute(argument)
        if name == "GetAtt":
            logical, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
            return self.attribute(logical, attribute)
        argument = self.resolve(argument)
        if name == "Equals":
            return _text(argument[0]) == _text(argument[1])
        if name == "Not":
            return not argument[0]
        if name == "And":
            return all(argument)
        if name == "Or":
            return any(argument)
        if name == "Join":
            return argument[0].join(_text(item) for item in argument[1])
        if name == "Split":
            return argument[1].split(argument[0])
        if name == "Select":
            return argument[1][int(argument[0])]
        if name == "GetAZs":
            return [f"{argument or self.region}{zone}" for zone in "abc"]
        if name == "FindInMap":
            return self.template["Mappings"][argument[0]][argument[1]][argument[2]]
        if name == "Cidr":
            return _cidr(*argument)
        raise invalid(f"Template error: the emulator does not know Fn::{name}")

    def substitute(self, argument):
        text, extra = argument if isinstance(argument, list) else (argument, {})

        def value(match):
            name = match[1].strip()
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in extra:
                return _text(self.resolve(extra[name]))
            if "." in name:
                return _text(self.attribute(*name.split(".", 1)))
            return _text(self.ref(name))

        return re.sub(r"\$\{([^}]+)\}", value, text)


def _cidr(block, count, bits):
    import ipaddress

    blocks = ipaddress.ip_network(block).subnets(new_prefix=32 - int(bits))
    return [str(next(blocks)) for _ in range(int(count))]


def names_in(node):
    """Every name that a piece of a template refers to, resource or parameter, both branches of an If."""
    if isinstance(node, list):
        return set().union(*map(names_in, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    found = set()
    for key, value in node.items():
        if key == "Ref":
            found.add(value)
        elif key == "Fn::GetAtt":
            found.add(value[0] if isinstance(value, list) else value.split(".", 1)[0])
        elif key == "Fn::Sub":
            text = value if isinstance(value, str) else value[0]
            found |= {name.strip().split(".", 1)[0] for name in re.findall(r"\$\{([^}!]+)\}", text)}
            found |= names_in(value[1]) if isinstance(value, list) else set()
        elif key == "Condition" and isinstance(value, str):
            found.add(value)
        else:
            if key == "Fn::If" and isinstance(value, list):
                found.add(value[0])
            found |= names_in(value)
    return found
