"""Study: networks of one model and corrections of them, side by side on the same noise that calibration never saw."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from correction import Correction, Denoiser, SamplingPlan, UsageError, calibrate
from correction.file import read_correction, write_correction
from correction.methods import Method
from correction.schedulers import make_plan
from mobile_export.batch import Batch, make_batch, run
from mobile_export.evaluate.bundle_evaluation import image_decoder
from mobile_export.evaluate.feature_network import FeatureNetwork
from mobile_export.evaluate.network import Network
from mobile_export.evaluate.outcome import REFERENCE, Outcome, OutcomeKey
from mobile_export.evaluate.remembered import Remembered
from mobile_export.evaluate.resnet56 import NAME, resnet56
from mobile_export.evaluate.study_settings import ORACLE, Sampling, StudySettings, method_of
from mobile_export.evaluate.tally import Course, CourseRecorder, Tally
from mobile_export.models.diffusion_model import DiffusionModel, TorchDenoiser
from mobile_export.progress import Progress
from mobile_export.subjects import Subjects

CALIBRATION, EVALUATION = "calibration", "evaluation"  # streams of noise: disjoint by construction
SEEDS_AT_ONCE = 16


@dataclass(frozen=True)
class Study:
    """subjects: what the samples show, in turn; folder: keeps what was found, so that a study that was interrupted, or
    is asked for more, goes on where it was; baseline: a network of the same model that the others are measured
    against, without any correction; features: of the pictures, ResNet-56's by default. Raises UsageError for two
    networks of one name.
    """

    model: DiffusionModel
    networks: Sequence[Network]
    subjects: Subjects
    settings: StudySettings
    folder: Path
    progress: Progress
    baseline: Network | None = None
    features: FeatureNetwork | None = None

    def __post_init__(self) -> None:
        names = [network.name for network in (*self.networks, *self._baselines())]
        if len(set(names)) < len(names):
            raise UsageError(f"two networks of a study have the same name: {', '.join(sorted(names))}")
        self.folder.mkdir(parents=True, exist_ok=True)

    def outcomes(self) -> dict[OutcomeKey, Outcome]:
        """Of every network, sampling and method, and of the reference, whose method is "none"."""
        found: dict[OutcomeKey, Outcome] = {}
        for sampling in self.settings.samplings:
            found |= _Cell(self, sampling).outcomes()
        return found

    def pairs(self) -> list[tuple[Network, str]]:
        """Every network with every method that is compared on it."""
        pairs = [(network, "none") for network in self._baselines()]
        return pairs + [(network, method) for network in self.networks for method in self.settings.methods]

    def _baselines(self) -> list[Network]:
        return [] if self.baseline is None else [self.baseline]

    def batch(self, stream: str, count: int) -> Batch:
        """The first `count` samples of a stream, subjects in turn."""
        rows = self.subjects.rows(self.subjects.turn(range(count)))
        return make_batch(self.settings.seed, stream, range(count), self.model.sample_shape, rows)


class _Cell:
    """One sampling of a study."""

    def __init__(self, study: Study, sampling: Sampling) -> None:
        self.study, self.sampling = study, sampling
        model = study.model
        self.plan = make_plan(sampling.sampler, model.scheduler_config, sampling.steps)
        self.reference: Denoiser = study.subjects.guided(TorchDenoiser(model.unet))
        self.origin = f"{model.digest} {self.plan.digest()} {study.subjects.digest()} {study.settings.seed}"
        # Methods are solved along trajectories of which some are the same: the reference's, and those of a network that
        # is not corrected.
        self.exact = Remembered(self.reference)
        self.quantized = {
            network.name: Remembered(study.subjects.guided(network.denoiser)) for network in study.networks
        }

    def outcomes(self) -> dict[OutcomeKey, Outcome]:
        study, keys = self.study, [OutcomeKey(REFERENCE, self.sampling.name, "none")]
        runs: dict[OutcomeKey, tuple[Network, SamplingPlan, Correction | None]] = {}
        for network, method in study.pairs():
            key = OutcomeKey(network.name, self.sampling.name, method)
            keys.append(key)
            plan, correction = self.solved(network, method)
            runs[key] = (network, plan, correction)
        marks = {key: self.mark(key, *runs.get(key, (None, self.plan, None))) for key in keys}
        found = {key: Outcome.load(self.path(key), marks[key]) for key in keys}
        missing = [key for key in keys if found[key] is None]
        if missing:
            found |= self.measured(runs, missing, marks)
        return {key: outcome for key, outcome in found.items() if outcome is not None}

    def measured(
        self,
        runs: Mapping[OutcomeKey, tuple[Network, SamplingPlan, Correction | None]],
        keys: Sequence[OutcomeKey],
        marks: Mapping[OutcomeKey, str],
    ) -> dict[OutcomeKey, Outcome]:
        """Sample the evaluation seeds, a few at a time: the reference, then each of `keys` on the same. What an
        interrupted run had done of them is taken over; corrections that are the same are sampled once."""
        study, count = self.study, self.study.settings.count
        study.progress.stage(f"{self.sampling.name}: {len(keys)} rows on {count} held-out seeds")
        decode, features = image_decoder(study.model), (study.features or resnet56()).features
        files = {key: self.path(key).with_suffix(".tally") for key in keys}
        tallies = {key: Tally.load(files[key], marks[key], features) for key in keys}
        batch, starts = study.batch(EVALUATION, count), range(0, count, SEEDS_AT_ONCE)
        for number, start in enumerate(starts):
            left = [key for key in keys if tallies[key].seeds <= start]
            if not left:
                continue
            few = batch.rows(slice(start, start + SEEDS_AT_ONCE))
            exact = _course(self.plan, self.reference, few, None, SEEDS_AT_ONCE, decode)
            done = len(keys) * number + len(keys) - len(left)
            for equal in _equal(left, runs):
                course = exact
                if equal[0] in runs:
                    quantized, plan, correction = runs[equal[0]]
                    denoiser = study.subjects.guided(quantized.denoiser)
                    course = _course(plan, denoiser, few, correction, quantized.batch, decode)
                for key in equal:
                    tallies[key].add(exact, course)
                    tallies[key].save(files[key], marks[key])
                done += len(equal)
                study.progress.advance(done, len(starts) * len(keys))
        found = {}
        for key, tally in tallies.items():
            found[key] = tally.outcome(runs[key][2] if key in runs else None)
            found[key].save(self.path(key), key, marks[key])
            files[key].unlink()
        return found

    def solved(self, network: Network, name: str) -> tuple[SamplingPlan, Correction | None]:
        """The plan and correction of a method, from the folder or solved now."""
        if name == "none":
            return self.plan, None
        study, method = self.study, method_of(name)
        stream = EVALUATION if name == ORACLE else CALIBRATION
        count = study.settings.count if name == ORACLE else study.settings.calibration_samples
        key = OutcomeKey(network.name, self.sampling.name, name)
        about = f"{self.origin} {network.digest} {method.describe()} {stream} {count}"
        mark = hashlib.sha256(about.encode()).hexdigest()
        path = self.path(key).with_suffix(".correction")
        if path.exists():
            file = read_correction(path)
            if file.metadata.get("mark") == mark:
                return file.plan, file.correction
        plan, correction = self.calibrated(network, method, stream, count, path.with_suffix(".state"), mark)
        write_correction(path, plan, correction, {"artifact_sha256": network.digest, "mark": mark})
        return plan, correction

    def calibrated(
        self, network: Network, method: Method, stream: str, count: int, state: Path, mark: str
    ) -> tuple[SamplingPlan, Correction]:
        study = self.study
        study.progress.stage(f"{self.sampling.name}, {network.name}: calibrate {method.name} on {count} trajectories")
        batch = study.batch(stream, count)
        result = calibrate(
            self.plan,
            self.exact,
            self.quantized[network.name],
            batch.noise,
            method,
            batch.conditioning,
            batch.step_noise if self.plan.needs_noise else None,
            study.progress.advance,
            state_file=state,
            batch_size=network.batch if network.batch > 1 else SEEDS_AT_ONCE,
            tag=mark,
        )
        return result.plan, result.correction

    def mark(self, key: OutcomeKey, network: Network | None, plan: SamplingPlan, correction: Correction | None) -> str:
        """Digest of all that decides an outcome."""
        parts: list[Any] = [self.origin, key, self.study.settings.count, plan.digest()]
        parts += ["" if network is None else network.digest, "" if correction is None else correction.digest()]
        if self.study.features is not None and self.study.features.name != NAME:
            parts.append(self.study.features.name)
        return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()

    def path(self, key: OutcomeKey) -> Path:
        name = hashlib.sha256(f"{key.network} {key.sampling} {key.method}".encode()).hexdigest()[:24]
        return self.study.folder / f"{name}.outcome"


def _equal(
    keys: Sequence[OutcomeKey], runs: Mapping[OutcomeKey, tuple[Network, SamplingPlan, Correction | None]]
) -> list[list[OutcomeKey]]:
    """The keys in groups that do the same, in order: a correction that was dropped does what none does."""
    groups: dict[tuple[str, ...], list[OutcomeKey]] = {}
    for key in keys:
        same: tuple[str, ...] = (REFERENCE,)
        if key in runs:
            network, plan, correction = runs[key]
            changes = "" if correction is None or correction.is_identity else correction.digest()
            same = (network.name, plan.digest(), changes)
        groups.setdefault(same, []).append(key)
    return list(groups.values())


def _course(
    plan: SamplingPlan,
    denoiser: Denoiser,
    batch: Batch,
    correction: Correction | None,
    size: int,
    decode: Callable[[np.ndarray], np.ndarray],
) -> Course:
    """The batch, `size` samples at a time."""
    parts = []
    for start in range(0, len(batch.noise), size):
        piece, recorder = batch.rows(slice(start, start + size)), CourseRecorder()
        parts.append(recorder.finish(run(plan, denoiser, piece, correction, recorder), decode))
    fields = ([getattr(part, name) for part in parts] for name in ("samples", "outputs", "images"))
    return Course(*(np.concatenate(each) for each in fields))
