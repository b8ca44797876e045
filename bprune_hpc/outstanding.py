"""Which sums are still where they were made, and not on rank 0: the same on every rank. Pure.

Sums are exact, so that when they come together changes no number. It costs messages, and is done
before the results are written; until then ranks hold the sums of the groups that they add to.
"""

from __future__ import annotations

from .plan import MEAN, N_GROUPS, Round


class Outstanding:
    """Groups that ranks have a part of which rank 0 has not got yet."""

    def __init__(self, n_ranks: int) -> None:
        self._groups: list[set[int]] = [set() for _ in range(n_ranks)]

    def __bool__(self) -> bool:
        """Whether there is anything to bring together."""
        return any(self._groups[1:])

    def has_room(self, of_round: Round) -> bool:
        """Whether ranks may take part in a round before sums are brought together.

        They would then hold little more than the round alone asks for.
        """
        most = most_groups_held(of_round)
        both = zip(self._groups[1:], of_round.shares[1:], strict=True)
        return all(len(groups | share.groups) <= most for groups, share in both)

    def add(self, of_round: Round) -> None:
        """Take in the shares of a round."""
        for groups, share in zip(self._groups, of_round.shares, strict=True):
            groups |= share.groups

    def clear(self) -> None:
        """All is on rank 0."""
        self._groups = [set() for _ in self._groups]

    @property
    def participants(self) -> dict[int, tuple[int, ...]]:
        """Ranks, ascending, that have a part of a group."""
        members = {
            group: tuple(rank for rank, groups in enumerate(self._groups) if group in groups)
            for group in (MEAN, *range(N_GROUPS))
        }
        return {group: ranks for group, ranks in members.items() if ranks}


def most_groups_held(of_round: Round) -> int:
    """Groups that a rank other than 0 may hold the sums of while it takes part in a round.

    From round to round shares begin and end elsewhere; the first has the posterior mean.
    """
    of_one = max((len(share.groups) for share in of_round.shares[1:]), default=0)
    return min(of_one + of_one // 4 + 3, N_GROUPS + 1) if of_one else 0
