"""Sequences of tokenized rows that are read one by one when they are asked for."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import overload

from lightning_bnf.datamodules.template import TokenizedRow


class Rows(Sequence[TokenizedRow]):
    """What `row` gives for each place from 0; places from the end and slices, which are lists, come with it."""

    @abstractmethod
    def row(self, index: int) -> TokenizedRow:
        """The row at a place in [0, len)."""

    @overload
    def __getitem__(self, index: int) -> TokenizedRow: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenizedRow]: ...
    def __getitem__(self, index: int | slice) -> TokenizedRow | list[TokenizedRow]:
        if isinstance(index, slice):
            return [self.row(i) for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.row(index % len(self))

    def __iter__(self) -> Iterator[TokenizedRow]:
        return (self.row(i) for i in range(len(self)))
