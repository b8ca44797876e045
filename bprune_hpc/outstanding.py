"""Which sums are still where they were made, and not on rank 0: the same on every rank. Pure.

Sums are exact, so that when they come together changes no number. It costs messages, and is done
before the results are written; until then ranks hold the sums of the groups that they add to.
"""

from __future__ import annotations

from .plan import MEAN, N_GROUPS, Plan, Round, round_of


class Outstanding:
    """Groups that other ranks have a part of, which rank 0 has not got yet.

    Parameters
    ----------
    most : int
        Groups that a rank may hold, or as many as a round has it add to if those are more.
    """

    def __init__(self, n_ranks: int, most: int = N_GROUPS + 1) -> None:
        self._groups: list[set[int]] = [set() for _ in range(n_ranks)]
        self._most = most

    @classmethod
    def of(cls, plan: Plan, n_ranks: int) -> Outstanding:
        """None yet, of the whole of a sweep's work."""
        return cls(n_ranks, most_groups_held(len(plan.units), plan.n_thresholds, n_ranks))

    def __bool__(self) -> bool:
        """Whether there is anything to bring together."""
        return any(self._groups[1:])

    def has_room(self, of_round: Round) -> bool:
        """Whether ranks may take part in a round before sums are brought together."""
        return not self or all(
            len(groups | share.groups) <= max(self._most, len(share.groups))
            for groups, share in zip(self._groups[1:], of_round.shares[1:], strict=True)
        )

    def add(self, of_round: Round) -> None:
        """Take in the shares of a round."""
        if not self:
            self.clear()  # what rank 0 alone added to is there
        for groups, share in zip(self._groups, of_round.shares, strict=True):
            groups |= share.groups

    def clear(self) -> None:
        """All is on rank 0."""
        self._groups = [set() for _ in self._groups]

    @property
    def participants(self) -> dict[int, tuple[int, ...]]:
        """Ranks, ascending, that have a part of a group, where others than rank 0 do."""
        members = {
            group: tuple(rank for rank, groups in enumerate(self._groups) if group in groups)
            for group in (MEAN, *range(N_GROUPS))
        }
        return {group: ranks for group, ranks in members.items() if any(ranks)}


def most_groups_held(n_units: int, n_thresholds: int, n_ranks: int) -> int:
    """Groups that a rank other than 0 may hold the sums of: somewhat more than a long round's.

    From round to round shares begin and end elsewhere; the first has the posterior mean.
    """
    if n_ranks == 1:
        return 0
    of_all = round_of(range(n_units), [1] * n_thresholds, n_ranks)
    of_one = max(2, *(len(share.groups) for share in of_all.shares))
    return min(of_one + of_one // 4 + 3, N_GROUPS + 1)
