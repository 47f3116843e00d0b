"""A package divided into chunks is the same program: the same operations, the same weights, the same outputs."""

import itertools
import shutil
from collections import Counter

import pytest
import torch
from coreml_cases import METADATA, make_package
from hypothesis import given, settings
from hypothesis import strategies as st

from correction.errors import UsageError
from mobile_export.backends.coreml.chunks import ChunkedProgram, ChunkInterface, chunk_interfaces, split_package
from mobile_export.backends.coreml.cuts import Step, find_cuts, steps_of
from mobile_export.coreml_simulator.blobs import ALIGNMENT, BlobFile
from mobile_export.coreml_simulator.package import read_package
from mobile_export.coreml_simulator.simulator import Simulator
from mobile_export.quantize.recipe import Recipe

WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
MODEL = "Data/com.apple.CoreML/model.mlmodel"
CASES = {
    "4 bits, 8-bit activations": ("classes", Recipe.of("w4a8"), "ios18", "ane"),
    "4 bits in blocks": ("text", Recipe.of("w4a16", "block8"), "ios18", "all"),
    "palettes of iOS 17": ("classes", Recipe.of("w2a16", "palette"), "ios17", "all"),
    "a decoder": ("vae", Recipe.of("w8a16"), "ios18", "all"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The package of a case, each made once; not to be changed."""
    packages = {}

    def get(name):
        if name not in packages:
            packages[name] = make_package(tmp_path_factory.mktemp("whole"), *CASES[name])
        return packages[name]

    return get


@pytest.fixture
def whole(made, tmp_path):
    """A copy of a case's package, to be divided."""

    def get(name="4 bits, 8-bit activations", folder="copy"):
        path = tmp_path / folder / "unet.mlpackage"
        shutil.copytree(made(name).path, path)
        return path

    return get


def blobs(path):
    file = BlobFile(path / WEIGHTS)
    data = (path / WEIGHTS).read_bytes()
    begin = [(blob, offset + ALIGNMENT) for offset, blob in file.blobs.items()]
    return Counter((blob.element.name, blob.count, data[start : start + blob.size]) for blob, start in begin)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def operations(path):
    program = read_package(path).program()
    return [op for op in program.operations if not op.type.startswith("constexpr")]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("parts", [2, 5])
def test_chunks_are_the_whole(made, whole, name, parts):
    original, path = made(name), whole(name)
    size = (path / WEIGHTS).stat().st_size
    limit = size // parts + size // 20
    chunks = split_package(path, limit)
    assert [chunk.name for chunk in chunks] == [f"unet-{k + 1}.mlpackage" for k in range(len(chunks))]
    assert sorted(path.parent.iterdir()) == chunks and len(chunks) >= parts

    sizes = [(chunk / WEIGHTS).stat().st_size for chunk in chunks]
    assert max(sizes) <= limit
    assert sorted(files(chunks[0])) == sorted(files(original.path))
    together = sum((blobs(chunk) for chunk in chunks), Counter())
    assert together.keys() == blobs(original.path).keys()
    assert together >= blobs(original.path)
    assert sum(sizes) < 1.05 * size
    assert [op for chunk in chunks for op in operations(chunk)] == operations(original.path)
    for chunk in chunks:
        metadata = read_package(chunk).metadata
        assert (metadata.author, metadata.user_defined["com.github.test.key"]) == (METADATA["author"], "value")

    interfaces = chunk_interfaces(chunks)
    package = read_package(original.path)
    assert {name for interface in interfaces for name in interface.given} == package.inputs.keys()
    assert [interface.results for interface in interfaces] == [()] * (len(chunks) - 1) + [tuple(package.outputs)]
    for mode in ("float32", "declared"):
        program = Simulator(package.program(), mode)
        chunked = ChunkedProgram([Simulator(read_package(chunk).program(), mode) for chunk in chunks], interfaces)
        for case in original.cases[:2]:
            expected, got = program(case.inputs), chunked(case.inputs)
            assert got.keys() == expected.keys()
            for output in expected:
                assert torch.equal(got[output], expected[output])


def test_every_chunk_is_a_valid_program_of_the_converter(whole):
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    path = whole()
    for chunk in split_package(path, (path / WEIGHTS).stat().st_size // 3):
        assert coremltools.libmodelpackage.ModelPackage.isValid(str(chunk))
        specification = coremltools.utils.load_spec(str(chunk))
        program = load(specification, specification.specificationVersion, str((chunk / WEIGHTS).parent))
        program.validate()  # infers every type again


def test_only_types_that_a_model_may_put_out_cross_a_cut(whole):
    path = whole()
    limit = (path / WEIGHTS).stat().st_size // 5
    for chunk in split_package(path, limit):
        package = read_package(chunk)
        for type in (*package.inputs.values(), *package.outputs.values()):
            assert type.element.name in ("float16", "float32", "int32") and type.shape


def test_the_same_package_gives_the_same_bytes(whole):
    first, second = whole(folder="first"), whole(folder="second")
    limit = (first / WEIGHTS).stat().st_size // 2
    split_package(first, limit)
    split_package(second, limit)
    assert files(first.parent) == files(second.parent)


def test_chunks_have_identifiers_of_their_own_and_no_stray_files(made, whole):
    path = whole()
    (path / "stray.json").write_text("{}")
    chunks = split_package(path, (path / WEIGHTS).stat().st_size // 2)
    packages = [made("4 bits, 8-bit activations").path, *chunks]
    assert len({files(package)["Manifest.json"] for package in packages}) == len(packages)
    assert all(files(package).keys() == {"Manifest.json", MODEL, WEIGHTS} for package in packages)


def test_what_the_whole_says_of_its_inputs_and_outputs_stays(whole):
    from coremltools.proto.Model_pb2 import Model

    def describe(model):
        for feature in (*model.description.input, *model.description.output):
            feature.shortDescription = f"about {feature.name}"

    path = whole()
    changed_model(path, describe)
    said = {}
    for chunk in split_package(path, (path / WEIGHTS).stat().st_size // 2):
        description = Model.FromString((chunk / MODEL).read_bytes()).description
        features = [feature for feature in (*description.input, *description.output) if feature.shortDescription]
        said.update((feature.name, feature.shortDescription) for feature in features)
    names = ("sample", "timestep", "class_labels", "noise_pred")
    assert said == {name: f"about {name}" for name in names}


def test_a_small_package_stays_as_it_is(whole):
    path = whole()
    before = files(path)
    assert split_package(path, (path / WEIGHTS).stat().st_size) == [path]
    assert files(path) == before and list(path.parent.iterdir()) == [path]


def refusal(path, limit):
    before = files(path.parent)
    with pytest.raises(UsageError) as error:
        split_package(path, limit)
    assert files(path.parent) == before
    return str(error.value)


def test_refuses_a_limit_below_the_weights_of_one_operation(whole):
    path = whole()
    largest = max(blob.size for blob in BlobFile(path / WEIGHTS).blobs.values())
    message = refusal(path, largest)
    assert message.startswith(f"no chunk with {largest} bytes of weights can hold '")
    assert int(message.rpartition(" ")[2]) > largest
    assert refusal(path, 0) == "limit_bytes is at least 1, got 0"


def test_refuses_to_write_over_another_chunk(whole):
    path = whole()
    taken = path.with_name("unet-2.mlpackage")
    taken.mkdir()
    (taken / "file").write_text("mine")
    message = refusal(path, (path / WEIGHTS).stat().st_size // 2)
    assert message == f"a chunk is to be written to {taken}, which exists; remove it first"


def changed_model(path, change):
    from coremltools.proto.Model_pb2 import Model

    model = Model()
    model.ParseFromString((path / MODEL).read_bytes())
    change(model)
    (path / MODEL).write_bytes(model.SerializeToString(deterministic=True))


def test_refuses_several_functions_and_states(whole):
    path = whole()
    limit = (path / WEIGHTS).stat().st_size // 2
    changed_model(path, lambda model: model.mlProgram.functions["other"].CopyFrom(model.mlProgram.functions["main"]))
    wanted = f"{path} can be divided if it has one function, main, and no state; its functions: "
    assert refusal(path, limit) == f"{wanted}main, other"
    changed_model(path, lambda model: (model.mlProgram.functions.pop("other"), model.description.state.add(name="s")))
    assert refusal(path, limit) == f"{wanted}main"


def test_refuses_an_output_that_no_operation_computes(whole):
    path = whole()

    def answer_the_input(model):
        function = model.mlProgram.functions["main"]
        function.block_specializations[function.opset].outputs.append("sample")

    changed_model(path, answer_the_input)
    message = refusal(path, (path / WEIGHTS).stat().st_size // 2)
    assert message == f"{path} cannot be divided: no operation computes its output sample"


def test_chunks_run_in_order_by_name():
    calls = []

    def chunk(*outputs):
        def run(inputs):
            calls.append(inputs)
            return {name: name.upper() for name in outputs} | {"ignored": 0}

        return run

    interfaces = [
        ChunkInterface(given=("x",), carried={}, outputs=("a", "b"), results=("b",)),
        ChunkInterface(given=("x", "t"), carried={"a": 0}, outputs=("y",), results=("y",)),
    ]
    program = ChunkedProgram([chunk("a", "b"), chunk("y")], interfaces)
    assert program({"x": 1, "t": 2, "more": 3}) == {"b": "B", "y": "Y"}
    assert calls == [{"x": 1}, {"x": 1, "t": 2, "a": "A"}]
    with pytest.raises(UsageError, match=r"^inputs missing: t, x; got none$"):
        program({})
    with pytest.raises(UsageError, match=r"^each chunk needs its interface, got 1 chunks and 2$"):
        ChunkedProgram([chunk("y")], interfaces)


def value(name, type, shape):
    from coremltools.proto.MIL_pb2 import NamedValueType

    message = NamedValueType(name=name)
    message.type.tensorType.dataType, message.type.tensorType.rank = type, len(shape)
    for size in shape:
        message.type.tensorType.dimensions.add().constant.size = size
    return message


def test_a_step_has_all_constants_behind_it():
    from coremltools.proto.MIL_pb2 import Block

    block = Block()

    def add(type, output, blob=None, **inputs):
        operation = block.operations.add(type=type)
        operation.outputs.append(value(output, FLOAT16, [2]))
        if blob is not None:
            operation.attributes["val"].blobFileValue.offset = blob
        for parameter, name in inputs.items():
            operation.inputs[parameter].arguments.add(name=name)

    add("const", "codes", blob=64)
    add("const", "unused", blob=128)
    add("const", "levels", blob=192)
    add("constexpr_blockwise_shift_scale", "table", data="levels")
    add("constexpr_lut_to_dense", "weight", indices="codes", lut="table")
    add("conv", "y", x="sample", weight="weight")
    add("add", "z", x="y", y="codes")
    first, second = steps_of(block)
    assert (first.operations, first.inputs, first.blobs) == ((0, 2, 3, 4, 5), ("sample",), {64, 192})
    assert (second.operations, second.inputs, second.blobs) == ((0, 6), ("y",), {64})
    assert (first.name, list(first.outputs), second.name, list(second.outputs)) == ("y", ["y"], "z", ["z"])
    block.operations[5].blocks.add()
    with pytest.raises(UsageError, match=r"^a program with conv operations cannot be divided into chunks$"):
        steps_of(block)


FLOAT16, FLOAT32, INT8 = 10, 11, 21
NUMBER = st.integers(0, 5)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.lists(NUMBER, max_size=2), st.sampled_from([FLOAT16, FLOAT16, INT8]), NUMBER), max_size=8
    ),
    sizes=st.lists(st.integers(1, 20), min_size=6, max_size=6),
    limit=st.integers(ALIGNMENT + 10, ALIGNMENT + 60),
)
def test_cuts_are_as_few_as_possible_and_keep_to_the_limit(rows, sizes, limit):
    steps = []
    for k, (held, type, before) in enumerate(rows):
        inputs = {f"v{max(k - 1, 0)}", f"v{max(k - 1 - before, 0)}"} if k else {"x"}
        output = {f"v{k}": value(f"v{k}", type, [k + 1])}
        steps.append(Step(f"v{k}", (k,), tuple(sorted(inputs)), output, frozenset(held)))

    def fits(start, end):
        held = frozenset().union(*(step.blobs for step in steps[start:end]))
        return ALIGNMENT + sum(sizes[blob] for blob in held) <= limit

    def crosses(end):
        names = {name for step in steps[end:] for name in step.inputs}
        return all(rows[k][1] == FLOAT16 or f"v{k}" not in names for k in range(end))

    places = [end for end in range(1, len(steps)) if crosses(end)]
    allowed = [
        len(some) + 1
        for count in range(len(places) + 1)
        for some in itertools.combinations(places, count)
        if all(fits(a, b) for a, b in itertools.pairwise((0, *some, len(steps))))
    ]
    output = [f"v{len(steps) - 1}"]
    if not allowed:
        with pytest.raises(UsageError, match=f"^no chunk with {limit} bytes of weights can hold 'v"):
            find_cuts(steps, output, dict(enumerate(sizes)), limit, 9)
        return
    cuts = find_cuts(steps, output, dict(enumerate(sizes)), limit, 9)
    assert len(cuts) == min(allowed) and cuts[-1] == len(steps) and cuts == sorted(set(cuts))
    assert all(fits(a, b) for a, b in itertools.pairwise((0, *cuts)))
    assert set(cuts[:-1]) <= set(places)


def chain(*types_and_shapes, blobs):
    """Steps in a row, each taking the value of the one before."""
    steps = []
    for k, (type, shape) in enumerate(types_and_shapes):
        output = {f"v{k}": value(f"v{k}", type, shape)}
        steps.append(Step(f"v{k}", (k,), (f"v{k - 1}" if k else "x",), output, frozenset(blobs.get(k, ()))))
    return steps


def test_chunks_are_about_equal_and_cut_where_least_crosses():
    shapes = [(FLOAT32, [8]), (FLOAT32, [4]), (FLOAT16, [6]), (FLOAT32, [8]), (FLOAT32, [8]), (FLOAT32, [1])]
    steps = chain(*shapes, blobs={0: [0], 4: [1], 5: [2, 3]})
    sizes = {0: 600, 1: 100, 2: 300, 3: 200}
    # Ends 1 to 4 part the weights alike; 12 bytes of float16 cross at 3, at least 16 elsewhere.
    assert find_cuts(steps, ["v5"], sizes, 1000, 9) == [3, 6]
    assert find_cuts(steps, ["v5"], sizes, 1000, 6) == [2, 6]  # before iOS 16, no float16 crosses
    equal = chain(*[(FLOAT32, [1])] * 8, blobs={k: [k] for k in range(8)})
    assert find_cuts(equal, ["v7"], dict.fromkeys(range(8), 100), ALIGNMENT + 700, 9) == [4, 8]


def test_no_cut_where_a_value_or_an_output_cannot_cross():
    steps = chain((INT8, [1]), (FLOAT32, []), (FLOAT32, [2]), (FLOAT32, [1]), blobs={0: [0], 3: [1]})
    sizes = {0: 100, 1: 100}
    assert find_cuts(steps, ["v3"], sizes, ALIGNMENT + 100, 9) == [3, 4]
    with pytest.raises(UsageError) as error:
        find_cuts(steps, ["v2", "v3"], sizes, ALIGNMENT + 100, 9)
    assert str(error.value) == "no chunk with 164 bytes of weights can hold 'v3': no value before it can be an output"
    with pytest.raises(UsageError) as error:
        find_cuts(steps, ["v3"], sizes, ALIGNMENT + 99, 9)
    assert str(error.value) == "no chunk with 163 bytes of weights can hold 'v0': its weights alone take 164"
