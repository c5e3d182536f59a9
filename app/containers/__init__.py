"""Image files read by their structure alone: size, orientation, profile; no pixel is decoded."""
