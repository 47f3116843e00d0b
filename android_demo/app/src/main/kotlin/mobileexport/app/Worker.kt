package mobileexport.app

import android.os.Handler
import android.os.Looper
import mobileexport.core.Cancellation
import mobileexport.core.Cancelled
import java.util.concurrent.Executors

/**
 * One piece of work at a time, away from the screen. What it tells and how it ends arrives on the main thread, and no
 * more once the worker is closed.
 */
class Worker : AutoCloseable {
    private val executor = Executors.newSingleThreadExecutor()
    private val main = Handler(Looper.getMainLooper())
    private var running: Cancellation? = null
    private var closed = false

    val isBusy: Boolean get() = running != null

    /** [done] gets the result, or the error unless it was cancelled; [ended] comes after either. */
    fun <T> start(work: (Cancellation) -> T, done: (T) -> Unit, failed: (Throwable) -> Unit, ended: () -> Unit) {
        if (isBusy || closed) return
        val cancellation = Cancellation().also { running = it }
        executor.execute {
            // Throwable: too little memory is an Error, and the user is told of it as of everything else.
            val result = try {
                Result.success(work(cancellation))
            } catch (error: Throwable) {
                Result.failure(error)
            }
            tell {
                running = null
                result.onSuccess(done).onFailure { if (it !is Cancelled) failed(it) }
                ended()
            }
        }
    }

    /** From the work to the screen. */
    fun tell(news: () -> Unit) {
        main.post { if (!closed) news() }
    }

    /** Asks the work to stop, which it does at its next step. */
    fun cancel() {
        running?.cancel()
    }

    override fun close() {
        closed = true
        cancel()
        executor.shutdown()
    }
}
