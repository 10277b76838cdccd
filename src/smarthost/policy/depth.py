"""Decides how many contents may be in flight on one connection to a site that offers CHUNKING (RFC 3030)."""

DEEPEST = 4  # contents: what one lost connection may leave ambiguous
FIRST_PROOF = 3  # contents, one after the other, until a site has shown that it copes
LONGEST_PROOF = 1000


class Depth:
    """What a site has shown. Mutable, pure; shared by all of its sessions.

    `depth` is 1 until `coped` was called often enough, then `DEEPEST`, and 1 again after a surprise, when twice as many
    proofs are wanted as before. `is_usable` is false for a site that offers CHUNKING and refuses BDAT: it gets DATA.
    """

    __slots__ = ("_proofs", "_wanted", "depth", "is_usable")

    def __init__(self) -> None:
        """Begin with nothing shown."""
        self.depth = 1
        self.is_usable = True
        self._proofs, self._wanted = 0, FIRST_PROOF

    def coped(self) -> None:
        """Count a content that the site took by BDAT."""
        if self.depth < DEEPEST:
            self._proofs += 1
            if self._proofs >= self._wanted:
                self.depth = DEEPEST

    def surprised(self) -> None:
        """A connection was lost with contents in flight, or replies did not fit: carefully again."""
        self.depth = 1
        self._proofs, self._wanted = 0, min(self._wanted * 2, LONGEST_PROOF)

    def refused(self) -> None:
        """BDAT itself was refused: no more of it."""
        self.is_usable = False
