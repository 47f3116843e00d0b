package mobileexport.core

/** A request to stop, from any thread. */
class Cancellation {
    @Volatile
    private var requested = false

    fun cancel() {
        requested = true
    }

    /** Throws Cancelled once [cancel] was called. */
    fun check() {
        if (requested) throw Cancelled()
    }
}
