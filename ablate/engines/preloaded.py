"""What the server imports, so that workers are forked with it: all that a task of any kind trains with.

torch imports some of itself when the first optimizer is made, which takes as long again as torch.
"""

import gc
import platform

import torch._dynamo  # noqa: F401

import ablate.engines.worker
import ablate.functions.fit
import ablate.functions.task  # noqa: F401
from ablate.imported import note_imported

note_imported()  # of some thousand modules a worker looks at those alone that are new to it
platform.platform()  # it asks another program, and keeps what that said
gc.freeze()  # a worker's collections leave all of this alone: they would copy its pages
