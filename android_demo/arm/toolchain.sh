#!/usr/bin/env bash
# Installs ExecuTorch for aarch64, an emulator and a cross compiler in .tools/arm64, and compiles runner.cpp with them.
#
# Libraries come from Python's wheels (450 MB), the rest from Debian's packages (140 MB). Nothing of the machine
# changes: apt works on lists of its own and no package is installed. Broken off, the same command begins again. Exit
# code 3: something cannot be had here, and the last line says what. PYTHON names an interpreter with pip.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${TOOLS:-$(cd "$here/../.." && pwd)/.tools}
target=$tools/arm64
work=$tools/arm64.partial
python=${PYTHON:-python3}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

refuse() {
    echo "no emulated ARM processor: $1" >&2
    exit 3
}

for command in apt-get dpkg-deb flock; do
    command -v "$command" >/dev/null || refuse "$command is missing; this script knows Debian alone"
done
[ -e "$keyring" ] || refuse "$keyring is missing, and packages are not taken unsigned: install debian-archive-keyring"
[ "$(uname -m)" = x86_64 ] || refuse "the emulator and the compiler are for x86_64, this machine is $(uname -m)"
mkdir -p "$tools"
exec 9>"$tools/arm64.lock"
flock 9

# apt SUITE ARCHITECTURE ARGUMENT...: apt-get on one suite of Debian's
apt() {
    local state=$work/apt/$1-$2 mirror
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1)
    echo "deb [signed-by=$keyring] ${mirror:?the apt sources of this machine name no mirror of Debian} $1 main" \
        >"$state/sources.list"
    : >"$state/status"
    apt-get -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache" \
        -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "APT::Architecture=$2" \
        -o "APT::Architectures::=$2" -o "APT::Sandbox::User=$(id -un)" -o Dpkg::Use-Pty=false "${@:3}" >&2
}

# packages SUITE ARCHITECTURE PACKAGE...: downloaded to $work/debs/SUITE-ARCHITECTURE
packages() {
    local debs=$work/debs/$1-$2
    rm -rf "$debs"
    mkdir -p "$debs"
    apt "$1" "$2" --error-on=any update && (cd "$debs" && apt "$1" "$2" download "${@:3}") ||
        refuse "a package of Debian $1 ($2) could not be fetched"
}

install() {
    echo "Downloading ExecuTorch for aarch64, an emulator and a compiler (590 MB, once)"
    rm -rf "$work"
    mkdir -p "$work/root/lib" "$work/wheels" "$work/debs"
    local platforms=()
    for glibc in 28 27 26 25 17; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
        --abi cp311 --abi none "${platforms[@]}" --require-hashes -r "$here/requirements.txt" -d "$work/wheels" >&2 ||
        refuse "a wheel for aarch64 could not be fetched"
    local gcc=12 cross=arm64-cross
    packages bookworm amd64 {cpp,gcc,g++}-$gcc-aarch64-linux-gnu binutils-aarch64-linux-gnu binutils-common \
        libbinutils libjansson4 libgmp10 libmpc3 libmpfr6 libisl23 lib{gcc,stdc++}-$gcc-dev-$cross \
        libc6{,-dev}-$cross linux-libc-dev-$cross lib{stdc++6,gcc-s1,gomp1}-$cross
    packages bookworm arm64 libpython3.11 libexpat1 zlib1g
    packages trixie amd64 qemu-user # bookworm's gives wrong int8 products where it emulates SME

    echo "Unpacking"
    local root=$work/root
    for deb in "$work"/debs/bookworm-amd64/*.deb; do dpkg-deb -x "$deb" "$root/compiler"; done
    for deb in "$work"/debs/bookworm-arm64/*.deb; do dpkg-deb -x "$deb" "$work/arm64"; done
    cp -L "$work"/arm64{/usr/lib/aarch64-linux-gnu/libpython3.11.so.1.0,/lib/aarch64-linux-gnu/lib*.so.?} "$root/lib"
    dpkg-deb --fsys-tarfile "$work"/debs/trixie-amd64/*.deb | tar -xO ./usr/bin/qemu-aarch64 >"$root/qemu-aarch64"
    chmod +x "$root/qemu-aarch64"
    "$python" - "$root" "$work"/wheels/*.whl <<'PYTHON'
import pathlib, re, sys, zipfile

root = pathlib.Path(sys.argv[1])
libraries = re.compile(
    r".*/(_portable_lib[^/]*|libtorch_cpu|libc10|libarm_compute\w*|libnvpl_\w+|libgomp|libgfortran|libcudart|libcupti)"
    r"\.so[.0-9]*"
)
for wheel in map(zipfile.ZipFile, sys.argv[2:]):
    for name in wheel.namelist():
        if libraries.fullmatch(name):
            (root / "lib" / pathlib.Path(name).name).write_bytes(wheel.read(name))
        elif name.startswith("executorch/include/"):
            wheel.extract(name, root / "wheel")
PYTHON
    mkdir "$root/sysroot"
    ln -s ../compiler/usr/aarch64-linux-gnu/lib "$root/sysroot/lib"
    rm -rf "$target"
    mv "$root" "$target"
    rm -rf "$work"
}

compile() {
    local include=$target/wheel/executorch/include
    export LD_LIBRARY_PATH=$target/compiler/usr/lib/x86_64-linux-gnu
    gcc=("$target/compiler/usr/bin/aarch64-linux-gnu-g++-12" "--sysroot=$target/compiler")
    # Of these two, the runtime's library names functions that are for Python alone, and never called.
    for name in libtorch libtorch_python; do
        "${gcc[@]}" -shared -nostdlib -x c /dev/null -o "$target/lib/$name.so" "-Wl,-soname,$name.so"
    done
    "${gcc[@]}" -std=c++20 -O2 -Wall -Wextra -Werror -DC10_USING_CUSTOM_GENERATED_MACROS -isystem "$include" \
        -isystem "$include/executorch/runtime/core/portable_type/c10" \
        -I "$here/../runtime" "${sources[@]}" -o "$target/runner.partial" \
        -Wl,--no-as-needed,--allow-shlib-undefined "$target"/lib/_portable_lib*.so "$target"/lib/libpython3.11.so.1.0 \
        "$target"/lib/lib{torch_cpu,c10,torch_python}.so
    mv "$target/runner.partial" "$target/runner"
}

[ -e "$target/qemu-aarch64" ] || install
sources=("$here/runner.cpp" "$here"/../runtime/*.cpp)
for source in "${sources[@]}" "$here"/../runtime/*.h; do
    if [ ! "$target/runner" -nt "$source" ]; then
        compile
        break
    fi
done
