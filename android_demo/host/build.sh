#!/usr/bin/env bash
# Links the JNI library of HostNetwork.kt with the ExecuTorch runtime of Python's wheel: host/build.sh OUTPUT.so
#
# PYTHON names an interpreter that has executorch and torch. Exit code 3: something is missing, the last line says what.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
output=$1
python=${PYTHON:-python3}

refuse() {
    echo "no JNI library: $1" >&2
    exit 3
}

command -v g++ >/dev/null || refuse "g++ is missing"
javac=$(command -v javac) || refuse "javac is missing: a JDK has the headers of JNI"
jdk=$(dirname "$(dirname "$(readlink -f "$javac")")")
wheel=$("$python" -c 'import executorch; print(list(executorch.__path__)[0])' 2>/dev/null) ||
    refuse "$python has no executorch; PYTHON names another interpreter"
torch=$(dirname "$wheel")/torch/lib
runtime=$(ls "$wheel"/extension/pybindings/_portable_lib*.so)
read -r python_folder python_library < <("$python" -c '
import sysconfig
print(sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY"))')
[[ $python_library == *.so* && -e $python_folder/$python_library ]] ||
    refuse "$python has no shared library ($python_folder/$python_library), which the wheel's runtime needs"
backends=$wheel/backends/qualcomm/libqnn_executorch_backend.so # holds the registry of backends in wheels for x86

# The wheel's library leaves thread pool and processor information to torch's. --no-as-needed: nothing names them here.
g++ -std=c++20 -O2 -fPIC -shared -Wall -Wextra -DC10_USING_CUSTOM_GENERATED_MACROS \
    -isystem "$wheel/include" -isystem "$wheel/include/executorch/runtime/core/portable_type/c10" \
    -isystem "$jdk/include" -isystem "$jdk/include/linux" \
    -I "$here/../runtime" "$here"/src/main/cpp/*.cpp "$here"/../runtime/*.cpp -o "$output.partial" \
    -Wl,--no-as-needed,--allow-shlib-undefined "$runtime" $([ -e "$backends" ] && echo "$backends") \
    "$torch/libtorch_cpu.so" "$python_folder/$python_library" \
    -Wl,-rpath,"$wheel/extension/pybindings:$wheel/backends/qualcomm:$torch:$python_folder"
mv "$output.partial" "$output"
