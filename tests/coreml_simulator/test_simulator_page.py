"""docs/coreml-simulator.md says what is there."""

from pathlib import Path

from mobile_export.coreml_simulator.ops import OPS

PAGE = Path(__file__).parents[2] / "docs" / "coreml-simulator.md"


def test_the_page_lists_the_operations_that_are_registered() -> None:
    _, table = PAGE.read_text(encoding="utf-8").split("| kind | operations |\n|---|---|\n")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    listed = {name: kind for kind, names in rows for name in names.split(", ")}
    assert listed == {name: op.function.__module__.rpartition(".")[2] for name, op in OPS.items()}
