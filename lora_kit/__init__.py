"""lora_kit: verified LoRA fine-tuning at home.

Levels, each importing only from those to its right::

    cli > pipeline > serve | report > train | export | harness > assemble
        > data | model | artifacts > recipe > catalogue > registry > errors

Read ``pipeline.py`` first: it is the whole tool in one page.
"""

__version__ = "0.1.0"
