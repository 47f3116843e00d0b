#!/usr/bin/env bash
# Runs a command of the Swift toolchain in the repository root: ios_demo/swift.sh swift --version
#
# Without one on the machine, that of toolchain.sh is used, in a private mount namespace: nothing stays mounted, however
# the command ends. Exit code 3: there is no toolchain and none can be had, and the last line says why.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# Not "swift": Debian has another program of that name.
if command -v swiftc >/dev/null; then exec "$@"; fi

ios_demo/toolchain.sh
swift=${TOOLS:-$root/.tools}/swift
[ "$(id -u)" = 0 ] && as_root=() || as_root=(--map-root-user)
unshare "${as_root[@]}" --mount true 2>/dev/null || {
    echo "no Swift compiler: this machine lets user $(id -un) make no mount namespace; run it as root" >&2
    exit 3
}
exec unshare "${as_root[@]}" --mount --fork --kill-child bash -c '
    set -e
    swift=$0 root=$1; shift
    mount --make-rprivate /
    mount --rbind /proc "$swift/proc"
    mount --rbind /dev "$swift/dev"
    mkdir -p "$swift$root"
    mount --bind "$root" "$swift$root"
    exec chroot "$swift" /usr/bin/env -C "$root" HOME=/root PATH=/usr/libexec/swift/bin:/usr/bin LANG=C.UTF-8 "$@"
' "$swift" "$root" "$@"
