#!/usr/bin/env bash
# Makes a base image for infra/image/Dockerfile from Debian's packages, where no registry can be reached.
#
#     infra/image/base.sh NAME PODMAN...
set -euo pipefail
name=$1
shift
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
# Debian 12 (bookworm) has Python 3.11.
mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3.11-minimal,python3.11,python3.11-venv \
  bookworm "$made/base.tar"
"$@" import --change CMD=/bin/bash "$made/base.tar" "$name"
