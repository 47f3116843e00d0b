// The native half of HostNetwork.kt.
#include <jni.h>

#include <exception>
#include <string>

#include "program.h"

using mobile_export::Bytes;
using mobile_export::Program;

namespace {

void raise(JNIEnv* env, const std::string& message) {
  env->ThrowNew(env->FindClass("mobileexport/core/CheckFailed"), message.c_str());
}

Bytes bytes(JNIEnv* env, jbyteArray array) {
  Bytes found(static_cast<size_t>(env->GetArrayLength(array)));
  env->GetByteArrayRegion(array, 0, static_cast<jsize>(found.size()), reinterpret_cast<jbyte*>(found.data()));
  return found;
}

}  // namespace

extern "C" {

JNIEXPORT jlong JNICALL Java_mobileexport_host_HostNetwork_load(JNIEnv* env, jclass, jbyteArray path) {
  try {
    const Bytes name = bytes(env, path);
    return reinterpret_cast<jlong>(new Program(std::string(name.begin(), name.end())));
  } catch (const std::exception& error) {
    raise(env, error.what());
    return 0;
  }
}

JNIEXPORT jfloatArray JNICALL
Java_mobileexport_host_HostNetwork_execute(JNIEnv* env, jclass, jlong handle, jobjectArray arrays) {
  auto* program = reinterpret_cast<Program*>(handle);
  try {
    const auto count = static_cast<size_t>(env->GetArrayLength(arrays));
    if (count != program->inputs()) throw std::runtime_error("the network takes another number of inputs");
    std::vector<Bytes> inputs;
    for (size_t i = 0; i < count; ++i) {
      auto array = static_cast<jbyteArray>(env->GetObjectArrayElement(arrays, static_cast<jsize>(i)));
      inputs.push_back(bytes(env, array));
      env->DeleteLocalRef(array);
      if (inputs.back().size() != program->input_bytes(i)) throw std::runtime_error("an input has another size");
    }
    const std::vector<float> result = program->run(inputs).at(0);
    jfloatArray output = env->NewFloatArray(static_cast<jsize>(result.size()));
    if (output) env->SetFloatArrayRegion(output, 0, static_cast<jsize>(result.size()), result.data());
    return output;
  } catch (const std::exception& error) {
    raise(env, error.what());
    return nullptr;
  }
}

JNIEXPORT void JNICALL Java_mobileexport_host_HostNetwork_free(JNIEnv*, jclass, jlong handle) {
  delete reinterpret_cast<Program*>(handle);
}

}  // extern "C"
