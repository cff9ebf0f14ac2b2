"""The time and energy roofline: of a network by its layers, and as the few parameters of a fit.

``prediction.py`` computes a network on a board from its counted work (``work.py``) and the
board's constants (``boards/``). ``time.py``, ``energy.py`` and ``fit.py`` are the aggregate
roofline that a policy fits to its trials, which needs neither.
"""
