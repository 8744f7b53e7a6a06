"""Overrides that a shell, a startup script, a heredoc or Kubernetes would like to change on their way to main."""

HOSTILE = ["--config.a=two words", "--config.b='single' \"double\"", "--config.c=$(touch pwned) `touch pwned` $HOME ${HOME}",
           "--config.d=line\nbreak\nSTARTUP_SCRIPT\n", "--config.e=back\\slash; exit 7 & # | > pwned",
           "--config.f={braces} %s ~ * ?", "--config.g=$$ $$(HOME) $(HOME) $", "--config.h=é"]
WORKDIR = "gs://bucket/it's $HOME/run/"
