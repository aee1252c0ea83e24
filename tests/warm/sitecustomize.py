"""Read by every Python that a test starts: `python -m tunesmith...` is handed to a process that has imported it already.

Most of the tests' time went into imports of torch, transformers and trl, again and again, one start after the other. A child that
would begin with them hands its arguments, environment, folder and open files to the zygote of its program (`zygote.py`),
which forks; then it stands in for what was forked: signals go there, and it ends as that ends. Its own end, however it comes, is
the end of the other too. Nothing else changes, and a Python that is started otherwise (`-c`, a script, `-X importtime`) is not
touched: what starts are like without this is tested so. Nor is one that may not write as much as it likes.
"""

import os
import resource
import sys

FOLDER = os.environ.get("TUNESMITH_TEST_ZYGOTES")
MODULES = ("tunesmith", "tunesmith.engine", "tunesmith.worker")

IS_FREE = resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY

WORDS = sys.orig_argv[1:]

if FOLDER and IS_FREE and WORDS[:1] == ["-m"] and WORDS[1] in MODULES:
    import zygote

    zygote.stand_in(FOLDER, " ".join(WORDS[1:3]) if WORDS[2:3] == ["serve"] else WORDS[1], WORDS[2:])
