"""Other people's filters beside ours: their values and decisions on the same documents, and what both cost.

`*_side.py` run in a peer's own interpreter (tools/peers.py) as `python -m tools.curation.<peer>_side` and therefore import
nothing but the standard library, the peer and `side.py`; everything else runs in ours.
"""
