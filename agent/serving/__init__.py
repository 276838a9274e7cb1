"""What the model.py files of triton_models/ share: the models behind them as services of sessions.

Only ``tensors`` needs Triton's Python backend; the rest runs, and is tested, without a server.
"""
