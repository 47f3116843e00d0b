package mobileexport.core

/** A check of a file or of a computation failed. */
open class CheckFailed(message: String, cause: Throwable? = null) : Exception(message, cause)

/** The caller asked for something that cannot be done. */
class UsageError(message: String) : Exception(message)

/** The sampling was cancelled: no failure, and nothing to report. */
class Cancelled : Exception("cancelled")

/** NaN or infinity appeared while sampling. [stage]: what held it; [step]: from 0. */
class NonFiniteError(val stage: String, val step: Int) : CheckFailed("$stage holds NaN or infinity at step $step.")

/** A file was refused. [name]: a stable error code, the same in every reader; see [explanation] for people. */
sealed class Refusal(val name: String, message: String) : CheckFailed("$name: $message")

/** A safetensors or correction file was refused: docs/correction-format.md lists the names. */
class FormatError(name: String, message: String) : Refusal(name, message)

/** A bundle was refused: docs/bundle-format.md lists the names. */
class BundleError(name: String, message: String) : Refusal(name, message)
