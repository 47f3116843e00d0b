package mobileexport.app

import android.graphics.Bitmap
import mobileexport.core.Pixels

fun Pixels.bitmap(): Bitmap = Bitmap.createBitmap(argb, width, height, Bitmap.Config.ARGB_8888)
