#!/usr/bin/env bash
# Installs what compiles and tests the Kotlin core in .tools: Kotlin's compiler from npm, JUnit from Debian's packages.
#
# Nothing of the machine changes. Broken off, the same command goes on. Exit code 3: something cannot be had here, and the
# last line says what.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${TOOLS:-$root/.tools}
version=2.4.20
sha512=IF5IVM7LpPhA/ntHQQpaVt1yxpaaQovtEVYLyqWMuaLr0XelLPPm7/sM6HLhtcRjjjoSsK7I7lP2kzYJkMy73w==
packages=(junit5 libapiguardian-java libopentest4j-java libpicocli-java)

refuse() {
    echo "no Kotlin: $1" >&2
    exit 3
}

command -v java >/dev/null || refuse "java is missing, install a JDK (17 or later)"
command -v flock >/dev/null || refuse "flock is missing"
mkdir -p "$tools"
exec 9>"$tools/kotlin.lock"
flock 9

if [ ! -e "$tools/kotlin-$version/.installed" ]; then
    command -v npm >/dev/null || refuse "npm is missing"
    work=$tools/kotlin.partial
    rm -rf "$work"
    mkdir -p "$work"
    echo "Downloading Kotlin $version (90 MB, once)"
    (cd "$work" && npm pack --silent "kotlin-compiler@$version") || refuse "npm has no kotlin-compiler@$version for us"
    archive=$work/kotlin-compiler-$version.tgz
    found=$(openssl dgst -sha512 -binary "$archive" | base64 --wrap=0)
    [ "$found" = "$sha512" ] || refuse "kotlin-compiler@$version has another sha512 than it had: $found"
    tar -xzf "$archive" -C "$work"
    touch "$work/package/.installed"
    rm -rf "$tools"/kotlin-* # of other versions
    mv "$work/package" "$tools/kotlin-$version"
    rm -rf "$work"
fi

if [ ! -e "$tools/junit/.installed" ]; then
    command -v apt-get >/dev/null || refuse "JUnit is a package of Debian, and apt-get is missing"
    work=$tools/junit.partial
    rm -rf "$work"
    mkdir -p "$work/unpacked"
    echo "Downloading JUnit (3 MB, once)"
    (cd "$work" && apt-get download -o APT::Sandbox::User="$(id -un)" "${packages[@]}") >&2 ||
        refuse "Debian's package junit5 could not be fetched"
    for package in "$work"/*.deb; do dpkg-deb -x "$package" "$work/unpacked"; done
    mkdir "$work/jars"
    cp -L "$work"/unpacked/usr/share/java/{junit-jupiter-api,junit-jupiter-engine,apiguardian-api,opentest4j,picocli}.jar \
        "$work"/unpacked/usr/share/java/junit-platform-{commons,console,engine,launcher,reporting}.jar "$work/jars"
    touch "$work/jars/.installed"
    rm -rf "$tools/junit"
    mv "$work/jars" "$tools/junit"
    rm -rf "$work"
fi
