package mobileexport.app

import android.app.ActivityManager
import android.content.Context
import android.os.Debug

/** The largest memory of this process that was seen: proportional set size, mapped weights included. */
class MemoryMeter(context: Context) {
    private val manager = context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager
    private val found = Debug.MemoryInfo()

    var peakBytes = 0L
        private set

    /** Looks now; takes some milliseconds. */
    @Synchronized
    fun look() {
        Debug.getMemoryInfo(found)
        peakBytes = maxOf(peakBytes, found.totalPss * 1024L)
    }

    /** What the device has free now. */
    fun freeBytes(): Long = ActivityManager.MemoryInfo().also(manager::getMemoryInfo).availMem
}
