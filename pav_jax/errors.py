"""What `main` prints as one line: what a user can get wrong (exit status 2), and what another host did (1)."""


class UserError(Exception):
  """Something outside the program is wrong: a flag, a path, a file's content, a device count.

  The message is one line that says what is wrong and where. Never raised for
  a bug of ours: those fail loudly, with a traceback.
  """


class LostHost(Exception):
  """Another process of the run is not there or has failed; one line, and the same command may go better next time."""


# What a config says of a key whose value must come from the command line. (ml_collections has a placeholder for it,
# which its own flags cannot override.)
REQUIRED = "<required>"
