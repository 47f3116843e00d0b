#!/usr/bin/env bash
# Installs a Swift compiler for Linux in .tools/swift: packages of Debian trixie, unpacked into a folder of their own.
#
# Nothing of the machine changes: apt works on lists of its own, no package is installed, nothing is mounted. Broken
# off, the same command goes on. Exit code 3: the packages cannot be had here, and the last line says why.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${TOOLS:-$root/.tools}
target=$tools/swift
work=$tools/swift.partial
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
packages=(swiftlang=6.0.3-2 libc6-dev libstdc++-14-dev bash coreutils)

refuse() {
    echo "no Swift compiler: $1" >&2
    exit 3
}

[ -e "$target/.installed" ] && exit 0
for command in apt-get dpkg-deb flock; do
    command -v "$command" >/dev/null || refuse "$command is missing; this script knows Debian alone"
done
[ -e "$keyring" ] || refuse "$keyring is missing, and packages are not taken unsigned: install debian-archive-keyring"

mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
exec 9>"$tools/swift.lock"
flock 9
[ -e "$target/.installed" ] && exit 0

mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1) ||
    refuse "the machine's apt sources name no mirror of Debian"
echo "deb [signed-by=$keyring] $mirror trixie main" >"$work/apt/sources.list"
: >"$work/apt/status"
apt=(apt-get --yes -o "Dir::State=$work/apt" -o "Dir::State::status=$work/apt/status" -o "Dir::Cache=$work/apt/cache"
    -o "Dir::Etc::sourcelist=$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=root
    -o APT::Install-Recommends=false -o Dpkg::Use-Pty=false)

echo "Downloading Swift for Linux (550 MB, once)"
"${apt[@]}" --error-on=any update >&2 || refuse "the list of packages of trixie could not be fetched"
"${apt[@]}" install --download-only "${packages[@]}" >&2 || refuse "a package of trixie could not be fetched"

echo "Unpacking"
rm -rf "$work/root"
mkdir -p "$work/root/usr/bin" "$work/root/usr/sbin" "$work/root/usr/lib" "$work/root/usr/lib64"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$work/root/$name"; done
for package in "$work"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$work/root"; done
mkdir -p "$work/root"/{dev,proc,tmp,root,repository,scratch,etc}
echo 'root:x:0:0:root:/root:/bin/bash' >"$work/root/etc/passwd"
touch "$work/root/.installed"
rm -rf "$target"
mv "$work/root" "$target"
rm -rf "$work"
