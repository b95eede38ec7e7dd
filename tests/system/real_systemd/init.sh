#!/bin/sh
# The part of boot.sh that runs in the new namespaces, and becomes systemd.
set -eu
tree=$1
shared=$2

view=$(mktemp -d)
mount -t tmpfs -o size=3g tmpfs "$view"
mkdir "$view/upper" "$view/work" "$view/root"
mount -t overlay -o "lowerdir=$tree,upperdir=$view/upper,workdir=$view/work" overlay "$view/root"
cd "$view/root"

# Nothing else that this host would start, and nothing of a tagsync that is installed on it.
rm -rf etc/systemd/system/*.wants var/lib/tagsync etc/tagsync opt/tagsync var/log/journal
: >etc/machine-id

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
  : >"dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr

mkdir -p srv/check old
mount --bind "$shared" srv/check
hostname tagsync-check
ip link set lo up
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system \
  --log-target=journal systemd.unit=multi-user.target
