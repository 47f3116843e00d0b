#!/usr/bin/env bash
# Tests the app's own code and packs it as an APK without Android Studio: apk.sh [OUTPUT.apk]. The last line has the
# counts.
#
# This shows that all of the app compiles, fits its resources and passes Android's own tools. The APK holds no native
# library, which only Gradle can fetch (README.md): it is not for a phone. What cannot be had on this machine is
# skipped, loudly, with exit code 0.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
export TOOLS=${TOOLS:-$root/.tools}
sdk=$TOOLS/android build=$TOOLS/android-build apk=${1:-$TOOLS/android-build/app-debug.apk}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0 failed=0

android_demo/app/toolchain.sh >"$log" 2>&1
case $? in
0) ;;
3)
    echo "##############################################################################"
    echo "# SKIPPED: the Android app and its APK"
    echo "# $(tail -n 1 "$log")"
    echo "##############################################################################"
    echo "apk: 0 passed, 0 failed, 1 skipped"
    exit 0
    ;;
*)
    cat "$log" >&2
    exit 1
    ;;
esac

libraries=$(echo "$sdk"/debian/usr/lib/{,p7zip,x86_64-linux-gnu,x86_64-linux-gnu/android} | tr ' ' ':')
kotlin=$(echo "$TOOLS"/kotlin-*/lib)
main=android_demo/app/src/main work=$build/apk
runtime=$sdk/executorch.jar stdlib=$kotlin/kotlin-stdlib.jar
rm -rf "$work"
mkdir -p "$work"

debian() { LD_LIBRARY_PATH=$libraries "$sdk/debian/usr/bin/$1" "${@:2}"; }
apksigner() { java -jar "$sdk/debian/usr/share/java/apksigner.jar" "$@"; }

resources() {
    # Gradle adds the package, and refuses a manifest that has it.
    sed 's/<manifest /&package="mobileexport.app" /' $main/AndroidManifest.xml >"$work/AndroidManifest.xml" &&
        "$sdk/aapt2" compile --dir $main/res -o "$work/resources.zip" &&
        "$sdk/aapt2" link -I "$sdk/debian/usr/share/android-framework-res/framework-res.apk" \
            --manifest "$work/AndroidManifest.xml" --java "$work/generated" --min-sdk-version 26 \
            --target-sdk-version 36 --version-code 1 --version-name 1.0 -o "$work/base.apk" "$work/resources.zip" &&
        javac -nowarn -source 8 -target 8 -bootclasspath "$sdk/android.jar" -d "$work/generated" \
            "$(find "$work/generated" -name R.java)"
}

classes() {
    android_demo/compile.sh android_demo/core/src/main "$build/core" &&
        android_demo/compile.sh $main/kotlin "$build/app" "$build/core:$sdk/android-alone.jar:$runtime:$work/generated"
}

unit_tests() {
    local jars
    jars=$(echo "$TOOLS"/junit/*.jar "$stdlib" "$kotlin"/kotlin-{test,test-junit5}.jar | tr ' ' ':')
    android_demo/compile.sh android_demo/app/src/test "$build/app-test" \
        "$build/app:$build/core:$runtime:$jars" || return
    java -cp "$build/app-test:$build/app:$build/core:$runtime:$sdk/android-alone.jar:$jars" \
        org.junit.platform.console.ConsoleLauncher --disable-banner --disable-ansi-colors --details=tree \
        --scan-class-path "$build/app-test"
}

dex() {
    mkdir "$work/dex"
    java -Xmx1g -cp "$sdk/bundletool.jar" com.android.tools.r8.D8 --release --min-api 26 --lib "$sdk/android.jar" \
        --output "$work/dex" $(find "$build/core" "$build/app" "$work/generated" -name '*.class') \
        "$runtime" "$stdlib" &&
        debian dexdump "$work"/dex/classes.dex >"$work/dexdump" &&
        grep -q "Class descriptor  : 'Lmobileexport/app/LibraryActivity;'" "$work/dexdump" &&
        grep -q "Class descriptor  : 'Lmobileexport/core/DeviceLoop;'" "$work/dexdump"
}

packed() {
    cp "$work/base.apk" "$work/unaligned.apk"
    (cd "$work/dex" && zip -q "$work/unaligned.apk" classes*.dex) &&
        debian zipalign -f -p 4 "$work/unaligned.apk" "$work/aligned.apk" &&
        debian zipalign -c -p 4 "$work/aligned.apk" || return
    [ -e "$build/debug.keystore" ] || keytool -genkeypair -keystore "$build/debug.keystore" -storepass android \
        -keypass android -alias androiddebugkey -dname CN=Debug -keyalg RSA -keysize 2048 -validity 10000 || return
    apksigner sign --ks "$build/debug.keystore" --ks-pass pass:android --out "$work/signed.apk" "$work/aligned.apk"
}

verified() { apksigner verify --verbose --min-sdk-version 26 "$work/signed.apk"; }

badged() {
    "$sdk/aapt2" dump badging "$work/signed.apk" >"$work/badging" &&
        grep -q "^package: name='mobileexport.app'" "$work/badging" &&
        grep -q "^launchable-activity: name='mobileexport.app.LibraryActivity'" "$work/badging" &&
        ! grep -q "^uses-permission" "$work/badging"
}

# check WHAT FUNCTION: the steps build on each other, so that the first that fails is the last.
check() {
    if "$2" >"$log" 2>&1; then
        passed=$((passed + 1))
        echo "passed: $1"
        return
    fi
    cat "$log" >&2
    echo "FAILED: $1"
    echo "apk: $passed passed, $((failed + 1)) failed"
    exit 1
}

check "resources and manifest fit together" resources
check "core and app compile without a warning" classes
check "unit tests of what goes into the runtime and out of it" unit_tests
count=$(sed -n 's/^\[ *\([0-9]*\) tests successful *\]$/\1/p' "$log")
[ "${count:-0}" -gt 0 ] || { echo "FAILED: no unit test ran" && echo "apk: $passed passed, 1 failed" && exit 1; }
passed=$((passed - 1 + count))
check "dex code, with the activity and the device loop in it" dex
check "aligned and signed" packed
check "apksigner verifies it" verified
grep -E "^Verified using v[23]" "$log"
check "the launcher finds its activity, and no permission is asked for" badged
mkdir -p "$(dirname "$apk")"
mv "$work/signed.apk" "$apk"
echo "$apk: $(stat -c %s "$apk") bytes"
echo "apk: $passed passed, $failed failed"
