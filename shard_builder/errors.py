"""Every error that this project raises on purpose.

``str(error)`` is the whole message: what, where, expected and found, what to do.

**Which one.** What a person gave (an argument of a public function, a field of an options record,
a path, a file, a dataset, a release) raises :class:`InputError` or one of its kinds. A value that
only our own code can get wrong raises a plain ``ValueError``. So do the records that a file is read
into: its reader turns that into an ``InputError`` which names the file.

**How a message names an argument.** As Python writes it, ``name=value``, in the complaint and in
the advice: ``codec='bmp', expected one of jpg, png, raw``; ``leave it out with on_error='skip'``.
The console prints ``--codec bmp`` and ``--on-error skip`` where the command that runs has an
option of that name; see :func:`shard_builder.console.run_app`. ``shard_builder.checks`` holds the
usual comparisons.

**Numbers** of things stand in messages, as in all printed text, by :func:`counted`.
"""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """Say how many of something there are; ``many`` where it is not ``one`` with an s.

    >>> [counted(number, "frame") for number in (0, 1, 2)]
    ['0 frames', '1 frame', '2 frames']
    >>> counted(1, "class is empty", "classes are empty")
    '1 class is empty'
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


class CkError(Exception):
    """Base of all deliberate errors; a command prints its text and exits with ``exit_code``."""

    exit_code = 1


class InputError(CkError, ValueError):
    """What a person gave is wrong: an argument, a path, a file. Exit code 2."""

    exit_code = 2


class SourceError(InputError):
    """A source release (CK+, prepared tree, videos) breaks a rule; the message names the file."""


class DatasetError(InputError):
    """A dataset folder is missing, incomplete, damaged, foreign or of an unknown version."""


class StoreError(DatasetError):
    """A store of objects cannot be reached, or refuses, although the address may be right."""

    exit_code = 1


class RangeError(StoreError):
    """A store answers other bytes than it was asked for, fewer or none: the object is another."""


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
            "  Run: ckshard verify DATASET, then build the dataset again, or pass on_error='skip'."
        )
        self.reason, self.shard, self.offset = reason, shard, offset
        self.member, self.key = member, key

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the keyword arguments when the error crosses a process border."""
        return (_damaged_member, (self.reason, self.shard, self.offset, self.member, self.key))


def _damaged_member(
    reason: str, shard: str, offset: int, member: str, key: str
) -> DamagedMemberError:
    return DamagedMemberError(reason, shard=shard, offset=offset, member=member, key=key)


class BuildError(CkError):
    """A build could not finish although its input is fine: a full disk, a worker that died."""


class TrainingError(CkError):
    """Training cannot continue: a non-finite loss or gradient, a rank that died."""
