"""How well a nano answers the phone: what it understands, and how well it can be understood.

``python -m agent.training.evaluation --checkpoint DIR --data DIR --out FILE`` puts held-out
sentences through a phone's band and the three models, as on a call, and writes the figures that the
checkpoint's card states.
"""
