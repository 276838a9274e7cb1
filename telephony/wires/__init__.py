"""Other carriers' wires: the same agents behind Telnyx, Plivo, Vonage and Exotel.

The messages of a stream are read and written by Pipecat's serializers; here is what those leave to
others: who may call, what a call does first, when a stream begins and ends, and what was played.
"""
