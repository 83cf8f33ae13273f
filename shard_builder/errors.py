"""Every error this project raises on purpose. ``str(error)`` is the whole message: what, where,
expected and found, what to do.
"""

from __future__ import annotations


class CkError(Exception):
    """Base of all deliberate errors; the commands print it as one clear message and exit with
    ``exit_code``.
    """

    exit_code = 1


class InputError(CkError):
    """The user's input is wrong: an option, a path, a release. Exit code 2."""

    exit_code = 2


class SourceError(InputError):
    """A source release (CK+, prepared tree, videos) breaks a rule; the message names the file."""


class DatasetError(InputError):
    """A dataset folder is missing, incomplete, damaged, foreign or of an unknown version."""


class DamagedMemberError(DatasetError):
    """A member of a shard cannot be read or decoded.

    Args:
        reason: What is wrong with it.
        shard: File name of the tar.
        offset: Byte offset of the member's data in the tar.
        member: Member name, for example ``S010_004.flow-003.jpg``.
        key: Key of the sample the member belongs to.
    """

    def __init__(self, reason: str, *, shard: str, offset: int, member: str, key: str) -> None:
        super().__init__(
            f"{shard}: sample {key}, member {member} at byte {offset}: {reason}\n"
            "  Run: ckshard verify DATASET, then build the dataset again, or pass --on-error skip."
        )
        self.reason, self.shard, self.offset, self.member, self.key = (
            reason,
            shard,
            offset,
            member,
            key,
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the keyword arguments when the error crosses a process border."""
        return (_damaged_member, (self.reason, self.shard, self.offset, self.member, self.key))


def _damaged_member(
    reason: str, shard: str, offset: int, member: str, key: str
) -> DamagedMemberError:
    return DamagedMemberError(reason, shard=shard, offset=offset, member=member, key=key)


class BuildError(CkError):
    """A build could not finish for a reason that is not the input: a full disk, a worker that died.
    Exit code 1.
    """


class TrainingError(CkError):
    """Training cannot go on: a non-finite loss or gradient, a rank that died. Exit code 1."""
