"""What a stage asks of a slice of TPUs, told by the real compiler without a TPU.

  chips.py     the chips: memory, FLOPs and bytes a second; a slice's devices by its name
  hlo.py       a compiled program's text: what is sent around, and how often
  counts.py    what a training step keeps on a chip, by hand
  programs.py  every jitted program of a stage, with abstract arguments in the stage's own shapes and shardings
  compile.py   --mode=compile: compiles them, prints bytes against memory and the roofline's time
"""
