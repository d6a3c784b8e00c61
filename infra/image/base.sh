#!/usr/bin/env bash
# A base for infra/image/Dockerfile where no registry is reached: Debian's own packages, Python 3.11 among them.
#
#     infra/image/base.sh NAME PODMAN...
set -euo pipefail
name=$1
shift
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
# Debian 12 is the release that has Python 3.11.
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3.11-minimal,python3.11,python3.11-venv \
  bookworm "$made/base.tar"
"$@" import --change CMD=/bin/bash "$made/base.tar" "$name"
