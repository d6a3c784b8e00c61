"""The Dockerfile and its context, checked by hadolint and by our own rules; and the image's health check, run here."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "infra" / "image" / "Dockerfile").read_text()
HEALTHCHECK = ROOT / "infra" / "image" / "healthcheck.py"
CONTEXT = {
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "model",
    "pipeline",
    "jobs",
    "weights/digits",
    "infra/image/healthcheck.py",
}
SECRET = re.compile(r"\b\w*(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_KEY|INDEX_URL)\w*", re.IGNORECASE)
HOST = re.compile(r"https?://|\b[a-z0-9-]+\.(org|com|io|net)/")


def instructions(text):
    """Returns (keyword, arguments) of each instruction, with its lines joined and without comments."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = lines.replace("\\\n", " ")
    return [(line.split()[0], line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def last_stage(text):
    found = instructions(text)
    begin = max(index for index, (keyword, _) in enumerate(found) if keyword == "FROM")
    return found[begin:]


def hadolint(folder, text):
    """Returns hadolint's complaints about a Dockerfile."""
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program, "hadolint is among what `make setup` installs"
    (folder / "Dockerfile").write_text(text)
    done = subprocess.run([program, "Dockerfile"], cwd=folder, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def breaches(text):
    """Returns our own rules that a Dockerfile breaks."""
    found, final = instructions(text), last_stage(text)
    users = [arguments for keyword, arguments in final if keyword == "USER"]
    sources = {
        source
        for keyword, arguments in found
        if keyword in ("COPY", "ADD") and "--from=" not in arguments
        for source in arguments.split()[:-1]
    }
    installs = [arguments for keyword, arguments in final if keyword == "RUN" and "apt-get install" in arguments]
    rules = {
        "latest": ":latest" in text,
        "root": not users or users[-1] != "10001:10001",
        "secret": any(keyword in ("ARG", "ENV") and SECRET.search(arguments) for keyword, arguments in found),
        "context": sources != CONTEXT,
        "host": HOST.search("\n".join(f"{keyword} {arguments}" for keyword, arguments in found)) is not None,
        "compiler": any(not line.startswith('if [ "${TORCH}" != cpu ]; then') for line in installs),
        "entrypoint": ("ENTRYPOINT", '["/usr/bin/tini", "--"]') not in final,
    }
    return {rule for rule, is_broken in rules.items() if is_broken}


def test_hadolint_has_no_complaint(tmp_path):
    assert hadolint(tmp_path, DOCKERFILE) == ""


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("FROM ${BASE} AS build", "FROM debian:latest AS build", "DL3007"),
        ("WORKDIR /src", "WORKDIR src", "DL3000"),
        ("install -y --no-install-recommends gcc libc6-dev tini", "install gcc libc6-dev tini", "DL3014"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ('"${torch}+${TORCH}"', "${torch}+${TORCH}", "SC2086"),
        ("COPY --from=build /opt/venv", "COPY --from=biuld /opt/venv", "DL3022"),
        ("COPY README.md ./", "COPI README.md ./", "unexpected"),
    ],
)
def test_hadolint_notices_a_mistake(tmp_path, old, new, rule):
    assert old in DOCKERFILE
    assert rule in hadolint(tmp_path, DOCKERFILE.replace(old, new))


def test_the_dockerfile_keeps_its_own_rules():
    assert breaches(DOCKERFILE) == set()


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("BASE=python:3.11-slim-bookworm", "BASE=python:latest", "latest"),
        ("USER 10001:10001\n", "", "root"),
        ("USER 10001:10001", "USER 10001:10001\nUSER 0", "root"),
        ("ARG REVISION=unknown", "ARG REVISION=unknown\nARG HF_TOKEN", "secret"),
        ("HOME=/tmp", "HOME=/tmp AWS_SECRET_ACCESS_KEY=", "secret"),
        ("ENV PIP_NO_CACHE_DIR=1", "ENV PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=somewhere", "secret"),
        ("COPY README.md ./", "COPY . ./", "context"),
        ("COPY README.md ./", "COPY README.md tests ./", "context"),
        ("pip install -q --no-deps", "pip install -i https://index.example/simple -q --no-deps", "host"),
        ("RUN if [", "RUN apt-get update && apt-get install -y gcc && if [", "compiler"),
        ('"/usr/bin/tini", "--"', '"/bin/sh", "-c"', "entrypoint"),
    ],
)
def test_a_broken_rule_of_our_own_is_noticed(old, new, rule):
    assert old in DOCKERFILE
    assert rule in breaches(DOCKERFILE.replace(old, new))


def test_the_context_holds_what_is_copied_and_no_more():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert {line[1:] for line in lines if line.startswith("!")} == CONTEXT
    assert [line for line in lines if not line.startswith("!")] == ["*", "**/__pycache__", "**/*.so"]
    for name in CONTEXT:
        assert (ROOT / name).exists(), name


def test_every_file_of_the_packages_is_python_or_package_data():
    # Any other file that a package reads at run time would be missing in an installed package, and so in the image.
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    data = [f"{package.replace('.', '/')}/{glob}" for package, globs in tools["package-data"].items() for glob in globs]
    built = [*tools["ext-modules"][0]["sources"], *tools["ext-modules"][0]["depends"]]
    for top in ("model", "pipeline", "jobs"):
        for path in (ROOT / top).rglob("*"):
            name = str(path.relative_to(ROOT))
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert name in built or any(fnmatch.fnmatch(name, glob) for glob in data), name


def test_the_version_is_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = next(arguments for keyword, arguments in last_stage(DOCKERFILE) if keyword == "LABEL")
    assert f'image.version="{project["version"]}"' in labels


def test_the_check_is_passed_here():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, HEALTHCHECK], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.match(
        r"healthy: torch .* on (cpu|cuda), .* in one pack differ by \S+ from the plain network\n", done.stdout
    )


@pytest.fixture
def healthcheck():
    spec = spec_from_file_location("healthcheck", HEALTHCHECK)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_wrong_answer_fails_the_check(healthcheck, monkeypatch, capsys):
    right = healthcheck.run_packed

    def swapped(model, images):
        return right(model, images[::-1])

    monkeypatch.setattr(healthcheck, "run_packed", swapped)
    assert healthcheck.main() == 1
    assert "answers differ by" in capsys.readouterr().err


def test_an_answer_that_is_no_number_fails_the_check(healthcheck, monkeypatch, capsys):
    right = healthcheck.run_packed

    def spoiled(model, images):
        found = right(model, images)
        return replace(found, logits=found.logits * float("nan"))

    monkeypatch.setattr(healthcheck, "run_packed", spoiled)
    assert healthcheck.main() == 1
    assert "answers differ by inf" in capsys.readouterr().err


def test_an_error_fails_the_check_and_is_named(healthcheck, monkeypatch, capsys):
    def broken(*_):
        raise OSError("libcuda is of another release")

    monkeypatch.setattr(healthcheck, "run_packed", broken)
    assert healthcheck.main() == 1
    assert "OSError: libcuda is of another release" in capsys.readouterr().err
