"""Kill -9 of a process that writes blocks, a thousand times on one folder, and what was found after each.

    .venv/bin/python -m bench.kills [KILLS]

Everything that is found is compared with what would be computed; the first wrong answer ends it.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.engine.cache.kills import killed


def main(n_kills: int) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        left = list(killed(Path(folder) / "blocks", n_kills))
    print(f"kills                                  {len(left):,} in {time.monotonic() - began:,.0f} s")
    print(f"kills within the writing of a file     {sum(each.n_temporary > 0 for each in left):,}")
    print(f"torn or wrong files under their name   {sum(each.n_set_aside for each in left):,}")
    print(f"files after the last                   {left[-1].n_files:,}")
    n_tokens, n_asked = sum(each.n_tokens for each in left), sum(each.n_asked for each in left)
    print(f"tokens found of those asked for        {n_tokens:,} of {n_asked:,}, every one right")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
