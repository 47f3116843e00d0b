"""Network: what a study compares with the reference, with everything that names it."""

from __future__ import annotations

from dataclasses import dataclass

from correction import Denoiser
from mobile_export.backends import get_backend
from mobile_export.bundle import Bundle
from mobile_export.simulate import bundle_unet


@dataclass(frozen=True)
class Network:
    """name: for people and files, e.g. "emoji32-w4a8, executorch"; denoiser: without guidance; digest: of the artifact.

    batch: how many samples one call takes well.
    """

    name: str
    denoiser: Denoiser
    digest: str
    batch: int = 1

    @classmethod
    def of_bundle(cls, bundle: Bundle, target: str, name: str | None = None) -> Network:
        """The UNet's artifact of one part of a bundle. name: the bundle's, if it should not be its own.

        Raises UsageError when the bundle lacks the target.
        """
        digest, backend = bundle.artifact_sha256(target), get_backend(target)
        return cls(f"{name or bundle.name}, {backend.title}", bundle_unet(bundle, target), digest, backend.batch)
