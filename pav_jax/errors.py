"""The one exception for what a user can get wrong; `main` prints it as one line and exits with 2."""


class UserError(Exception):
  """Something outside the program is wrong: a flag, a path, a file's content, a device count.

  The message is one line that says what is wrong and where. Never raised for
  a bug of ours: those fail loudly, with a traceback.
  """


# What a config says of a key whose value must come from the command line. (ml_collections has a placeholder for it,
# which its own flags cannot override.)
REQUIRED = "<required>"
