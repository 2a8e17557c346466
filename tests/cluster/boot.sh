#!/bin/bash
# What a host of hosts.py does first, in namespaces of its own and until it is killed:
#   boot.sh NAME ADDRESS DISK SHARED KEYS USER CHECKOUT FOLDER...     FOLDER: what the user must be able to enter
set -euo pipefail
name=$1 address=$2 disk=$3 shared=$4 keys=$5 user=$6 checkout=$7
shift 7

# A disk of its own above the files of this machine, without what other Rays left here.
mkdir -p "$disk"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$disk/root"
cd "$disk/root"
mkdir -p shared tmp/ray
mount --rbind /dev dev
mount -t tmpfs -o size=1g,mode=1777 tmpfs dev/shm # less than Ray would like to have, as in many containers
mount -t tmpfs -o mode=1777 tmpfs tmp/ray
mount -t tmpfs tmpfs run
mount --rbind /sys sys
mount -t proc proc proc
mount --bind "$shared" shared
mkdir run/sshd
chmod 1777 shared tmp
for folder; do chmod o+rx ".$folder"; done
hostname "$name"

# The network: the other end of this cable is put in by hosts.py.
until ip link show eth0 > /dev/null 2>&1; do sleep 0.1; done
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up

# A user, for whom the packages were installed before: nothing can be downloaded here.
export HOST_USER=$user HOST_KEYS=$keys HOST_CHECKOUT=$checkout
exec chroot . bash -euc '
    touch "$HOST_CHECKOUT/.venv/.installed"
    if ! id "$HOST_USER" > /dev/null 2>&1; then
        useradd --create-home --shell /bin/bash --password "*" "$HOST_USER"
        cd "$(eval echo ~"$HOST_USER")"
        mkdir -m 700 .ssh app
        cp "$HOST_KEYS"/{id_ed25519,authorized_keys} .ssh
        ln -s "$HOST_CHECKOUT/.venv" app/.venv
        chown -R -h "$HOST_USER" .ssh app
    fi
    exec env -i /usr/sbin/sshd -D -e -f /dev/null -o PidFile=none -o LogLevel=ERROR -o HostKey="$HOST_KEYS/host"'
