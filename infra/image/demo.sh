#!/usr/bin/env bash
# Runs the demo's job in a container with a read-only root, a fresh /tmp and the image's own user. Then the script stops
# a second run in the middle.
#
#     RUN_FLAGS="..." infra/image/demo.sh SHARDS OUTPUT IMAGE PODMAN...
set -euo pipefail
shards=$(realpath "$1") output=$2 image=$3
shift 3
rm -rf "$output"
install -d -o 10001 -g 10001 "$output"
output=$(realpath "$output")
read -ra more <<< "${RUN_FLAGS:-}"
run=("$@" run --rm --read-only --tmpfs "/tmp:rw,exec,mode=1777" --shm-size 3g --network host --cgroups disabled
  --volume "$shards:/shards:ro" --volume "$output:/output" "${more[@]}")
job=(python jobs/classify.py --input /shards --weights weights/digits)

echo '$ the check of the image, which is its default command'
"${run[@]}" "$image"

echo '$ who, and what is not there'
# The shell in the container expands the variables, not this one.
# shellcheck disable=SC2016
"${run[@]}" "$image" sh -euc '
  id
  touch /tmp/mine
  ! touch /opt/pvtv2-batch/mine || exit 1
  test ! -s /etc/pip.conf
  test "$(cat /proc/1/comm)" = tini
  ! command -v gcc || python -c "import torch; assert torch.version.cuda"
'

echo "\$ ${job[*]} --output /output/labels"
"${run[@]}" "$image" "${job[@]}" --output /output/labels
"${run[@]}" "$image" python -c "
import duckdb
rows = duckdb.sql(\"\"\"SELECT count(*), count(DISTINCT image_id), sum((label = true_label)::int), sum((status = 'failed')::int)
                        FROM '/output/labels/data/*.parquet'\"\"\").fetchall()[0]
print('%d rows of %d images, %d rightly read, %d failed' % rows)
assert rows[0] == rows[1] > 0 and rows[2] > 0.9 * rows[0], rows
"

echo '$ podman stop, in the middle of a run: exit 9'
container=$("${run[@]}" --detach --rm=false "$image" "${job[@]}" --output /output/stopped)
trap '"$@" rm --force "$container" > /dev/null' EXIT
for _ in $(seq 300); do
  [[ $("$@" logs "$container" 2>&1) != *pass.started* ]] || break
  sleep 0.5
done
"$@" stop --time 120 "$container" > /dev/null
code=$("$@" wait "$container")
"$@" logs --tail 3 "$container"
test "$code" = 9 || { echo "exit $code, not 9" >&2; exit 1; }
