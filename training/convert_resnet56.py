"""The weights of the feature network, from a public classifier's: half precision, without its last layer.

    python training/convert_resnet56.py resnet56-4bfd9763.th mobile_export/evaluate/weights/resnet56.safetensors

The file is from github.com/akamaster/pytorch_resnet_cifar10 (commit d5489e8, BSD-2).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mobile_export.evaluate.resnet56 import ResNet56


def main() -> None:
    source, target = (Path(argument) for argument in sys.argv[1:3])
    state = torch.load(source, map_location="cpu", weights_only=True)["state_dict"]
    weights = {name.removeprefix("module."): value for name, value in state.items()}
    weights = {name: value.half() for name, value in weights.items() if name.split(".")[0] != "linear"}
    found = ResNet56().load_state_dict(weights, strict=False)
    unknown = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if unknown or found.unexpected_keys:
        raise SystemExit(f"{source} is another network: {unknown or found.unexpected_keys}")
    save_file({name: value.contiguous() for name, value in weights.items()}, target)
    target.chmod(0o644)


if __name__ == "__main__":
    main()
