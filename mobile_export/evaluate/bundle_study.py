"""Bundle study: the artifacts of bundles through a study, and its tables and pictures in a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from correction import CheckFailed, UsageError
from correction.schedulers import make_plan
from mobile_export.bundle import Bundle
from mobile_export.evaluate.bundle_evaluation import bundle_subjects
from mobile_export.evaluate.comparison import Comparison, compare, reference_distances
from mobile_export.evaluate.comparison_pictures import write_pictures
from mobile_export.evaluate.comparison_table import comparison_tables
from mobile_export.evaluate.cost import step_cost
from mobile_export.evaluate.feature_network import FeatureNetwork
from mobile_export.evaluate.frechet import FeatureStatistics
from mobile_export.evaluate.network import Network
from mobile_export.evaluate.outcome import OutcomeKey
from mobile_export.evaluate.real_pictures import real_statistics
from mobile_export.evaluate.resnet56 import NAME, resnet56
from mobile_export.evaluate.study import EVALUATION, Study
from mobile_export.evaluate.study_settings import StudySettings
from mobile_export.metrics import Interval
from mobile_export.models.diffusion_model import DiffusionModel, load_model
from mobile_export.models.pipeline_folder import find_folder
from mobile_export.progress import Progress

STATISTICS = "features.safetensors"  # of real pictures, in a model's folder


@dataclass(frozen=True)
class BundleStudy:
    """rows: by network, sampling and method; references: the reference's own Fréchet distance to real pictures, by
    sampling; text: the tables as Markdown, with their command; table: its file."""

    rows: Mapping[OutcomeKey, Comparison]
    references: Mapping[str, Interval]
    text: str
    table: Path


def bundle_study(
    bundles: Sequence[Bundle],
    targets: Sequence[str],
    settings: StudySettings,
    folder: Path,
    default: str | None = None,
    source: str | None = None,
    real: Path | None = None,
    baseline: Bundle | None = None,
    progress: Progress | None = None,
    features: FeatureNetwork | None = None,
) -> BundleStudy:
    """Compare the corrections of `settings` on parts of bundles of one model; write comparison.md and pictures.

    targets: whose parts, by default all; default: the correction that others are compared with, by default
    `settings.usual`; source: the reference, by default where the bundles came from; real: feature
    statistics of real pictures, or a folder of pictures, by default what the model's own folder has; features: what
    Fréchet distances are of, by default ResNet-56's; baseline: another bundle of the model, whose first part without
    correction opens every table under the name of its folder, and whose gap to the reference is what is closed. Raises
    UsageError for bundles of two models, guidances or prompts, and for a default that is not compared; CheckFailed
    when the reference is another model.
    """
    progress, default = progress or Progress(), default or settings.usual
    if default not in settings.methods:
        raise UsageError(f"the default {default!r} is not among the methods: {', '.join(settings.methods)}")
    model = load_model(source or bundles[0].manifest["model"]["source"])
    every = [*bundles, *([] if baseline is None else [baseline])]
    subjects = [bundle_subjects(bundle, model) for bundle in every]
    for bundle, each in zip(every, subjects, strict=True):
        if bundle.manifest["model"]["digest"] != model.digest:
            raise CheckFailed(f"{model.source} is not the model that {bundle.name} was made from (its digest differs)")
        if each.digest() != subjects[0].digest():
            raise UsageError(f"{bundle.name} and {bundles[0].name} were made for different guidance or prompts")
    names = _names(bundles)
    networks = [
        Network.of_bundle(b, target, name)
        for b, name in zip(bundles, names, strict=True)
        for target in targets or b.targets
    ]
    base = (
        None if baseline is None else Network.of_bundle(baseline, (targets or baseline.targets)[0], baseline.path.name)
    )
    image = bundles[0].manifest["image"]
    statistics = picture_statistics(
        model, real, features or resnet56(), (image["channels"], image["height"], image["width"])
    )
    study = Study(model, networks, subjects[0], settings, folder / "outcomes", progress, base, features)
    return study_tables(study, folder, default, statistics)


def study_tables(study: Study, folder: Path, default: str, statistics: FeatureStatistics | None) -> BundleStudy:
    """Run a study, or go on with it; write comparison.md and pictures. statistics: of the features of real pictures."""
    beside = None if study.baseline is None else study.baseline.name
    outcomes, samplings = study.outcomes(), study.settings.samplings
    rows = compare(outcomes, default, statistics, beside)
    references = {} if statistics is None else reference_distances(outcomes, [s.name for s in samplings], statistics)
    timesteps = {s.name: make_plan(s.sampler, study.model.scheduler_config, s.steps).timestep for s in samplings}
    study.progress.stage("draw the pictures")
    write_pictures(folder, outcomes, timesteps)
    text = comparison_tables(rows, default, references, beside) + "\n" + _notes(study)
    table = folder / "comparison.md"
    table.write_text(text, encoding="utf-8")
    return BundleStudy(rows, references, text, table)


def _names(bundles: Sequence[Bundle]) -> list[str]:
    """The names of the bundles; where two have the same, those of their folders."""
    often = Counter(bundle.name for bundle in bundles)
    return [bundle.name if often[bundle.name] == 1 else bundle.path.name for bundle in bundles]


def picture_statistics(
    model: DiffusionModel, path: Path | None, features: FeatureNetwork, shape: tuple[int, int, int]
) -> FeatureStatistics | None:
    """Of real pictures: those at `path`, see `real_statistics`, else those in the model's folder, if it has any."""
    if path is not None:
        return real_statistics(path, features, shape)
    own = find_folder(model.source).path / STATISTICS  # of ResNet-56's features
    return real_statistics(own, features, shape) if own.is_file() and features.name == NAME else None


def _notes(study: Study) -> str:
    features = study.features or resnet56()
    settings, first = study.settings, study.batch(EVALUATION, 1)
    costs = []
    for network in study.networks:
        plan = make_plan(settings.samplings[0].sampler, study.model.scheduler_config, settings.samplings[0].steps)
        cost = step_cost(plan, network.denoiser, first)
        costs.append(f"{network.name} {100 * cost.share:.2f} % of {cost.seconds:.3f} s")
    return (
        f"{settings.count} held-out seeds, {settings.calibration_samples} calibration trajectories, seed "
        f'{settings.seed}; intervals are 95 % bootstraps over the seeds. "Default ahead by" is the paired difference '
        f'in image PSNR, "default nearer by" that of the Fréchet distances to real pictures: ≈ where the interval '
        f'holds 0, "no" where the other correction is better; "over the reference" is paired, too. Fréchet distances '
        f"are of {features.name}, and need {features.enough} seeds. "
        f"Mean drift and std ratio are those of the sample after the last step, in the worst channel. Bytes are those "
        f"of the tables that a correction uses. Both halves of a correction add to a step's time, of one "
        f"sample on this desktop: {', '.join(costs)}.\n"
    )
