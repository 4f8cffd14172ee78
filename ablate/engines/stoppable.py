"""What the server imports first: Ctrl-C, which reaches it too, ends it without a traceback while it imports the rest.

`warm_up` starts it with SIGINT blocked, so that none comes before this; once it serves, it ignores Ctrl-C.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
