"""Feature statistics of the real pictures of a model, for Fréchet distances: beside its weights.

python training/real_features.py emoji32 --data noto_emoji.npz -o mobile_export/zoo/emoji32/features.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import train_digits28
import train_emoji32

from mobile_export.evaluate.frechet import FeatureStatistics
from mobile_export.evaluate.resnet56 import load_resnet56, resnet56_features

LOADERS = {"emoji32": train_emoji32.load_images, "digits28": train_digits28.load_images}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(LOADERS))
    parser.add_argument("--data", type=Path, required=True, help="the data file that the model was trained on")
    parser.add_argument("-n", type=int, default=1000, help="pictures of each class, the first of the file, at most")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    images, labels = LOADERS[arguments.model](arguments.data)
    # As many of each class, since an evaluation draws the classes in turn.
    count = min(arguments.n, int(labels.bincount().min()))
    chosen = torch.cat([torch.nonzero(labels == k)[:count, 0] for k in range(int(labels.max()) + 1)])
    features = resnet56_features(load_resnet56(), images[chosen].numpy())
    FeatureStatistics.of(features).save(arguments.output)
    print(f"{len(features)} pictures: {arguments.output}")


if __name__ == "__main__":
    main()
