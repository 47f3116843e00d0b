"""Recipe: what each layer of a network becomes, from a name such as "w4a16" or from a JSON file."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from correction.errors import UsageError
from mobile_export.quantize.precision import Precision
from mobile_export.quantize.rounding import ROUNDED_BITS
from mobile_export.quantize.weight_format import WEIGHT_BITS, WeightFormat

# The two convolutions that touch the image hold 0.1 % of the weights, and their 8-bit activations
# would cost more than all others together: the noisy image spans [-4, 4], the clean one [-1, 1].
KEPT_IN_FLOAT = ("conv_in", "conv_out")
# Both names are those of a UNet: an autoencoder's are decoder.conv_in and so on. It runs once, so that its errors do
# not add up, and its image ends on a grid of 8 bits anyway: all its layers are quantized, and those of a text encoder.
# Few weights as well. Every layer depends on what the first three say about the timestep (TFMQ-DM), class or size; the
# last carries the residual stream, past all norms, where it changes its channels: nothing behind it makes up for it,
# so its inputs are not rounded either.
SPARED, SPARED_BITS = ("time_emb", "class_embedding", "add_embedding", "conv_shortcut"), 8
FLOAT_INPUTS = "conv_shortcut"
MAX_BYTES = 2**20
ROUNDINGS = ("inputs", "nearest")
ACTIVATIONS = ("dynamic", "static")
_KEYS = ("precision", "format", "layers", "rounding", "activations")
_HOW = (
    'say "float", or "w" and the bits, with "a16" for inputs in floating point and a format if it should not be the '
    'default one, as in "w8a16" or "w6 palette16"'
)


@dataclass(frozen=True)
class LayerRecipe:
    """Bits and format of one layer's weights, both None where it stays in floating point.

    float_inputs: the layer's inputs are not rounded, whatever the network's precision is. Raises UsageError for bits
    that do not exist, or that the format does not have.
    """

    bits: int | None
    format: WeightFormat | None
    float_inputs: bool = False

    def __post_init__(self) -> None:
        if (self.bits is None) != (self.format is None):
            raise UsageError(f"bits and format go together, got {self.bits} and {self.format}")
        if self.bits is not None and self.format is not None:
            if self.bits not in WEIGHT_BITS:
                raise UsageError(f"{self.bits}-bit weights do not exist: choose {', '.join(map(str, WEIGHT_BITS))}")
            self.format.require_bits(self.bits)

    @property
    def name(self) -> str:
        inputs = "a16" if self.float_inputs else ""
        return "float" if self.format is None else f"w{self.bits}{inputs} {self.format.name}"

    @classmethod
    def parse(cls, text: str) -> LayerRecipe:
        """ "float", "w8" (in the default format of its bits), "w8 block32" or "w8a16"; raises UsageError for others."""
        if text == "float":
            return FLOAT
        match = re.fullmatch(r"w(\d{1,2})(a16)?(?: (\w+))?", text)
        if match is None:
            raise UsageError(f"a layer cannot be {text!r}: {_HOW}")
        bits = int(match[1])
        format = WeightFormat.default(bits) if match[3] is None else WeightFormat.parse(match[3])
        return cls(bits, format, match[2] is not None)


FLOAT = LayerRecipe(None, None)


@dataclass(frozen=True)
class Recipe:
    """precision: of the network; format: of the weights that have its bits; layers: what single layers are instead;
    rounding: of weights of 2 to 8 bits, with a view to the layer's "inputs", or each to the "nearest" level;
    activations: of 8 bits, with ranges that are found at run time ("dynamic") where a backend has them, or "static".

    ``Recipe.of("w4a16")`` has the default format of 4 bits and no exceptions but those that every network
    has: the layers of KEPT_IN_FLOAT, 8 bits for those of SPARED, and inputs in floating point for FLOAT_INPUTS. Raises
    UsageError for a precision that the format does not have.
    """

    precision: Precision
    format: WeightFormat
    layers: Mapping[str, LayerRecipe] = field(default_factory=dict)
    rounding: str = ROUNDINGS[0]
    activations: str = ACTIVATIONS[0]

    def __post_init__(self) -> None:
        self.format.require_bits(self.precision.weight_bits)
        for key, allowed in (("rounding", ROUNDINGS), ("activations", ACTIVATIONS)):
            if getattr(self, key) not in allowed:
                raise UsageError(f"{key} must be one of {', '.join(allowed)}, got {getattr(self, key)!r}")

    def looks_at_inputs(self, bits: int | None) -> bool:
        """Whether weights of these bits are rounded with a view to their layer's inputs."""
        return self.rounding == "inputs" and bits in ROUNDED_BITS

    @classmethod
    def of(cls, name: str, format: str | None = None, activations: str = ACTIVATIONS[0]) -> Recipe:
        """The recipe of a precision by name, in a weight format by name or in the default one of its bits."""
        precision = Precision.parse(name)
        default = WeightFormat.default(precision.weight_bits)
        return cls(precision, default if format is None else WeightFormat.parse(format), activations=activations)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """The recipe in a JSON file (docs/recipes.md). Raises UsageError naming the file and what is wrong in it."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise UsageError(f"recipe {path} cannot be read: {error.strerror}") from error
        if len(data) > MAX_BYTES:
            raise UsageError(f"recipe {path} is larger than {MAX_BYTES} bytes")
        try:
            return cls.from_dict(json.loads(data, object_pairs_hook=_once))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"recipe {path} is not readable JSON ({error})") from error
        except UsageError as error:
            raise UsageError(f"recipe {path}: {error}") from error

    @classmethod
    def from_dict(cls, content: Any) -> Recipe:
        """The inverse of `as_dict`; "precision" alone must be there. Raises UsageError for anything else."""
        if not isinstance(content, dict):
            raise UsageError(f'expected an object like {{"precision": "w4a16"}}, got {type(content).__name__}')
        unknown = sorted(set(content) - set(_KEYS))
        if unknown:
            raise UsageError(f"unknown key {unknown[0]!r}: it may have {', '.join(_KEYS)}")
        layers = content.get("layers", {})
        if not isinstance(layers, dict):
            raise UsageError(f'layers must be an object like {{"conv_in": "w8"}}, got {type(layers).__name__}')
        for key in ("precision", "format"):
            if (key in content or key == "precision") and not isinstance(content.get(key), str):
                raise UsageError(f'{key} must be a name, as in "w4a16" or "palette16", got {content.get(key)!r}')
        plain = cls.of(content["precision"], content.get("format"))
        parsed = {name: plain._parsed(name, text) for name, text in layers.items()}
        rest = {key: content[key] for key in ("rounding", "activations") if key in content}
        return cls(plain.precision, plain.format, parsed, **rest)

    def as_dict(self) -> dict[str, Any]:
        """Everything as names, for a manifest or a digest: {"precision": …, "format": …, "layers": {…}}.

        "rounding" is there where it is not the usual one, "activations" where they have 8 bits.
        """
        layers = {name: layer.name for name, layer in sorted(self.layers.items())}
        rest = {} if self.rounding == ROUNDINGS[0] else {"rounding": self.rounding}
        if not self.precision.weight_only:
            rest["activations"] = self.activations
        return {"precision": self.precision.name, "format": self.format.name, "layers": layers, **rest}

    def layer(self, name: str) -> LayerRecipe:
        """What becomes of the layer of this full name."""
        if name in self.layers:
            return self.layers[name]
        if name in KEPT_IN_FLOAT:
            return FLOAT
        spared = any(part in name for part in SPARED)
        chosen = self._with_bits(SPARED_BITS if spared else self.precision.weight_bits)
        return replace(chosen, float_inputs=FLOAT_INPUTS in name and not self.precision.weight_only)

    def choices(self) -> Iterator[tuple[str, LayerRecipe]]:
        """(what it is about, choice): of the network, then of each layer with one of its own."""
        yield self.precision.name, self._with_bits(self.precision.weight_bits)
        yield from self.layers.items()

    def require_layers(self, names: Collection[str]) -> None:
        """Raises UsageError for a layer that the network, whose full layer names are given, does not have."""
        for name in self.layers:
            if name not in names:
                close = difflib.get_close_matches(name, names, n=3)
                hint = f"; close to it: {', '.join(close)}" if close else ""
                raise UsageError(f"the recipe names {name!r}, which is no layer of the network{hint}")

    def _with_bits(self, bits: int) -> LayerRecipe:
        return LayerRecipe(bits, self.format if bits == self.precision.weight_bits else WeightFormat.default(bits))

    def _parsed(self, name: str, text: Any) -> LayerRecipe:
        try:
            if not isinstance(text, str):
                raise UsageError(f"a layer cannot be {text!r}: {_HOW}")
            parsed = LayerRecipe.parse(text)
            if parsed.bits is None or " " in text:
                return parsed
            return replace(self._with_bits(parsed.bits), float_inputs=parsed.float_inputs)
        except UsageError as error:
            raise UsageError(f"layers.{name}: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys are all different."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise UsageError(f"{key!r} is there twice")
        content[key] = value
    return content
