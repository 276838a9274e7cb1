"""The phone: everything Twilio."""
