"""`load_dataset("drp_hf/gsm8k_pruned")`: a corpus folder, the Hub's repository of that name, or the built-in sample.

A corpus folder is plain Parquet with a card and needs none of this: `load_dataset(DIR, "steps")`. What the builder
adds is the name, the views as fixed configurations, and `sample`, a small corpus that comes with the package.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import datasets.load
from datasets.data_files import DataFilesDict
from datasets.download import DownloadConfig
from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES, _hash_python_lines
from datasets.packaged_modules.parquet.parquet import Parquet, ParquetConfig
from fsspec.core import url_to_fs
from huggingface_hub import parse_hf_uri
from huggingface_hub.errors import LocalEntryNotFoundError

from drp_hf.corpus import DEFAULT_VIEW, VIEWS, view_file
from drp_hf.corpus.folder import split_files
from drp_hf.errors import DRPError

if TYPE_CHECKING:
    from drp_hf.hub.publication import Published

logger = logging.getLogger(__name__)

NAME = "drp_hf/gsm8k_pruned"
ON_THE_HUB = "hf://datasets/"
REPOSITORY = ON_THE_HUB + NAME
SAMPLE = "sample"
SAMPLE_DIR = Path(__file__).parent / SAMPLE


class PrunedCorpus(Parquet):
    """Views of a pruned corpus as configurations; `sample` is the built-in corpus in its default view.

    Args:
        config_name: a view or `sample`.
        data_dir: a corpus folder, also one of the Hub (`hf://datasets/<repository>[@<revision>]`); the repository
            `drp_hf/gsm8k_pruned` if None. Where the Hub cannot be reached, what was loaded from it last is taken.
        token: for private repositories of the Hub.
        kwargs: as `datasets.DatasetBuilder`.

    Raises:
        DRPError: the folder is no corpus, or the Hub cannot be reached and the view was never loaded from it.
    """

    BUILDER_CONFIGS = [
        *(ParquetConfig(name=view, description=description) for view, description in VIEWS.items()),
        ParquetConfig(name=SAMPLE, description="A small corpus that comes with the package, in its default view."),
    ]
    DEFAULT_CONFIG_NAME = DEFAULT_VIEW

    def __init__(
        self,
        *,
        config_name: str | None = None,
        data_dir: str | None = None,
        token: str | bool | None = None,
        storage_options: dict | None = None,
        **kwargs: Any,
    ):
        view = config_name or DEFAULT_VIEW
        self.folder = SAMPLE_DIR if view == SAMPLE else data_dir
        # The name's slash would become a folder of the cache, and the files depend on the view.
        kwargs |= {"dataset_name": NAME.partition("/")[2], "data_files": None}
        if view in self.builder_configs:
            download_config = DownloadConfig(token=token, storage_options=storage_options or {})
            kwargs["data_files"] = _data_files(view, data_dir, download_config)
        super().__init__(config_name=view, token=token, storage_options=storage_options, **kwargs)

    def push_to_hub(self, repo_id: str, **options: Any) -> Published:
        """Publishes the corpus, all views of it, as `drp push corpus` does.

        Args:
            repo_id: the repository (`owner/name`).
            **options: fields of [`~drp_hf.hub.corpus.CorpusOptions`]: `license`, `sources`, `public`, `tag`, …

        Raises:
            DRPError: the corpus is on the Hub already, an option cannot be used, or the Hub did not take it.
        """
        from drp_hf.hub.corpus import CorpusOptions, push_corpus

        if self.folder is None or "://" in str(self.folder):
            raise DRPError(f"{self.folder or NAME} is on the Hub already: give data_dir a local folder to push.")
        return push_corpus(self.folder, CorpusOptions(repo_id=repo_id, **options))


def _data_files(view: str, data_dir: str | None, download_config: DownloadConfig) -> DataFilesDict:
    if view == SAMPLE:
        return _find(str(SAMPLE_DIR), DEFAULT_VIEW, download_config)
    folder = REPOSITORY if data_dir is None else str(data_dir)
    if folder.startswith(ON_THE_HUB):
        try:
            return _find_on_the_hub(folder, view, download_config)
        except Exception as error:  # offline, unreachable, no such repository or revision, no permission
            cause = " ".join(str(error).split()) or type(error).__name__
            name = folder.removeprefix(ON_THE_HUB)
            raise DRPError(
                f"{name} cannot be loaded from the Hub ({cause}); two ways work offline: "
                f'load_dataset("{NAME}", data_dir=FOLDER) with a folder that `drp prune` wrote, and '
                f'load_dataset("{NAME}", "{SAMPLE}") for the small corpus that comes with the package.'
            ) from error
    try:
        return _find(folder, view, download_config)
    except FileNotFoundError as error:
        raise DRPError(
            f"{folder} is no corpus folder (no {view_file(view, '<split>')} in it): "
            "give data_dir the folder that `drp prune` wrote."
        ) from error


def _find_on_the_hub(folder: str, view: str, download_config: DownloadConfig) -> DataFilesDict:
    """As [`_find`]; where the Hub does not answer, in what its client has kept of that revision."""
    try:
        return _find(folder, view, download_config)
    except (FileNotFoundError, DRPError):  # what the Hub's answer means, also for what one may not see
        raise
    except Exception as error:
        from huggingface_hub import snapshot_download  # which `import drp_hf` does not need

        place = parse_hf_uri(folder)
        try:
            kept = snapshot_download(place.id, repo_type=place.type, revision=place.revision, local_files_only=True)
        except LocalEntryNotFoundError:
            raise error from None
        found = Path(kept, place.path_in_repo)
        if not (found / view).is_dir():
            raise
        logger.warning("%s cannot be reached (%s): what was loaded from it last is taken, %s.", folder, error, found)
        return _find(str(found), view, download_config)


def _find(folder: str, view: str, download_config: DownloadConfig) -> DataFilesDict:
    """The files of a view by split."""
    options = dict(download_config.storage_options)
    if folder.startswith("hf://"):
        options["token"] = download_config.token
    else:
        folder = Path(folder).expanduser().resolve().as_posix()
    file_system, root = url_to_fs(folder, **options)
    splits = split_files((Path(name).name for name in file_system.ls(f"{root}/{view}", detail=False)), view)
    if not splits:
        raise FileNotFoundError(view_file(view, "*"))
    files = {split: [f"{folder}/{view}/{name}" for name in names] for split, names in splits.items()}
    return DataFilesDict.from_patterns(files, download_config=download_config)


class _ModuleFactory(datasets.load.PackagedDatasetModuleFactory):
    """Finds the builder of `NAME` without looking for data files: it knows its own.

    The library's own factory searches `data_dir`, and without one the whole working folder, before it asks a builder.
    """

    def get_module(self) -> datasets.load.DatasetModule:
        if self.name != NAME:
            return super().get_module()
        if self.data_files is not None:
            raise DRPError(f"{NAME} takes no data_files: give data_dir the folder that `drp prune` wrote.")
        module, digest = _PACKAGED_DATASETS_MODULES[NAME]
        return datasets.load.DatasetModule(module, digest, {"data_files": DataFilesDict(), "dataset_name": NAME})


def _with_revision(module_factory: Callable[..., datasets.load.DatasetModule]) -> Callable[..., Any]:
    """Lets `revision` choose a commit, branch or tag of `NAME`: the library gives its own builders none."""

    @wraps(module_factory)
    def dataset_module_factory(
        path: str, revision: Any = None, *args: Any, data_dir: str | None = None, **options: Any
    ) -> datasets.load.DatasetModule:
        module = module_factory(path, revision, *args, data_dir=data_dir, **options)
        if path == NAME and revision is not None:
            if data_dir is not None:
                raise DRPError(f"{NAME} takes data_dir or revision: a folder of the Hub's can end in @{revision}.")
            module.builder_kwargs["data_dir"] = f"{REPOSITORY}@{quote(str(revision), safe='')}"
        return module

    return dataset_module_factory


def register() -> None:
    """Makes `load_dataset` know `drp_hf/gsm8k_pruned`."""
    source = inspect.getsource(sys.modules[__name__]).splitlines()
    _PACKAGED_DATASETS_MODULES[NAME] = (__name__, _hash_python_lines(source))
    datasets.load.PackagedDatasetModuleFactory = _ModuleFactory
    datasets.load.dataset_module_factory = _with_revision(datasets.load.dataset_module_factory)
