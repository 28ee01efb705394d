"""What an export must hold, in plain NumPy and float64. Shares no code with the package.

Sums run in the order of cells and of axes (`cumsum`, not NumPy's pairwise `sum`), as the program
promises one order whatever the number of threads; so its answers are compared bit for bit.
"""

import numpy as np
import scipy.sparse as sp

TOP = {8: 254, 16: 65534}


def normalised(raw):
    """Coordinates with the middle of their box at 0 and its widest side 2 long, not rounded."""
    raw = np.asarray(raw, np.float64)
    low, high = raw.min(axis=0), raw.max(axis=0)
    return (raw - (low + high) / 2) / half_width(raw)


def half_width(raw):
    """Half of the widest side of the box around coordinates; what vectors are divided by."""
    raw = np.asarray(raw, np.float64)
    return (raw.max(axis=0) - raw.min(axis=0)).max() / 2 or 0.5


def mean(points):
    return np.cumsum(points, axis=0)[-1] / len(points)


def distances(points, center):
    return np.sqrt(np.cumsum((points - center) ** 2, axis=1)[:, -1])


def centroids(points, codes, labels, quantile, min_points):
    """Mean of each category, then of those of its points that are not beyond the quantile."""
    found = []
    for code, label in enumerate(labels):
        members = points[codes == code]
        if len(members) < min_points:
            continue
        if len(members) > min_points:
            far = distances(members, mean(members))
            near = members[far <= np.quantile(far, quantile)]
            members = near if len(near) >= min_points else members
        found.append({"category": label, "position": mean(members).tolist(), "n_points": len(members)})
    return found


def outlier_quantiles(latent, codes, n_categories, min_points):
    """Share of a category's cells as near to its mean as this one, or nearer."""
    latent = np.asarray(latent, np.float64)
    quantiles = np.full(len(codes), np.nan, np.float32)
    for code in range(n_categories):
        members = np.flatnonzero(codes == code)
        if len(members) >= min_points:
            far = distances(latent[members], mean(latent[members]))
            ranks = np.searchsorted(np.sort(far), far, side="right")
            quantiles[members] = ranks.astype(np.float32) / np.float32(len(members))
    return quantiles


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
