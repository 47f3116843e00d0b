package mobileexport.app

import android.app.Activity
import android.app.Application

/** The process: it has one library, since a store that is opened anew clears away what another is copying in. */
class DemoApp : Application() {
    val library by lazy { Library(this) }
}

val Activity.library: Library get() = (application as DemoApp).library
