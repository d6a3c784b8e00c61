"""The cluster launcher's file, its roles, and the page of virtual machines, as Ray, EC2 and the parsers read them."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import boto3
import jsonschema
import pytest
import yaml
from botocore.exceptions import ParamValidationError
from botocore.validate import validate_parameters
from click import ClickException
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli

from jobs import label_dataset, submit
from pipeline.errors import ConfigError
from tests.support.aws_commands import NoSuchCommandError, check_aws

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = (ROOT / "infra" / "vm" / "cluster.yaml").read_text()
PAGES = {name: (ROOT / "docs" / "operate" / name).read_text() for name in ("vms.md", "object-store.md")}
EC2 = boto3.client("ec2", region_name="eu-central-1", aws_access_key_id="none", aws_secret_access_key="none")


def check_cluster(text):
    """Reads a launcher's file as Ray does, and its machines as EC2 would."""
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    run_instances = EC2.meta.service_model.operation_model("RunInstances").input_shape
    for node_type in config["available_node_types"].values():
        validate_parameters({**node_type["node_config"], "MinCount": 1, "MaxCount": 1}, run_instances)
    return config


def test_ray_and_ec2_take_the_launchers_file():
    config = check_cluster(CLUSTER)
    assert set(config["available_node_types"]) == {"head", "cpu", "gpu"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_workers: 3", "max_worker: 3"),
        ("max_workers: 3", "max_workers: 2"),
        ("resources: {CPU: 0}", "resource: {CPU: 0}"),
        ("head_node_type: head", "head_node_type: hat"),
        ("CPU: 16, GPU: 1", "CPU: 16, GPU: one"),
        ("ssh_user", "ssh_usr"),
        ("setup_commands:", "set_up_commands:"),
        ("InstanceType: c7i", "InstanceTyp: c7i"),
        ("MarketType: spot", "Market: spot"),
        ("IamInstanceProfile: {Name: pvtv2-head}", "IamInstanceProfile: pvtv2-head"),
        ("[SECURITY-GROUP]", "SECURITY-GROUP"),
    ],
)
def test_a_mistake_in_the_launchers_file_is_noticed(old, new):
    assert old in CLUSTER
    with pytest.raises((jsonschema.ValidationError, ParamValidationError, ValueError)):
        check_cluster(CLUSTER.replace(old, new))


def test_workers_are_there_before_a_job_divides_the_processors_and_the_head_has_none():
    config = check_cluster(CLUSTER)
    types = config["available_node_types"]
    workers = [types[name] for name in ("cpu", "gpu")]
    assert all(worker["min_workers"] == worker["max_workers"] > 0 for worker in workers)
    assert sum(worker["max_workers"] for worker in workers) == config["max_workers"]
    assert types["head"]["resources"] == {"CPU": 0}
    assert [("InstanceMarketOptions" in types[name]["node_config"]) for name in types] == [False, True, True]


def test_nobody_outside_reaches_the_dashboard():
    config = check_cluster(CLUSTER)
    # Without a group of its own for each kind of machine, Ray makes one that is open to the world at port 22.
    assert all(node["node_config"].get("SecurityGroupIds") for node in config["available_node_types"].values())
    starts = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert len(starts) == 1 and "--dashboard-host=127.0.0.1" in starts[0]
    everything = CLUSTER + "".join(PAGES.values())
    assert not re.search(r"(?<![\d.])0\.0\.0\.0", everything)
    assert "RAY_AUTH_MODE=token" in CLUSTER and "/.ray/auth_token" in CLUSTER


def test_the_nodes_take_the_versions_that_are_pinned():
    config = check_cluster(CLUSTER)
    (install,) = [line for line in config["setup_commands"] if "-c constraints.txt ." in line]
    assert (ROOT / "constraints.txt").exists() and "cd ~/pvtv2 &&" in install
    requires = re.search(r'requires-python = ">=([\d.]+)', (ROOT / "pyproject.toml").read_text())[1]
    assert any(f"--python {requires} " in line for line in config["setup_commands"])


HEAD_ROLE = (ROOT / "infra" / "vm" / "head.json").read_text()
NODE_TYPES = yaml.safe_load(CLUSTER)["available_node_types"]
WORKER_TYPES = [NODE_TYPES[name]["node_config"]["InstanceType"] for name in ("cpu", "gpu")]
OF_THE_CLUSTER = {"ray-cluster-name": yaml.safe_load(CLUSTER)["cluster_name"]}
IN_REGION = "arn:aws:ec2:REGION:ACCOUNT:"
# What the head may do: actions, resources, and under which condition.
RIGHTS = [
    (["ec2:DescribeInstances"], ["*"], {}),
    (
        ["ec2:RunInstances"],
        [f"{IN_REGION}instance/*"],
        {"ec2:InstanceType": WORKER_TYPES, **{f"aws:RequestTag/{key}": it for key, it in OF_THE_CLUSTER.items()}},
    ),
    (
        ["ec2:RunInstances"],
        [f"{IN_REGION}{kind}/*" for kind in ("volume", "network-interface", "spot-instances-request", "subnet")]
        + [f"{IN_REGION}key-pair/{NODE_TYPES['cpu']['node_config']['KeyName']}"]
        + [f"{IN_REGION}security-group/SECURITY-GROUP", "arn:aws:ec2:REGION::image/IMAGE-ID"],
        {},
    ),
    (["ec2:CreateTags"], [f"{IN_REGION}*/*"], {"ec2:CreateAction": "RunInstances"}),
    (
        ["ec2:CreateTags", "ec2:TerminateInstances"],
        [f"{IN_REGION}instance/*"],
        {f"ec2:ResourceTag/{key}": it for key, it in OF_THE_CLUSTER.items()},
    ),
    (["iam:PassRole"], ["arn:aws:iam::ACCOUNT:role/pvtv2-worker"], {}),
]


def rights(policy):
    """Returns the rights of a policy, in the form of the list above."""
    found = []
    for statement in json.loads(policy)["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        condition = statement.get("Condition", {"StringEquals": {}})
        assert set(condition) == {"StringEquals"}
        found.append((ensure_list(statement["Action"]), ensure_list(statement["Resource"]), condition["StringEquals"]))
    return found


def test_the_launchers_own_role_starts_and_ends_its_own_nodes_alone():
    assert rights(HEAD_ROLE) == RIGHTS
    actions = {action for some, _, _ in RIGHTS for action in some}
    known = {f"ec2:{name}" for name in EC2.meta.service_model.operation_names}
    assert actions - known == {"iam:PassRole"}
    assert NODE_TYPES["cpu"]["node_config"]["IamInstanceProfile"] == {"Name": "pvtv2-worker"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"ec2:InstanceType": ["c7i.4xlarge", "g6.4xlarge"], ', ""),
        ('["c7i.4xlarge", "g6.4xlarge"]', '["c7i.4xlarge", "p5.48xlarge"]'),
        (', "aws:RequestTag/ray-cluster-name": "pvtv2"', ""),
        ('"Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}}', '"Effect": "Allow"'),
        ('"ec2:TerminateInstances"', '"ec2:StopInstances"'),
        ('"Action": "ec2:CreateTags"', '"Action": ["ec2:CreateTags", "ec2:TerminateInstances"]'),
        ("ec2:ResourceTag/ray-cluster-name", "ec2:ResourceTag/name"),
        ("role/pvtv2-worker", "role/*"),
        ("key-pair/pvtv2", "key-pair/*"),
        ("image/IMAGE-ID", "image/*"),
        ('"ec2:DescribeInstances"', '"ec2:Describe*"'),
    ],
)
def test_a_role_that_is_too_wide_or_too_narrow_is_noticed(old, new):
    assert old in HEAD_ROLE
    assert rights(HEAD_ROLE.replace(old, new)) != RIGHTS


def ensure_list(value):
    return value if isinstance(value, list) else [value]


def test_every_node_knows_the_buckets_region():
    config = check_cluster(CLUSTER)
    (setting,) = [line for line in config["setup_commands"] if "RAY_AUTH_MODE=token" in line]
    assert f" AWS_REGION={config['provider']['region']}'" in setting
    starts = [block for block in blocks("vms.md") if "ray start" in block]
    assert len(starts) == 2 and all(" AWS_REGION=" in block for block in starts)


def test_the_launcher_adds_no_commands_of_its_own_that_would_fail():
    # It would install boto3 by a pip that is not there, or may not.
    # Once prepared, the list holds the set-up of all nodes and then the head's own.
    config = check_cluster(CLUSTER)
    assert config["head_setup_commands"] == config["setup_commands"] == yaml.safe_load(CLUSTER)["setup_commands"]
    config = check_cluster(CLUSTER.replace("head_setup_commands: []", ""))
    assert "boto3" in config["head_setup_commands"][-1]


def test_the_cluster_has_a_key_of_its_own():
    config = check_cluster(CLUSTER)
    names = {node["node_config"]["KeyName"] for node in config["available_node_types"].values()}
    assert names == {Path(config["auth"]["ssh_private_key"]).stem}
    assert f"--key-name {names.pop()} " in PAGES["vms.md"]


def check_ray(words):
    """Parses a command line of Ray's without running it."""
    context = cli.make_context("ray", words)
    name, command, rest = cli.resolve_command(context, cli.get_params(context) and words)
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, rest, parent=context)
        name, command, rest = command.resolve_command(context, rest)
    return command.make_context(name, rest, parent=context)


def check_job(words):
    """Parses a command line of ours."""
    if words[0] == "jobs/submit.py":
        end = words.index("--")
        submit._parser().parse_args([*words[1:end], "--", "command"])
        return check_job(words[end + 2 :])
    assert words[0] == "jobs/label_dataset.py"
    return label_dataset._parser().parse_args(words[1:])


def commands(text):
    """Returns the simple commands of a script as words, without variable settings and without redirections."""
    text = re.sub(r"\\\n\s*", "", text)
    found = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>{}")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()<>{}"):
                found.append(words)
                words = []
            else:
                words.append(word)
    return [words for words in found if words]


def blocks(page):
    return re.findall(r"^```sh\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def check_line(words):
    """Gives a command to the parser of the program that it calls; returns that program's name, or None."""
    program, arguments = words[0].rpartition("/")[2], words[1:]
    if program in ("do", "then"):
        return check_line(arguments) if arguments else None
    if program == "ray":
        check_ray(arguments)
    elif program == "aws":
        check_aws(arguments)
    elif program == "python" and arguments[0].startswith("jobs/"):
        check_job(arguments)
    else:
        return None
    return program


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_the_pages_is_one(page):
    checked = [check_line(words) for block in blocks(page) for words in commands(block)]
    least = {"vms.md": {"ray": 6, "aws": 10, "python": 2}, "object-store.md": {"aws": 5}}
    assert all(checked.count(program) >= number for program, number in least[page].items()), checked


def test_the_launchers_own_commands_are_such():
    config = yaml.safe_load(CLUSTER)
    lines = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    checked = [check_line(words) for line in lines for words in commands(line)]
    assert checked.count("ray") == 4


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("ray start --head --dashbord-host=127.0.0.1", ClickException),
        ("ray upp build/cluster.yaml", ClickException),
        ("aws iam create-rolle --role-name x", NoSuchCommandError),
        ("aws iam create-role --role x --assume-role-policy-document file://infra/vm/trust.json", NoSuchCommandError),
        ("aws iam create-role --role-name x", ParamValidationError),
        ("python jobs/submit.py --adress http://x -- python jobs/label_dataset.py --input a", ConfigError),
        (
            "python jobs/submit.py --address http://x -- python jobs/label_dataset.py --inptu a --weights b --output c",
            ConfigError,
        ),
    ],
)
def test_a_command_that_is_none_is_noticed(line, error):
    with pytest.raises(error):
        [check_line(words) for words in commands(line)]


@pytest.mark.parametrize("page", PAGES)
def test_a_shell_reads_every_script_of_the_pages(page):
    for block in blocks(page):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=30)
        assert done.stderr == ""


def test_a_shell_reads_every_command_of_the_launcher():
    config = yaml.safe_load(CLUSTER)
    lines = [line for name, lines in config.items() if name.endswith("_commands") for line in lines]
    assert len(lines) == 10
    for line in lines:
        done = subprocess.run(["bash", "-n"], input=line, capture_output=True, text=True, timeout=30)
        assert done.stderr == ""


def test_every_file_beside_the_launchers_is_on_the_page():
    assert not [
        path.name for path in (ROOT / "infra" / "vm").iterdir() if f"infra/vm/{path.name}" not in PAGES["vms.md"]
    ]
