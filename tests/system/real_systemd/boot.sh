#!/bin/sh
# Boots systemd as PID 1 of namespaces of its own, on a copy-on-write view of a file system, with
# loopback as its only network. Everything ends with the process that runs this script.
#   boot.sh TREE SHARED CGROUP SECONDS
# TREE is the file system, SHARED the folder that the machine has as /srv/check, CGROUP an empty
# control group for it, and SECONDS the time after which it is killed.
set -eu
echo $$ >"$3/cgroup.procs"
exec timeout --kill-after=5 "$4" unshare --pid --mount --uts --ipc --net --cgroup --fork \
  --kill-child --propagation private sh "$(dirname "$0")/init.sh" "$1" "$2"
