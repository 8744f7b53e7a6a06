"""What the launcher says in one line, with exit status 2."""


class LaunchError(Exception):
  """A mistake of the user's, or a refusal by what was asked; the message says what and where."""
