package mobileexport.core

/** An input or output of an artifact; the first axis is a batch of 1. [type]: float32, int32 or int64. */
class Port(val name: String, val shape: List<Int>, val type: String) {
    override fun toString() = "$name $type $shape"
}

/** What an artifact takes, in the order of its inputs, and what it gives. */
class Signature(val inputs: List<Port>, val output: Port) {
    /** The inputs in their order, each with its own shape and kind. Throws UsageError for anything else. */
    fun ordered(given: Map<String, Input>): List<Input> {
        val names = inputs.map { it.name }
        if (given.keys != names.toSet()) throw UsageError("the network takes $names, got ${given.keys}.")
        return inputs.map { port ->
            val input = given.getValue(port.name)
            if (input.shape != port.shape || (input is Tensor) != (port.type == "float32")) {
                throw UsageError("the network takes $port, got ${input.javaClass.simpleName} ${input.shape}.")
            }
            input
        }
    }
}
