"""The grids of a network whose inner blocks may work on a coarser one: sizes and common degrees of their transforms."""

from emulator.sphere.tables import truncation

Sizes = tuple[int, int, str, bool, int]  # rows, columns, kind, poles and degrees, as a transform takes them


def outer_and_inner(
    nlat: int, nlon: int, grid: str, poles: bool, scale: float, share: float | None
) -> tuple[Sizes, Sizes]:
    """Sizes of the transforms on the outer and the inner grid, with a common truncation; a coarser grid is Gaussian.

    `scale`: how much coarser the inner grid is. `share`: of its degrees to keep; None for all that the quadratures resolve.
    Raises `ValueError` where no degree is left.
    """
    inner_nlat, inner_nlon = int((nlat - 1) // scale) + 1, int(nlon // scale)
    lmax = min(inner_nlat, inner_nlon // 2)
    lmax = min(lmax, truncation(nlat, nlon, grid)) if share is None else int(lmax * share)
    if lmax < 1:
        raise ValueError(
            f"Expected a scale_factor and a truncation that leave a degree, got {scale} and {share} for "
            f"{nlat} x {nlon} cells"
        )
    outer = nlat, nlon, grid, poles, lmax
    return outer, outer if scale == 1 else (inner_nlat, inner_nlon, "gaussian", False, lmax)
