package tfdistill.kit

/**
 * The kit's files or the model cannot be used.
 *
 * @property happened what is wrong, with the values that were found.
 * @property fix what to do about it.
 */
public class KitException(
    public val happened: String,
    public val fix: String,
    cause: Throwable? = null,
) : Exception("$happened\n$fix", cause)
