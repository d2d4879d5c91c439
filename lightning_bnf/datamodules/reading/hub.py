"""Dataset folders and hub ids, read by the `datasets` library."""

from pathlib import Path
from typing import Any

from lightning_bnf.datamodules.reading.errors import DataError, reason
from lightning_bnf.datamodules.reading.tables import RawRecord, numbered
from lightning_bnf.runtime.hub import why_not_asked

SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves in a folder: a DatasetDict's, a Dataset's


def read_hub(
    path: str, folder: Path, split: str | None, subset: str | None, revision: str | None, hint: str
) -> list[RawRecord]:
    """The rows of a split; of a folder that `save_to_disk` or files made, or else of a hub id. Raises `DataError`, with
    `hint` where neither can be read."""
    from datasets import Dataset, DatasetDict, config, load_dataset, load_from_disk  # pandas; local files do without

    if not folder.is_dir():
        why = why_not_asked(path, cached=(Path(config.HF_DATASETS_CACHE) / path.replace("/", "___")).is_dir())
        if why is not None:
            raise DataError(f"{path}: there is no such file or folder, and no hub to ask for it, as {why}; {hint}")
    saved = any((folder / name).is_file() for name in SAVED)
    try:
        if saved:
            data = load_from_disk(str(folder))
        else:  # a folder by its whole path: some names alone are those of loaders, which read what lies around
            name = str(folder.resolve()) if folder.is_dir() else path
            data = load_dataset(name, name=subset, split=split, revision=revision)
    except Exception as error:  # a library's, on files that others wrote
        here = "as a dataset folder" if folder.is_dir() else "there is no such file or folder, and as a hub id"
        raise DataError(f"{path}: {here} it cannot be loaded ({reason(error)}); {hint}") from error
    if isinstance(data, DatasetDict):
        split = _chosen(path, split, data)
        data = data[split]
    elif saved and split is not None:
        raise DataError(f"{path}: split must be null for a folder that holds one dataset, got {split!r}")
    if not isinstance(data, Dataset):
        raise DataError(f"{path}: must be a table of rows, got a {type(data).__name__}")
    place = path if split is None else f"{path}[{split}]"
    if not len(data):
        raise DataError(f"{place}: must be at least one row, got an empty split")
    return numbered(place, data.to_list())


def _chosen(path: str, split: str | None, splits: dict[str, Any]) -> str:
    if split is None and len(splits) == 1:
        return str(next(iter(splits)))
    if split not in splits:
        example = next(iter(splits), "train")
        got = "none" if split is None else repr(split)
        raise DataError(
            f"{path}: split must be one of {', '.join(splits)}, got {got}; it stands behind the name: {path}:{example}"
        )
    return split
