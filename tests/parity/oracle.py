"""What an export must hold, in plain NumPy and float64. Shares no code with the package."""

import numpy as np
import scipy.sparse as sp

TOP = {8: 254, 16: 65534}

# Distances that differ by less than this share of the coordinates differ by rounding only.
CLOSE = 1e-12


def normalised(raw):
    """Coordinates with the middle of their box at 0 and its widest side 2 long, not rounded."""
    raw = np.asarray(raw, np.float64)
    low, high = raw.min(axis=0), raw.max(axis=0)
    return (raw - (low + high) / 2) / half_width(raw)


def half_width(raw):
    """Half of the widest side of the box around coordinates; what vectors are divided by."""
    raw = np.asarray(raw, np.float64)
    return (raw.max(axis=0) - raw.min(axis=0)).max() / 2 or 0.5


def distances(points):
    """To the mean of all; and how far rounding may move them."""
    return np.linalg.norm(points - points.mean(axis=0), axis=1), CLOSE * np.abs(points).max()


def centroids(points, codes, labels, quantile, min_points):
    """Mean of each category, then of those of its points that are not beyond the quantile.

    Entries of the manifest, and for each whether it is settled: not when several points lie at the
    quantile as far as float64 can tell, such as both of two, which are equally far from their mean.
    """
    found, settled = [], []
    for code, label in enumerate(labels):
        members = points[codes == code]
        if len(members) < min_points:
            continue
        at_limit = 0
        if len(members) > min_points:
            far, close = distances(members)
            limit = np.quantile(far, quantile)
            at_limit = np.count_nonzero(np.abs(far - limit) <= close)
            near = members[far <= limit]
            members = near if len(near) >= min_points else members
        found.append({"category": label, "position": members.mean(axis=0), "n_points": len(members)})
        settled.append(at_limit <= 1)
    return found, settled


def outlier_quantiles(latent, codes, n_categories, min_points):
    """Share of a category's cells as near to its mean as this one, or nearer; and the largest it may be.

    They differ for cells that are equally far as far as float64 can tell. Equal rows always are.
    """
    latent = np.asarray(latent, np.float64)
    least, most = np.full((2, len(codes)), np.nan, np.float32)
    for code in range(n_categories):
        members = np.flatnonzero(codes == code)
        if len(members) >= min_points:
            far, close = distances(latent[members])
            _, same, copies = np.unique(latent[members], axis=0, return_inverse=True, return_counts=True)
            nearer = np.searchsorted(np.sort(far), far - close, side="left")
            least[members] = np.float32(nearer + copies[same.ravel()]) / np.float32(len(members))
            most[members] = np.float32(np.searchsorted(np.sort(far), far + close, side="right")) / np.float32(
                len(members)
            )
    return least, most


def edges(matrix):
    """Sources, destinations and largest degree of the pattern of A + A.T, weights not looked at."""
    stored = sp.coo_array(matrix)
    linked = stored.data != 0
    ones = np.ones(np.count_nonzero(linked), np.int64)
    pattern = sp.csr_array((ones, (stored.row[linked], stored.col[linked])), shape=stored.shape)
    upper = sp.coo_array(sp.triu(pattern + pattern.T, k=1))
    order = np.lexsort((upper.col, upper.row))
    sources, destinations = upper.row[order], upper.col[order]
    degrees = np.bincount(np.r_[sources, destinations], minlength=1)
    return sources, destinations, int(degrees.max())


def bounds(values):
    """What codes 0 and top stand for: the finite range; where it is empty or a point, one long."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if finite.size == 0:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        high = max(low + 1, float(np.nextafter(low, np.inf)))
    return low, high


def positions(values, bits):
    """Where values lie between code 0 and the top code; NaN where they are missing."""
    low, high = bounds(values)
    values = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    return (values - low) / (high - low) * TOP[bits]
