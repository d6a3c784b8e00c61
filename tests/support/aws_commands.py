"""Command lines of AWS' own tool, held against the service models of botocore; nothing is sent."""

import json
from pathlib import Path
from typing import Any

import boto3
from botocore import xform_name
from botocore.validate import validate_parameters

ROOT = Path(__file__).resolve().parents[2]
_SERVICES = {"s3api": "s3"}


class NoSuchCommandError(Exception):
    """The service has no such operation, or the operation no such parameter."""


def check_aws(words: list[str]) -> dict[str, Any]:
    """Returns the parameters of `aws SERVICE OPERATION --NAME VALUE ...`.

    Of `file://` values those below build/ are taken as they are before names are filled in.

    Raises:
        NoSuchCommandError, botocore.exceptions.ParamValidationError: it would not be taken.
    """
    service, operation, *flags = words
    model = boto3.client(
        _SERVICES.get(service, service), region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    ).meta.service_model
    names = {xform_name(name, "-"): name for name in model.operation_names}
    if operation not in names:
        raise NoSuchCommandError(f"aws {service} {operation}")
    shape = model.operation_model(names[operation]).input_shape
    members = {xform_name(name, "-"): name for name in shape.members}
    parameters: dict[str, Any] = {}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        if flag in _OF_THE_TOOL:
            continue
        if flag.removeprefix("--") not in members:
            # Spellings of the tool's own for one rule of a security group.
            if operation == "authorize-security-group-ingress" and flag in _RULE_FLAGS:
                continue
            raise NoSuchCommandError(f"aws {service} {operation} {flag}")
        name = members[flag.removeprefix("--")]
        parameters[name] = _read(value, shape.members[name].type_name)
    validate_parameters(parameters, shape)
    return parameters


# What is printed of the answer, and how.
_OF_THE_TOOL = ("--query", "--output")
_RULE_FLAGS = ("--protocol", "--port", "--cidr", "--source-group")


def _read(value: str, type_name: str) -> Any:
    if value.startswith("file://"):
        path = value.removeprefix("file://")
        for built in ("build/policies/", "build/"):
            path = path.replace(built, "")
        found = [place for place in (ROOT / path, *ROOT.glob(f"infra/*/{path}")) if place.exists()]
        value = found[0].read_text()
        json.loads(value)
    return json.loads(value) if type_name == "structure" else value
