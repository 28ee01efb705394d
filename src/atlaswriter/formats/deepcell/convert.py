"""`deepcell`: from images and labels, whatever wrote them, to a DeepCell Label project."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from os import PathLike
from typing import Any, Literal

from atlaswriter.formats.deepcell.job import opened
from atlaswriter.report import Report


def deepcell(
    images: Any,
    out: str | PathLike[str],
    labels: Any = None,
    axes: str | None = None,
    *,
    label_axes: str | None = None,
    channel_names: Sequence[str] | None = None,
    image_dtype: Literal["uint8", "keep"] = "uint8",
    preview: bool = False,
    force: bool = False,
    download_limit: str | int = "10GiB",
    timeout: float = 60.0,
    memory_budget: str | int | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    spill_dir: str | PathLike[str] | None = None,
) -> Report:
    """Write a DeepCell Label project.

    Parameters
    ----------
    images
        What is labelled: a file or an http(s) URL (TIFF, OME-TIFF, PNG, ``.npy``, ``.npz``, ``.trk``, a zip of any of
        these, a project), a folder of TIFFs or PNGs (each a frame), a Zarr store, or an array (NumPy, dask, Zarr). Of
        an ``.npz`` the array ``X`` is taken, else the first one, and ``y`` for labels where it is there.
    out
        Zip file to write.
    labels
        Segmentation, where `images` does not hold it: as `images`, or a zip with one ``.npy`` or TIFF, TIFFs named
        ``..._batch_B_feature_F.tiff``, ``spots.csv``, ``lineage.json``, ``cells.json``, ``divisions.json``,
        ``cellTypes.json``, ``embeddings.json``. Pixels are whole numbers, 0 where there is no cell. Without labels the
        project has one empty feature.
    axes
        Axes of the images, in any order: T, Z or B for frames, C or S for channels, Y and X, such as ``"CZYX"``. By
        default what the file says; of arrays ``YX``, ``TYX`` or ``TYXC``.
    label_axes
        Axes of the labels; by default what the file says, or what fits the images.
    channel_names
        Names of the channels; by default those of an OME-TIFF.
    image_dtype
        ``"uint8"``: each channel is stretched from its smallest to its largest value, over all frames, to 0 to 255
        (images that are uint8 stay as they are). ``"keep"``: pixels are stored as they are, bit for bit.
    preview
        Also write ``NAME.preview.png`` beside the project: frames with outlines of the labels.
    force
        Replace an existing file.
    download_limit
        Largest download that is accepted.
    timeout
        Seconds that a server may be silent.
    memory_budget, workers, progress, spill_dir
        As in `atlaswriter.prepare`. Compressed members and downloads wait in temporary files.

    Returns
    -------
    Report
        What was written, how pixels were stored, and what deserves a second look.

    Raises
    ------
    InputError
        Something is wrong with the input; everything that was found is said at once.
    BudgetError
        The memory budget is too small; says what would do.
    OutputError
        The project cannot be written; the target is as it was.
    """
    with opened(dict(locals()), [images, labels]) as job:
        # What takes a moment to import is not needed to refuse an option.
        from atlaswriter.formats.deepcell.write import export
        from atlaswriter.sources.submission import OpenSubmission, Options

        done = 0

        def tell(size: int, _: int | None) -> None:
            nonlocal done
            job.progress.add(size - done if size >= done else size)  # less: another download
            done = size

        told = job.options
        reading = Options(told.axes, told.label_axes, told.most_downloaded, told.timeout, tell)
        with ExitStack() as stack:
            with job.report.phase("open"), job.progress.phase("open", 0):
                given = stack.enter_context(OpenSubmission(images, labels, scratch=job.sink.scratch, options=reading))
            return export(job, given.submission, given)
